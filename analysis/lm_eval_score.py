#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Feeds a run's answers back to lm-evaluation-harness, which computes its metrics from them.

    python analysis/lm_eval_score.py --tokenizer MODEL_FOLDER requests.h5 outputs/NAME/evaluation.h5

Prints one table for each model; --json writes what the harness returns.
"""

import argparse
import json
import sys
from pathlib import Path

from lm_eval.utils import make_table

from lm_eval_requests import Replayer, RequestError, ask_harness, read_answers, read_requests


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Score answers with lm-evaluation-harness.")
    parser.add_argument("requests", type=Path, help="what lm_eval_export.py wrote")
    parser.add_argument("evaluation", type=Path, help="evaluation.h5 of the run")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="as in the export")
    parser.add_argument("--models", default="teacher,student", metavar="A,B", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    return parser.parse_args(arguments)


def score(options):
    if options.json and options.json.exists() and options.json.suffix != ".json":
        raise RequestError(f"{options.json}: is there already and is no .json file (it would be lost); name another file")
    settings, fingerprint, keys = read_requests(options.requests)
    results = {}
    for name in options.models.split(","):
        answers = read_answers(options.evaluation, name, fingerprint, keys)
        model = Replayer(options.tokenizer, settings["max_length"], settings["add_bos"], answers)
        found = ask_harness(model, settings, log_samples=False)
        results[name] = found["results"]
        print(f"{name}\n{make_table(found)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
    return results


def main(arguments=None):
    try:
        score(parse_arguments(arguments))
    except (RequestError, OSError) as error:
        print(f"lm_eval_score.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
