"""Attention forward and backward in training: ours for short rows beside torch's fused kernel, on a CPU.

    python bench/attention.py [--threads 2]

12 heads of 32, bfloat16, 4,000 to 13,000 tokens a pass, causal. The last column is the fused kernel's time over ours.
"""

from __future__ import annotations

import argparse
import time

import torch

from guardreasoner.train.attention import attend

SHAPES = ((58, 64), (32, 128), (32, 256), (32, 416))


def seconds(attention, batch: int, length: int, rounds: int) -> float:  # type: ignore[no-untyped-def]
    """Of one forward and backward pass."""
    parts = [torch.randn(batch, length, 12, 32).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)]
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(batch, 1, length, length)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        out = attention(*parts, mask)
        out.backward(out.detach())
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def fused(query, key, value, mask):  # type: ignore[no-untyped-def]
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def ours(query, key, value, mask):  # type: ignore[no-untyped-def]
        return attend(None, query, key, value, mask)[0]

    print(f"{'rows x tokens':<16}{'fused ms':>10}{'ours ms':>10}{'times':>8}")
    for batch, length in SHAPES:
        one, other = (seconds(a, batch, length, args.rounds) for a in (fused, ours))
        print(f"{f'{batch} x {length}':<16}{one * 1000:>10.1f}{other * 1000:>10.1f}{one / other:>8.2f}")


if __name__ == "__main__":
    main()
