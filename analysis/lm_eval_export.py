#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the requests of tasks of lm-evaluation-harness as token ids, for `evaluate.requests` of a job.

    python analysis/lm_eval_export.py --tokenizer MODEL_FOLDER --tasks arc_easy,hellaswag --output requests.h5

Runs on a login node, where the harness may download its data; the run itself needs neither network nor Python.
"""

import argparse
import json
import sys
from pathlib import Path

from lm_eval_requests import Recorder, RequestError, ask_harness, write_requests


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Export requests of lm-evaluation-harness.")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="the teacher's model folder")
    parser.add_argument("--tasks", required=True, metavar="A,B", help="names as `lm-eval ls tasks` shows them")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.h5", help="must not exist yet")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="default: the tasks' own")
    parser.add_argument("--limit", type=int, metavar="N", help="documents of each task (for tests only)")
    parser.add_argument("--max-length", type=int, default=4096, metavar="N",
                        help="tokens the model sees at once (default: %(default)s)")
    parser.add_argument("--include-path", type=Path, metavar="FOLDER", help="with YAML files of own tasks")
    parser.add_argument("--apply-chat-template", action="store_true", help="wrap questions as the tokenizer says")
    parser.add_argument("--add-bos", action="store_true", help="let the tokenizer add its special tokens")
    parser.add_argument("--metadata", type=json.loads, default=None, metavar="JSON", help="for tasks such as RULER")
    return parser.parse_args(arguments)


def export(options):
    if options.output.exists():
        raise RequestError(f"{options.output}: exists already (it may belong to results); remove it or name another")
    tokenizer = options.tokenizer / "tokenizer.json"
    if not tokenizer.is_file():
        raise RequestError(f"{tokenizer}: no such file (requests are turned into its tokens)")
    settings = {"tasks": options.tasks.split(","), "num_fewshot": options.num_fewshot, "limit": options.limit,
                "max_length": options.max_length, "add_bos": options.add_bos, "metadata": options.metadata,
                "apply_chat_template": options.apply_chat_template,
                "include_path": None if options.include_path is None else str(options.include_path.resolve())}
    model = Recorder(options.tokenizer, options.max_length, options.add_bos)
    ask_harness(model, settings, predict_only=True, log_samples=False, bootstrap_iters=0)
    if not model.pieces:
        raise RequestError(f"--tasks {options.tasks}: no requests (nothing to evaluate)")
    write_requests(options.output, model, settings, tokenizer.read_bytes())
    generating = sum(piece[0] == "generate" for piece in model.pieces.values())
    print(f"{options.output}: {len(model.pieces)} requests, {generating} of them to generate")


def main(arguments=None):
    try:
        export(parse_arguments(arguments))
    except (RequestError, OSError) as error:
        print(f"lm_eval_export.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
