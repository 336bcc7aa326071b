"""Configuration of nano's training, and of micro's second network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EncoderData:
    """Which rows train nano, and what is made of them."""

    use: tuple[str, ...] = ("permissive",)
    """Licence classes that train."""
    caps: Mapping[str, int] = field(default_factory=dict)
    """Most rows taken of a source."""
    default_cap: int = 1200
    """Most rows of a source that `caps` does not name."""
    repeat: Mapping[str, int] = field(default_factory=dict)
    """How often the rows of a source are seen, or of a group of `data/contrasts.jsonl` (their ids less the number)."""
    leave_out: tuple[str, ...] = ()
    """Sources, and everyday domains (`a05`), that validate and never train, whatever their licence."""
    leave_out_cap: int = 250
    """Most validation rows of a source."""
    everyday: bool = True
    """Whether everyday rows train (its test domains never do)."""
    contrasts: bool = False
    """Whether the twins train that were written for nano and come with the package (`data/contrasts.jsonl`)."""
    kinds_from: tuple[str, ...] = ()
    """Sources whose `category` names the kind of harm."""
    alone: float = 0.5
    """Share of exchanges whose request is also seen without the reply (everyday: all)."""
    joined: float = 0.25
    """Joined rows, as a share of the plain ones."""
    worn: float = 0.06
    """Share of rows whose letters are disturbed."""
    rows: int | None = None
    """Most rows in all, drawn from the above; None = every row."""
    seed: int = 0


@dataclass(frozen=True)
class EncoderConfig:
    """How nano is trained, or micro's second network."""

    data: EncoderData = field(default_factory=EncoderData)
    tokens: int = 224
    """Most tokens of one row; the middle of a longer text is left out."""
    long_tokens: int = 512
    """The same for the share `long` of the rows."""
    long: float = 0.06
    batch_tokens: int = 2560
    """Tokens of one step, padding included."""
    batch_rows: int = 40
    learning_rate: float = 2e-4
    head_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    smoothing: float = 0.02
    """Distance of the targets from 0 and 1."""
    kind_weight: float = 0.3
    attack_weight: float = 0.5
    source_odds: float = 0.0
    """Share of the log-odds of a label among the rows of a source that is added to their logits while training: with
    1.0 it need not be learned which sources are harmful, by their style, and what is learned is what tells the rows of
    one source apart (logit adjustment, arXiv 2007.07314, by source)."""
    reply_from_request: float = 0.0
    """Share of the request's logit that the reply's head takes over once it is trained."""
    reply_from_refusal: float = 0.0
    """Share of the refusal's logit that is taken off it: a reply that refuses is no harm, and people call most replies
    to a harmful request harmful that do not refuse."""
    layers: int = 18
    """Decoder: how many of SmolLM2's thirty layers."""
    freeze: int = 4
    """Decoder: the lowest of them stay as they are."""
    rank: int = 16
    """Decoder: of the adapters."""
    epochs: int = 1
    save_minutes: float = 4.0
    seed: int = 42
