#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a converted model: installs what is missing, builds, and runs the main job on the built-in teacher
# with two ranks on CPUs. Leaves outputs/quickstart/: scores.h5, selection.h5, evaluation.h5, student/, report.html.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup/environment.sh"
cd "$project"

install_packages
make_venv
once cmake pip_install 'cmake>=3.28'
install_torch_for_build
pip_requirements analysis/requirements.txt
build cpu -DAMALGAM_TESTS=OFF

say "running: mpirun -np 2 amalgam run jobs/quickstart.yaml"
start_ranks 2 build/cpu/src/amalgam run jobs/quickstart.yaml
"$venv/bin/python" analysis/report.py outputs/quickstart --output outputs/quickstart/report.html

say "layers by importance, and the chosen ones"
build/cpu/src/amalgam inspect outputs/quickstart/scores.h5 | sed -n '/^layers by importance/,$p'
build/cpu/src/amalgam inspect outputs/quickstart/selection.h5 | sed -n '/^selection/,$p'
say "results"
ls -d outputs/quickstart/scores.h5 outputs/quickstart/selection.h5 outputs/quickstart/evaluation.h5 outputs/quickstart/student outputs/quickstart/report.html
