#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All tests from a fresh clone: installs what is missing, builds, runs the Python tests (inputs, analysis, parity with
# transformers) and ctest (C++, MPI, restart). The last lines are the verdict; a suite in which nothing ran has failed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../jobs/setup/environment.sh"
cd "$project"

install_packages
make_venv
once cmake pip_install 'cmake>=3.28'
install_torch_for_python
for file in analysis/requirements.txt inputs/requirements.txt tests/parity/requirements.txt; do
  pip_requirements "$file"
done
build cpu -DAMALGAM_TESTS=ON

export AMALGAM_BINARY="$project/build/cpu/src/amalgam" PYTHONDONTWRITEBYTECODE=1
summary="" failed=""

# run_suite NAME PATTERN COMMAND...: the last line of the output that matches the pattern goes into the summary. Without
# such a line nothing ran: Python before 3.12 calls that a success.
run_suite() {
  local name=$1 pattern=$2 log="$project/build/cpu/tests-$1.log" verdict=passed line
  shift 2
  say "tests: $name"
  "$@" 2>&1 | tee "$log" || verdict=FAILED
  line=$(grep -E "$pattern" "$log" | tail -n 1) || verdict=FAILED
  [ "$verdict" = passed ] || failed="$failed $name"
  summary+=$(printf '%-9s %-7s %s' "$name" "$verdict" "${line:-nothing ran}")$'\n'
}

for suite in inputs analysis parity; do
  run_suite "$suite" '^Ran [1-9][0-9]* test' "$venv/bin/python" -m unittest discover -s "tests/$suite"
done
# Tests with several ranks count as several processors, so two at a time do not crowd the machine.
run_suite ctest 'tests? passed' "$venv/bin/ctest" --test-dir build/cpu --output-on-failure --no-tests=error --parallel "$(nproc)"

say "summary"
printf '%s' "$summary"
[ -z "$failed" ] || fail "tests failed:$failed"
