#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Training steps on the GPU beside the same steps in PyTorch with flash-linear-attention (wheels in .whl/, see README.md),
# and where our time goes. Writes speed.csv and profile.txt into FOLDER. To be run alone on the GPU.
#
# usage: tests/gpu/speed.sh FOLDER [warm|measure]     warm: only compile the peer's Triton kernels (may run beside others)
set -euo pipefail

cd "$(dirname "$0")/../.."
folder=$1 mode=${2:-measure}
mkdir -p "$folder"
# sequences x time, about 16 k tokens a step for the small model and 4 k for the large one
cases=(smollm2-135m:32x512 smollm2-135m:8x2048 qwen2.5-1.5b:8x512 qwen2.5-1.5b:1x4096)
export PYTHONUNBUFFERED=1

if [ "$mode" = warm ]; then
    # Four layers have both kinds of mixers: all kernels in all shapes.
    for case in "${cases[@]}"; do
        python3 tests/benchmarks/training_step_peer.py none --warm --device cuda --case "$case" \
            --layers 4 --rule fla --triton-configs 3 > "$folder/warm-${case/:/-}.log" 2>&1 &
    done
    wait
    exit
fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$folder/profile.txt"
python3 tests/benchmarks/training_step_peer.py "tests/gpu/start.sh training_step_benchmark" --device cuda \
    --case "${cases[@]}" --threads 8 --rounds 5 --rule fla --triton-configs 3 --profile "$folder/profile.txt" |
    tee "$folder/speed.csv"
