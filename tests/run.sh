#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests from a fresh clone: installs what is missing, builds, and runs ctest, which has the suites in Python too (inputs,
# analysis, parity with transformers).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../jobs/setup/environment.sh"
cd "$project"

install_packages
make_venv
once cmake pip_install 'cmake>=3.28'
install_torch_for_build

# Of use to the tests alone: it arrives while the processors are busy with the build.
install_python_for_tests() {
  install_torch_for_python
  for file in analysis/requirements.txt inputs/requirements.txt tests/parity/requirements.txt analysis/requirements-lm-eval.txt; do
    pip_requirements "$file"
  done
}
install_python_for_tests &
python_for_tests=$!
trap wait EXIT  # also if the build fails: nothing goes on installing behind it
build cpu -DAMALGAM_TESTS=ON -DAMALGAM_TEST_PYTHON="$venv/bin/python"
wait "$python_for_tests"

# Tests with several ranks count as several processors, but wait much of their time (starts, deadlines).
say "tests"
"$venv/bin/ctest" --test-dir build/cpu --output-on-failure --no-tests=error --parallel "$((2 * $(nproc)))"
