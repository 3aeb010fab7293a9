#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a job on this machine, without a scheduler:
#
#   jobs/mpirun/run.sh RANKS JOB.yaml [--set key=value ...]
#
# Ranks come from MPI alone: no ssh, no host file, no ports, no launcher of a framework. One rank per GPU; without GPUs one
# rank per socket (or per few cores) is a good start, because a rank uses several threads. The same command again goes on
# where the run stopped, on any number of ranks.
#
# To stop it so that it can go on:  touch RUN_FOLDER/stop   or   kill -USR1 PID_OF_MPIRUN   (`amalgam run-folder JOB.yaml`)
#   stop, USR1  save and stop, exit code 75
#   save, USR2  save and go on
# mpirun passes USR1 and USR2 on to every rank, but not that of Open MPI 4.1.6 in Ubuntu 24.04: there, use the files.
# TERM and Ctrl-C also reach the ranks, but mpirun kills them a few seconds later, saved or not.
#
# Environment: AMALGAM is the executable (default: amalgam), MPIRUN the launcher with its own options (default: mpirun).
set -eu

if [ $# -lt 2 ]; then
    echo "usage: $0 RANKS JOB.yaml [--set key=value ...]" >&2
    exit 2
fi
ranks=$1
job=$2
shift 2

threads=$(($(nproc) / ranks))
if [ "$threads" -lt 1 ]; then
    threads=1
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}

# --bind-to none: with few ranks, Open MPI would bind each to one core and put all its threads there.
# shellcheck disable=SC2086  # MPIRUN may hold options
exec ${MPIRUN:-mpirun} -np "$ranks" --bind-to none "${AMALGAM:-amalgam}" run "$job" "$@"
