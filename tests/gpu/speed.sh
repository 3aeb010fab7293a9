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
cases=("smollm2-135m 32 512" "smollm2-135m 8 2048" "qwen2.5-1.5b 8 512" "qwen2.5-1.5b 1 4096")
export TRITON_CACHE_AUTOTUNING=1
export PYTHONUNBUFFERED=1

if [ "$mode" = warm ]; then
    # Four layers have both kinds of mixers: all kernels in all shapes.
    for case in "${cases[@]}"; do
        read -r shape sequences time <<< "$case"
        python3 tests/benchmarks/training_step_peer.py none --warm --device cuda --shape "$shape" --sequences "$sequences" \
            --time "$time" --layers 4 --rule fla --triton-configs 3 > "$folder/warm-$shape-$time.log" 2>&1 &
    done
    wait
    exit
fi
: > "$folder/speed.csv"
: > "$folder/profile.txt"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee -a "$folder/profile.txt"
for case in "${cases[@]}"; do
    read -r shape sequences time <<< "$case"
    python3 tests/benchmarks/training_step_peer.py "tests/gpu/start.sh training_step_benchmark" --device cuda --shape "$shape" --sequences "$sequences" \
        --time "$time" --threads 8 --rounds 5 --rule fla --triton-configs 3 | tee -a "$folder/speed.csv"
done
for case in "${cases[@]}"; do
    read -r shape sequences time <<< "$case"
    layers=$([ "$shape" = smollm2-135m ] && echo 30 || echo 28)
    tests/gpu/start.sh training_step_benchmark "$sequences" "$time" bf16 8 1 $layers cuda "$shape" 15 2>&1 | tee -a "$folder/profile.txt"
done
