#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does KL-guided selection win on the built-in teacher? 3 seeds, budgets of 1, 2 and 3 kept layers, equal tokens: KL-guided,
# uniform in every phase, random, all-linear. Alignment and scores are made once for each seed and reused.
#
# usage: selection_table.sh AMALGAM FOLDER [PROCESSES [--set key=value...]]
# Leaves run folders in FOLDER; `python analysis/selection_table.py FOLDER` makes the table.
set -euo pipefail
amalgam=$1 folder=$2 processes=${3:-1}
shift $(($# < 3 ? $# : 3))
mkdir -p "$folder"
export OMP_NUM_THREADS=1

convert() {  # convert NAME [--set key=value...]
  local name=$1
  shift
  "$amalgam" run jobs/quickstart.yaml --set name="$name" --set output="$folder" --set threads_per_rank=1 --set evaluate.sequences=128 \
    --set 'export.formats=[]' --set checkpoint.every_steps=0 "$@" >"$folder/$name.out" 2>&1 || echo "$name failed: $folder/$name.out"
}
export -f convert
export amalgam folder

for seed in 0 1 2; do
  echo "convert kl_guided-k1-s$seed --set seed=$seed --set select.budget=1 $*"
done | xargs -P "$processes" -I{} bash -c '{}'

for seed in 0 1 2; do
  common="--set seed=$seed --set reuse=$folder/kl_guided-k1-s$seed $*"
  echo "convert all_linear-k0-s$seed $common --set select.rule=all_linear"
  for budget in 1 2 3; do
    [ $budget = 1 ] || echo "convert kl_guided-k$budget-s$seed $common --set select.budget=$budget"
    echo "convert random-k$budget-s$seed $common --set select.rule=random --set select.seed=$seed --set select.budget=$budget"
    for phase in $(seq 0 $(((10 + budget - 1) / budget - 1))); do
      echo "convert uniform$phase-k$budget-s$seed $common --set select.rule=uniform --set select.phase=$phase --set select.budget=$budget"
    done
  done
done | xargs -P "$processes" -I{} bash -c '{}'
