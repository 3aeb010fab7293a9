#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a packed program (tests/gpu/pack.sh) with the LibTorch and CUDA libraries of this machine's python3.
#
# usage: tests/gpu/start.sh PROGRAM ARGUMENTS...      PROGRAM: one that pack.sh packed
#        RANKS=2 tests/gpu/start.sh PROGRAM ...   under mpirun, one rank a GPU (default for `amalgam run`: 1)
set -euo pipefail

carry=$(cd "$(dirname "$0")/../.." && pwd)/.carry
program=$1
shift
torch=$(python3 -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
libraries=$torch/lib
for folder in "$torch"/../nvidia/*/lib; do libraries+=:$folder; done
export LD_LIBRARY_PATH=$libraries:$carry/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none

if ldd "$carry/$program" | grep "not found"; then
    echo "$program: the libraries above are missing on this machine (pack them, tests/gpu/pack.sh)" >&2
    exit 1
fi
if [ "$program" = amalgam ] && [ "${1:-}" = run ]; then RANKS=${RANKS:-1}; fi
if [ -n "${RANKS:-}" ]; then
    exec mpirun --bind-to none -np "$RANKS" "$carry/$program" "$@"
fi
exec "$carry/$program" "$@"
