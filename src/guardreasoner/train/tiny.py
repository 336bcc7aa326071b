"""The base model `tiny`: a small Llama of random weights with a tokenizer of its own, for the recipe `smoke` and tests.

It has the architecture of the models the paper trains and speaks both wires. It knows nothing: from two hundred
rows it learns the form of an answer and those rows by heart.
"""

from __future__ import annotations

from typing import Any

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.train.settings import LLAMA3_TEMPLATE
from guardreasoner.types import TASKS
from guardreasoner.yaml_files import in_package

BEGIN, END, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
SPECIAL = (BEGIN, END, TURN, "<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>")
VOCABULARY = 2048


def build_tokenizer() -> Any:
    """Byte-level BPE learned from our own scaffold and the bundled rows, with the special tokens of Llama 3."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [f"{row.heading}\n{row.key}: {row.positive} {row.negative} None\n" for row in TASKS.values()]
    scaffold = [f"{wire_format.HUMAN}\n\n{wire_format.ASSISTANT}\n{wire_format.STEP_HEADING} 1\n{wire_format.RULE}\n"]
    rows = in_package("data/smoke.jsonl").read_text(encoding="utf-8").splitlines()
    tokenizer.train_from_iterator(
        [*[wire_format.INSTRUCTION, *words, *scaffold, f"{wire_format.ANSWERS} \n"] * 99, *rows],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, begin)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=TURN,
        pad_token=SPECIAL[-1],
        chat_template=LLAMA3_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def load_tiny(attention: str = "sdpa") -> tuple[Any, Any]:
    """The model (float32, always the same) and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.06,  # at 0.02 so narrow a model is slow to learn more than the frequency of words
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=attention,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer
