# SPDX-License-Identifier: Apache-2.0
"""Says which Python packages are missing, before anything fails on them."""

import importlib.util
import os
import sys
from pathlib import Path

REQUIREMENTS = "analysis/requirements-lm-eval.txt"


def require_packages(*modules):
    """Ends the program with a message if one of the modules is not installed."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # dozens of progress bars would hide what is said; read when tqdm is imported
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{Path(sys.argv[0]).name}: error: Python packages are missing: {', '.join(missing)} (the questions are "
                 f"lm-evaluation-harness's); pip install -r {REQUIREMENTS}. Without a network: pip download -r "
                 f"{REQUIREMENTS} -d wheels on a machine that has one, copy wheels/, pip install --no-index "
                 f"--find-links wheels -r {REQUIREMENTS}")
