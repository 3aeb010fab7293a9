#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Does KL-guided selection win in a job? The same job with four selections: KL-guided, uniform in the phases 0 and 1,
# all-linear. Alignment and scores are made once, by the first; the others take them over. Started again it goes on where
# it stopped.
#
# usage: compare_layouts.sh AMALGAM JOB.yaml FOLDER [RANKS [--set key=value...]]      environment: see jobs/mpirun/run.sh
# Leaves run folders in FOLDER; `python analysis/table.py FOLDER/*/` compares them.
set -euo pipefail
[ $# -ge 3 ] || { sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2; }
export AMALGAM=$1
job=$2 folder=$3 ranks=${4:-1} run=$(dirname "$0")/../mpirun/run.sh
shift $(($# < 4 ? $# : 4))
mkdir -p "$folder"

convert() {  # convert NAME [--set key=value...]
  local name=$1 status=0
  shift
  echo "$name: log in $folder/$name.out"
  "$run" "$ranks" "$job" --set name="$name" --set output="$folder" "$@" >>"$folder/$name.out" 2>&1 || status=$?
  [ $status = 0 ] || { echo "$name ended with $status (75: stopped on request); the same command goes on" >&2; exit $status; }
}

convert kl-guided "$@" --set select.rule=kl_guided
for phase in 0 1; do
  convert uniform-phase-$phase "$@" --set reuse="$folder/kl-guided" --set select.rule=uniform --set select.phase=$phase
done
convert all-linear "$@" --set reuse="$folder/kl-guided" --set select.rule=all_linear
