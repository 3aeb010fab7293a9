#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How far from the best set of layers is each rule? On the built-in teacher, whose sets of up to 3 of its 10 layers (175) can all be
# tried: one alignment, then a student of each set, and the choice of every rule for 1, 2 and 3 layers.
#
# usage: every_set.sh AMALGAM FOLDER [PROCESSES [--set key=value...]]
# Leaves run folders in FOLDER; `python analysis/every_set.py FOLDER` makes the table.
set -euo pipefail
amalgam=$1 folder=$2 processes=${3:-1}
shift $(($# < 3 ? $# : 3))
mkdir -p "$folder"
export OMP_NUM_THREADS=1 amalgam folder common="$*"

convert() {  # convert NAME [--set key=value...]
  local name=$1
  shift
  "$amalgam" run jobs/quickstart.yaml --set name="$name" --set output="$folder" --set threads_per_rank=1 --set device=cpu \
    --set evaluate.sequences=128 --set evaluate.recall.questions=8 --set 'export.formats=[]' --set checkpoint.every_steps=0 $common "$@" \
    >"$folder/$name.out" 2>&1 || echo "$name failed: $folder/$name.out"
}
student() { convert "set-${1//,/-}" --set reuse="$folder/base" --set select.rule=explicit --set "select.layers=[$1]"; }
choice() {  # choice RULE: of 3, 2 and 1 layers, scored once where the scores do not depend on it; every_set.py looks their students up
  local scored=base
  for layers in 3 2 1; do
    convert "rule-$1-$layers" --set reuse="$folder/$scored" --set select.rule="$1" --set select.budget="$layers" --set distill.tokens=0 \
      --set evaluate.sequences=0 --set evaluate.recall.questions=0
    scored="rule-$1-3"
  done
}
export -f convert student choice

convert base --set select.rule=all_linear --set distill.tokens=0 --set evaluate.sequences=0 --set evaluate.recall.questions=0
{
  for rule in recall_guided removal_rounds swaps joint_gates kl_guided kl_guided_removal kl_guided_average aligned_addition smart \
      hidden_state_addition hidden_state_removal perplexity halo ablation ablation_accuracy uniform; do
    echo "choice $rule"
  done
  for a in 0 1 2 3 4 5 6 7 8 9; do
    echo "student $a"
    for ((b = a + 1; b < 10; b++)); do
      echo "student $a,$b"
      for ((c = b + 1; c < 10; c++)); do echo "student $a,$b,$c"; done
    done
  done
} | xargs -P "$processes" -I{} bash -c '{}'
