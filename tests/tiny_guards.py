"""Tiny randomly initialised models of the architectures that guards are made of, saved as their owners' folders are."""

from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer

from tiny_torch import save_tokenizer
from tokenizers_of_all_kinds import byte_bpe, metaspace_bpe, unigram

PLAIN = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
STRICT = (  # the manners of LLaMA Guard 3: alternation enforced, blanks trimmed, a header and nothing after it
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] | trim }}\n\n{% endfor %}<|start_header_id|>assistant<|end_header_id|>"
)
PARTS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'][0]['text'] | trim }}\n\n{% endfor %}{{ categories }}"
GUIDELINE = "{{ bos_token }}* {{ guideline }}\n{% for m in messages %}{{ m['content'] }}\n{% endfor %}?"
GUARDIAN = "{{ guardian_config }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "llama": ("Llama", byte_bpe, {}),
    "llama2": ("Llama", metaspace_bpe, {}),
    "mistral": ("Mistral", metaspace_bpe, {"sliding_window": None}),
    "gemma2": ("Gemma2", unigram, {"head_dim": 16, "query_pre_attn_scalar": 16}),
    "qwen2": ("Qwen2", byte_bpe, {}),
    "qwen3": ("Qwen3", byte_bpe, {"head_dim": 16}),
    "granite": ("Granite", byte_bpe, {}),
    "gpt_oss": ("GptOss", byte_bpe, {"head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1}),
}


def tiny_guard(folder: Path, architecture: str, *, template: str = PLAIN, head: str = "CausalLM") -> Path:
    """A model folder with weights in safetensors, a tokenizer and a chat template."""
    family, make, more = ARCHITECTURES[architecture]
    tokenizer = make()
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in ("<eos>", "</s>")])
    begin = next((t for t in ("<s>", "<bos>", "<|begin_of_text|>") if tokenizer.token_to_id(t) is not None), None)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=tokenizer.token_to_id(begin),
        eos_token_id=tokenizer.token_to_id("<eos>"),
        pad_token_id=tokenizer.token_to_id("<eos>"),
        **SIZES,
        **more,
    )
    if head == "ForSequenceClassification":
        config.num_labels = 14
        config.problem_type = "multi_label_classification"
    torch.manual_seed(0)
    name = f"{family}For{head}" if head == "CausalLM" else f"{family}{head}"
    getattr(transformers, name)(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, chat_template=template, bos_token=begin, eos_token="<eos>")
    return folder


def tiny_adapter(folder: Path, base: Path) -> Path:
    """A LoRA adapter whose weights are not zero, so that it changes what the base says."""
    import peft

    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 1.0)
    adapted.save_pretrained(folder)
    return folder


def log_probability(folder: Path, prompt: list[int], word: list[int], adapter: Path | None = None) -> float:
    """log P(word | prompt) by transformers alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    if adapter is not None:
        import peft

        model = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *word]])).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(word))


def tokenizer_of(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
