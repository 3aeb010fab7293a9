#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two ranks, each with a GPU of its own: is what they compute together what one computes, what happens when one of them
# hangs, and how fast are they? Writes the figures into FOLDER.
#
# usage: tests/gpu/two_gpus.sh FOLDER [SHAPE:SEQUENCES ...]
#        SHAPE:SEQUENCES  timed with so many sequences of 4096 a rank (default: qwen2.5-3b:1 qwen2.5-7b:1)
# Environment: DEVICE=cpu, TIME (tokens of a sequence) and START (in place of start.sh) try the script without GPUs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 1 ] || { echo "usage: tests/gpu/two_gpus.sh FOLDER [SHAPE:SEQUENCES ...]" >&2; exit 2; }
mkdir -p "$1"
folder=$(realpath "$1")
shift
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(qwen2.5-3b:1 qwen2.5-7b:1)
cd "$here/../.."
start=${START:-$here/start.sh} device=${DEVICE:-cuda}
runs=$(mktemp -d)

# run RANKS NAME [--set ...]: the quickstart job in fp32, deterministic
run() {
    local ranks=$1 name=$2
    shift 2
    RANKS=$ranks "$start" amalgam run jobs/quickstart.yaml --set output="$runs" --set name="$name" --set device="$device" \
        --set precision=float32 --set deterministic=true --set log_every_steps=1 --set 'export.formats=[]' "$@" > "$runs/$name.log" 2>&1
}
failed=0
expect() {  # WHAT WANTED GOT
    if [ "$2" = "$3" ]; then echo "ok      $1: $3"; else
        echo "FAILED  $1: expected $2, got $3"
        failed=1
    fi
}
ended() { "$@" && echo 0 || echo $?; }

expect "one rank ends with" 0 "$(ended run 1 one)"
for strategy in none optimizer full; do
    expect "two ranks, $strategy, end with" 0 \
        "$(ended run 2 "$strategy" --set sharding.strategy=$strategy --set score.ranks_per_candidate=2)"
done
expect "two ranks, candidates apart, end with" 0 "$(ended run 2 apart)"

# Written by two ranks, taken up by one.
expect "two ranks that are short of time end with" 75 \
    "$(ended run 2 moved --set sharding.strategy=full --set score.ranks_per_candidate=2 --set walltime="${WALLTIME:-00:00:20}")"
expect "one rank goes on and ends with" 0 "$(ended run 1 moved --set sharding.strategy=full)"

# Largest difference of what was measured, against one rank.
python3 - "$runs" one none optimizer full apart moved <<'PYTHON' | tee "$folder/two_gpus_differences.csv"
import sys
from pathlib import Path

import h5py
import numpy as np

runs, names = Path(sys.argv[1]), sys.argv[2:]
def measured(name):
    with h5py.File(runs / name / "scores.h5") as scores, h5py.File(runs / name / "evaluation.h5") as evaluation:
        return scores["kl"][()], evaluation["kl"][()], scores["selection/layers"][()].tolist()
reference = measured(names[0])
print("run,largest difference of scores' KL,of the evaluation's KL,layers")
for name in names:
    found = measured(name)
    print(name, *(float(np.nanmax(np.abs(a - b))) for a, b in zip(reference[:2], found[:2])),
          " ".join(map(str, found[2])), sep=",")
PYTHON

# A rank that stands still: the job ends, and says who.
(run 2 hangs --set sharding.strategy=full --set score.ranks_per_candidate=2 --set deadlines.step=00:00:10 && echo 0 || echo $?) > "$runs/status" &
until grep -q " step 2" "$runs/hangs.log" 2> /dev/null; do sleep 0.2; done
kill -STOP "$(pgrep -f "run jobs/quickstart.yaml --set output=$runs --set name=hangs" | tail -n 1)"
wait
expect "a run whose rank hangs ends with" 6 "$(cat "$runs/status")"
grep -h "rank 1\|deadline" "$runs/hangs.log" | head -n 5
pkill -KILL -f "name=hangs" || true

for case in "${cases[@]}"; do
    for setting in "1 none" "2 none,optimizer,full"; do
        read -r ranks ways <<< "$setting"
        [ "${case%:*}:$ranks" = qwen2.5-7b:1 ] && continue  # more than one GPU holds
        [ "${case%:*}" = qwen2.5-7b ] && ways=full
        RANKS=$ranks "$start" sharded_step_benchmark "${case#*:}" "${TIME:-4096}" bf16 0 2 3 "$device" "${case%:*}" "$ways" ||
            echo "${case}: $ranks ranks, $ways: did not run" >&2
    done
done | tee "$folder/two_gpus_speed.csv"
exit $failed
