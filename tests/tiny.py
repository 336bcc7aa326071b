"""A whole model folder of 200 to 400 kB, copied in milliseconds and without torch: for tests of everything above it.

The network is a Llama with random weights, `tiny_torch.tiny_checkpoint` as `export` writes it: it answers nonsense,
always the same nonsense. Its tokenizer is a lower-case WordPiece whose scaffold strings and verdict words are single
tokens.
"""

import shutil
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

DATA = Path(__file__).parent / "data" / "tiny"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SCAFFOLD = (
    "\n",
    "Human user:",
    "AI assistant:",
    "Answers:",
    "Request:",
    "Completion:",
    "Response:",
    "---",
    "# Task 1",
    "# Task 2",
    "# Task 3",
    "## Reasoning Step 1",
    "## Reasoning Step 2",
    "None",
)
SENTENCE = "the user asks for how to kill a process is request response so and it this no risk of harm answer says help"
WORDS = ("harmful", "unharmful", "refusal", "compliance", *SENTENCE.split(), "please", "sorry", "i", "cannot", "cake")
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()[]{}<>|/\\-_#*&@$%+=~`^"


def tiny_tokenizer() -> Tokenizer:
    """Lower-case WordPiece of about 170 entries; every ASCII word can be spelled."""
    words = [*SPECIAL, *WORDS, *(c for c in SIGNS if c not in WORDS), *(f"##{c}" for c in SIGNS)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=200))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SCAFFOLD])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]"))]
    )
    return tokenizer


def tiny_onnx_folder(tmp_path: Path, *, precision: str = "int8") -> Path:
    """A model folder that `OnnxEngine` and `load_guard` take."""
    folder = tmp_path / f"tiny-{precision}"
    shutil.copytree(DATA / precision, folder)
    return folder
