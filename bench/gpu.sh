#!/bin/sh
# What only a GPU can show about training, in at most ten minutes on any single GPU: R-SFT with FlashAttention and
# packing, stock TRL, HS-DPO, and sampling on vLLM where it is installed, at 135M and at the shape of Llama-3.2-1B,
# with random weights. Writes one table.
#
#     bench/gpu.sh [TABLE.md] [SHAPE...]         on a CPU: bench/gpu.sh TABLE.md tiny
set -eu
cd "$(dirname "$0")/.."
table=${1:-gpu.md}
[ $# -gt 0 ] && shift
set -- ${*:-135m 1b}
options=
for shape in "$@"; do options="$options --shape $shape"; done
[ "$*" = tiny ] && options="$options --steps 4 --batch 2 --longest 600"
python -c 'import flash_attn' 2>/dev/null || echo "flash_attn is not installed: attention is torch's own" >&2
PYTHONPATH=src timeout 580 python bench/train.py $options --out "$table"
