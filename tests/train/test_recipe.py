"""Recipes say what differs from the paper, and say what is wrong with them before anything is spent."""

import pytest

from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.train.recipe import Recipe, load_recipe, names, parse_recipe


def test_an_empty_recipe_holds_the_papers_values():
    recipe = parse_recipe("", name="empty")
    assert (recipe.sft.learning_rate, recipe.sft.epochs, recipe.sft.batch, recipe.sft.max_tokens) == (
        5e-5,
        3,
        384,
        2048,
    )
    assert (recipe.sft.schedule, recipe.sft.warmup, recipe.sft.verdict_weight) == ("cosine", 0, None)
    assert (recipe.sample.k, recipe.sample.temperature) == (4, 0.7)
    assert (recipe.mine.gamma, recipe.mine.pair) == (0.2, "longest")
    assert (recipe.dpo.learning_rate, recipe.dpo.epochs, recipe.dpo.batch) == (5e-6, 2, 256)
    assert (recipe.dpo.beta, recipe.dpo.sft_weight, recipe.dpo.weight_sft) == (0.01, 2.0, False)


@pytest.mark.parametrize("name", names())
def test_every_bundled_recipe_loads(name):
    assert isinstance(load_recipe(name), Recipe)


def test_there_is_a_recipe_for_each_size_and_road():
    assert set(names()) == {
        "smoke", "mini", "nano", "nano-research", "ablation", "1b", "3b", "8b",
    }  # fmt: skip


@pytest.mark.parametrize("size", ["1b", "3b", "8b"])
def test_the_papers_recipes_leave_one_seed_set_out_of_each_diversity_model(size):
    recipe = load_recipe(size)
    left_out = [config.leave_out for config in recipe.variants.values()]
    assert left_out == [("AegisTrain",), ("BeaverTailsTrain",), ("ToxicChatTrain",)]
    assert recipe.sample.models == ("sft", *recipe.variants)
    assert all(config.learning_rate == recipe.sft.learning_rate for config in recipe.variants.values())


def test_the_ablations_are_rows_of_one_recipe():
    recipe = load_recipe("ablation")
    assert recipe.variants["baseline"].only == ("WildGuardTrain",)
    assert {(v.reasoning, v.labels_only) for v in recipe.variants.values()} == {(0.0, 1.0)}


def test_the_shipped_guard_is_trained_on_permissive_rows_only():
    assert load_recipe("nano").encoder.data.use == ("permissive",)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("sft: {learning_rat: 1.0e-5}", "learning_rate"),
        ("stf: {}", "sft"),
        ("sft: {lora: {rnak: 8}}", "rank"),
        ("variants: {a: {leave_uot: []}}", "leave_out"),
        ("sample: {models: [sft, secnod]}\nvariants: {second: {}}", "second"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(text, near):
    with pytest.raises(UnknownName, match=near):
        parse_recipe(text, name="typo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sft: {epochs: many}", r"sft\.epochs must be a number"),
        ("sft: {batch: 1.5}", r"sft\.batch must be a whole number"),
        ("sft: {batch: true}", r"sft\.batch must be a whole number"),
        ("sft: {only: WildGuardTrain}", r"sft\.only must be a list"),
        ("sft: {precision: fp16}", r"sft\.precision must be one of auto, bf16, fp32"),
        ("sft: [1]", r"sft must be a mapping"),
        ("sft: {gradient_checkpointing: 1}", r"true or false"),
        ("data: {caps: {a: b}}", r"data\.caps\.a must be a whole number"),
        ("model: {wire: telegram}", r"model\.wire must be one of raw, chat,"),
        ("sft: {batch: 0}", r"sft\.batch must be at least 1, not 0"),
        ("sft: {keep: best}", "validate_every"),
        ("mine: {rule: official, pair: random}", "as released"),
        ("variants: {dpo: {}}", "not a stage's"),
        ("a: [", "not YAML at line"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text, name="wrong")


def test_numbers_that_yaml_reads_as_text_are_numbers_all_the_same():
    assert parse_recipe("sft: {learning_rate: 3e-4, packing: off}", name="x").sft.learning_rate == 3e-4


def test_a_variant_is_the_sft_section_with_some_keys_changed():
    recipe = parse_recipe("sft: {epochs: 1}\nvariants: {second: {seed: 7}}", name="x")
    assert (recipe.variant("second").epochs, recipe.variant("second").seed) == (1.0, 7)
    assert recipe.folder("second") == "sft-second"
    with pytest.raises(UnknownName, match="second"):
        recipe.variant("secnd")


def test_what_extends_a_recipe_changes_the_keys_it_names_at_every_depth():
    under = load_recipe("nano")
    over = parse_recipe("extends: nano\nencoder: {data: {caps: {gptfuzz: 7}, repeat: {}}}\n", name="mine")
    assert over.encoder.data.caps == {**under.encoder.data.caps, "gptfuzz": 7}
    assert (over.encoder.data.leave_out, over.encoder.tokens) == (under.encoder.data.leave_out, under.encoder.tokens)
    assert under.encoder.data.repeat
    assert not over.encoder.data.repeat  # an empty mapping empties


def test_a_recipe_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
