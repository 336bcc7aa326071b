"""The base model `tiny`: a random two-layer Llama with a byte-level tokenizer of its own, for tests and dry roads.

It has the architecture of the models the paper trains and speaks the `raw` and `chat` wires; it knows nothing.
"""

from __future__ import annotations

from typing import Any

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.train.settings import LLAMA3_TEMPLATE
from guardreasoner.types import TASKS

BEGIN, END, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
SPECIAL = (BEGIN, END, TURN, "<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>")
VOCABULARY = 600


def build_tokenizer() -> Any:
    """Byte-level BPE learned from our own scaffold, with the special tokens of Llama 3."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = [f"{row.heading}\n{row.key}: {row.positive} {row.negative} None\n" for row in TASKS.values()]
    scaffold = [f"{wire_format.HUMAN}\n\n{wire_format.ASSISTANT}\n{wire_format.STEP_HEADING} 1\n{wire_format.RULE}\n"]
    tokenizer.train_from_iterator(
        [wire_format.INSTRUCTION, *words, *scaffold, f"{wire_format.ANSWERS} \n"] * 2,
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


def load_tiny(seed: int = 0) -> tuple[Any, Any]:
    """The model (float32, the same for the same seed) and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config), tokenizer
