"""Matrices with weights on a 4-bit grid, as GGUF's Q4_1 stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError

BLOCK = 32
"""Neighbours of a row that share a step and an offset."""
_BYTES = 20
"""Of a block: step and offset in float16, then two codes a byte; the low bits hold the first half of the block."""


@dataclass(frozen=True, slots=True)
class FourBits:
    """A matrix of (outputs, inputs): each weight is its block's step times a code, plus its block's offset."""

    codes: NDArray[np.uint8]
    """0 to 15, (outputs, inputs)."""
    steps: NDArray[np.float16]
    """(outputs, inputs / 32)."""
    offsets: NDArray[np.float16]
    """(outputs, inputs / 32)."""

    @classmethod
    def q4_1(cls, rows: NDArray[np.uint8]) -> FourBits:
        """From the bytes of a GGUF tensor, (outputs, inputs / 32 * 20)."""
        if rows.ndim != 2 or rows.shape[1] % _BYTES:
            raise ConfigError(f"a tensor of shape {rows.shape} holds no rows of Q4_1 blocks ({_BYTES} bytes each)")
        blocks = rows.reshape(len(rows), -1, _BYTES)
        step, offset = (np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0] for at in (0, 2))
        codes = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], axis=-1)
        return cls(codes.reshape(len(rows), -1), step, offset)

    def rotary(self, heads: int) -> FourBits:
        """The same rows in transformers' order: GGUF keeps the two halves of each head's rotary pairs side by side."""
        order = np.arange(len(self.codes)).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
        return FourBits(self.codes[order], self.steps[order], self.offsets[order])

    @property
    def weights(self) -> NDArray[np.float32]:
        """All weights, (outputs, inputs)."""
        blocks = self.codes.reshape(*self.steps.shape, BLOCK).astype(np.float32)
        made: Any = blocks * self.steps[..., None].astype(np.float32) + self.offsets[..., None].astype(np.float32)
        return np.asarray(made.reshape(self.codes.shape), np.float32)
