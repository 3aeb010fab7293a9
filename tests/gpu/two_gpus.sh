#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two ranks, each with a GPU of its own: is what they compute together what one computes, what happens when one of them
# hangs or dies, and how fast are they? Writes the figures into FOLDER.
#
# usage: tests/gpu/two_gpus.sh correctness|speed FOLDER [SHAPE:SEQUENCES:WAYS:ACTIVATIONS:RANKS ...]
#        speed: each case with sequences of 4096 a rank (default: below)
#        tests/gpu/two_gpus.sh context FOLDER [TIMES [WORKS]]: one sequence that both share, against one GPU
# Environment: DEVICE=cpu, TIME (tokens of a sequence) and START (in place of start.sh) try the script without GPUs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { echo "usage: tests/gpu/two_gpus.sh correctness|speed FOLDER [SHAPE:...]" >&2; exit 2; }
part=$1
mkdir -p "$2"
folder=$(realpath "$2")
shift 2
cases=("$@")
[ ${#cases[@]} -gt 0 ] || [ "$part" = context ] || cases=(qwen2.5-3b:1:none:keep:1 qwen2.5-3b:1:none,optimizer,full:keep:2 qwen2.5-7b:1:full:keep:2)
cd "$here/../.."
start=${START:-$here/start.sh} device=${DEVICE:-cuda}

if [ "$part" = speed ]; then
    for case in "${cases[@]}"; do
        IFS=: read -r shape sequences ways activations ranks <<< "$case"
        RANKS=$ranks "$start" sharded_step_benchmark "$sequences" "${TIME:-4096}" bf16 0 2 3 "$device" "$shape" "$ways" \
            "$activations" 15 2>> "$folder/two_gpus_profile.txt" || echo "$case: did not run" >&2
    done | tee "$folder/two_gpus_speed.csv"
    exit
fi

if [ "$part" = context ]; then
    times=${cases[0]:-65536,131072} works=${cases[1]:-linear,finetune}
    for ranks in 2 1; do
        RANKS=$ranks "$start" context_benchmark "$times" 1 "${ROUNDS:-1}" bf16 0 "${SHAPE:-qwen2.5-1.5b}" "$device" \
            "$([ "$ranks" = 1 ] || echo check,)$works" "${SOFTMAX:-7}" recompute || echo "context, $ranks ranks: did not run" >&2
    done | tee "$folder/two_gpus_context.csv"
    exit
fi

runs=$(mktemp -d)

# run RANKS NAME [--set ...]: a short quickstart job in fp32, deterministic
run() {
    local ranks=$1 name=$2
    shift 2
    RANKS=$ranks "$start" amalgam run jobs/quickstart.yaml --set output="$runs" --set name="$name" --set device="$device" \
        --set precision=float32 --set deterministic=true --set log_every_steps=1 --set 'export.formats=[]' \
        --set align.tokens=20480 --set score.tokens=4096 --set distill.tokens=20480 --set checkpoint.every_steps=4 \
        --set evaluate.sequences=8 --set align.optimizer.warmup_steps=2 --set distill.optimizer.warmup_steps=2 \
        --set score.measurements=1 --set score.validation_sequences=8 "$@" > "$runs/$name.log" 2>&1
}
# in_background NAME ...: as run; its exit status will be in $runs/NAME.status
in_background() { (run 2 "$@" && echo 0 || echo $?) > "$runs/$1.status" & }
until_logged() { until grep -q "$2" "$runs/$1.log" 2> /dev/null || [ -s "$runs/$1.status" ]; do sleep 0.2; done; }
one_rank_of() { pgrep -f "^[^ ]*amalgam run .*--set name=$1 " | tail -n 1; }
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
expect "two ranks that share sequences end with" 0 \
    "$(ended run 2 shared --set sharding.context=2 --set score.ranks_per_candidate=2)"
expect "two ranks that share sequences and weights end with" 0 \
    "$(ended run 2 shared_full --set sharding.context=2 --set sharding.strategy=full --set sharding.activations=recompute \
        --set score.ranks_per_candidate=2)"
# Messages between ranks, beside one rank with whole sequences.
expect "the tests of ranks that share sequences end with" 0 \
    "$(AMALGAM_TEST_DEVICE=$device RANKS=2 ended "$start" context_test --gtest_brief=1 2> "$runs/context_test.log" | tail -n 1)"

# Written by two ranks, taken up by one.
in_background moved --set sharding.strategy=full --set score.ranks_per_candidate=2
until_logged moved "distill  step 5"
touch "$runs/moved/stop"
wait
expect "two ranks that are told to stop end with" 75 "$(cat "$runs/moved.status")"
expect "one rank goes on and ends with" 0 "$(ended run 1 moved --set sharding.strategy=full)"
grep -h "goes on from" "$runs/moved.log" || { echo "FAILED  one rank did not go on from a checkpoint"; failed=1; }

# Largest difference of what was measured, against one rank.
python3 - "$runs" one none optimizer full apart moved shared shared_full <<'PYTHON' | tee "$folder/two_gpus_differences.csv"
import sys
from pathlib import Path

import h5py
import numpy as np

runs, names = Path(sys.argv[1]), sys.argv[2:]
def measured(name):
    scores, selection, evaluation = (h5py.File(runs / name / f"{file}.h5") for file in ("scores", "selection", "evaluation"))
    return scores["kl"][()], evaluation["kl"][()], selection["layers"][()].tolist()
reference = measured(names[0])
print("run,largest difference of scores' KL,of the evaluation's KL,layers")
for name in names:
    found = measured(name)
    print(name, *(float(np.nanmax(np.abs(a - b))) for a, b in zip(reference[:2], found[:2])),
          " ".join(map(str, found[2])), sep=",")
PYTHON

# A rank that stands still: the job ends, and says who.
in_background hangs --set sharding.strategy=full --set score.ranks_per_candidate=2 --set deadlines.step=00:00:10
until_logged hangs "align  step 2"
kill -STOP "$(one_rank_of hangs)"
since=$SECONDS
wait
expect "a run whose rank hangs ends with" 6 "$(cat "$runs/hangs.status")"
echo "        $((SECONDS - since)) s after it stood still (deadline 10 s):"
grep -h "no progress\|not finished\|deadline\|does not\|silent\|waits" "$runs/hangs.log" | tail -n 6
pkill -KILL -f "name=hangs" || true

# A rank that is killed.
in_background dies --set sharding.strategy=full --set score.ranks_per_candidate=2 --set deadlines.step=00:00:10
until_logged dies "align  step 2"
kill -KILL "$(one_rank_of dies)"
since=$SECONDS
wait
[ "$(cat "$runs/dies.status")" != 0 ] || { echo "FAILED  a run whose rank was killed ends with 0"; failed=1; }
echo "        a run whose rank was killed: exit status $(cat "$runs/dies.status") after $((SECONDS - since)) s:"
grep -h "signal\|killed\|Killed" "$runs/dies.log" | tail -n 3
pkill -KILL -f "name=dies" || true
expect "what was killed goes on and ends with" 0 "$(ended run 2 dies --set sharding.strategy=full --set score.ranks_per_candidate=2)"
mkdir -p "$folder/logs" && cp "$runs"/*.log "$folder/logs/"
exit $failed
