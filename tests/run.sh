#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests from a fresh clone: installs what is missing, builds, runs ctest (C++, MPI, restart) and the Python tests
# (inputs, analysis, parity with transformers).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../jobs/setup/environment.sh"
cd "$project"

install_packages
make_venv
once cmake pip_install 'cmake>=3.28'
install_torch_for_python
once analysis pip_install -r analysis/requirements.txt
once inputs pip_install -r inputs/requirements.txt
once parity pip_install -r tests/parity/requirements.txt
build -DAMALGAM_TESTS=ON

export AMALGAM_BINARY="$project/build/cpu/src/amalgam" PYTHONDONTWRITEBYTECODE=1
failed=""
for suite in inputs analysis parity; do
  say "Python tests: $suite"
  "$venv/bin/python" -m unittest discover -s "tests/$suite" || failed="$failed $suite"
done

say "C++ tests"
# Tests with several ranks count as several processors, so two at a time do not crowd the machine.
"$venv/bin/ctest" --test-dir build/cpu --output-on-failure --no-tests=error --parallel "$(nproc)" || failed="$failed ctest"

[ -z "$failed" ] || fail "tests failed:$failed"
