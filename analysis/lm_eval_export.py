#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the requests of tasks of lm-evaluation-harness as token ids, for `evaluate.requests` of a job.

    python analysis/lm_eval_export.py --tokenizer MODEL_FOLDER --tasks arc_easy,hellaswag --output requests.h5

Runs on a login node, where the harness may download its data; the run itself needs neither network nor Python.
Tasks whose data lie in packages or files: ruler.py, commonsense.py, extraction.py.
"""

import argparse
import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from lm_eval_harness import DEFAULT_SEEDS, Harness, parse_seeds
from lm_eval_requests import Recorder, RequestError, write_requests
from task_folder import hashes


def add_shared_arguments(parser):
    """Options of every program that exports."""
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="the teacher's model folder")
    parser.add_argument("--apply-chat-template", action="store_true", help="wrap questions as the tokenizer says")
    parser.add_argument("--add-bos", action="store_true", help="let the tokenizer add its special tokens")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Export requests of lm-evaluation-harness.")
    add_shared_arguments(parser)
    parser.add_argument("--tasks", required=True, metavar="A,B", help="names as `lm-eval ls tasks` shows them")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.h5", help="must not exist yet")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="default: the tasks' own")
    parser.add_argument("--limit", type=int, metavar="N",
                        help="the first N documents of each task (for tests; of tasks with several lengths these are all of one)")
    parser.add_argument("--max-length", type=int, default=4096, metavar="N",
                        help="tokens the model sees at once (default: %(default)s)")
    parser.add_argument("--include-path", type=Path, nargs="+", default=[], metavar="FOLDER",
                        help="with YAML files of own tasks, or written by ruler.py and its like")
    parser.add_argument("--metadata", type=json.loads, default=None, metavar="JSON",
                        help='for tasks that make their questions, such as {"max_seq_lengths": [2048]}')
    parser.add_argument("--seed", type=parse_seeds, default=DEFAULT_SEEDS, metavar="N[,N,N,N]",
                        help="of Python, NumPy, torch and few-shot examples (default: 0,1234,1234,1234, the harness's own)")
    return parser.parse_args(arguments)


def tokenizer_bytes(folder):
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise RequestError(f"{path}: no such file (requests are turned into its tokens)")
    return path.read_bytes()


def export(options):
    """Writes the request file; returns what to tell of it."""
    if options.output.exists():
        raise RequestError(f"{options.output}: exists already (it may belong to results); remove it or name another")
    for folder in options.include_path:
        if not folder.is_dir():
            raise RequestError(f"--include-path {folder}: no such folder")
    tokenizer = tokenizer_bytes(options.tokenizer)
    # Relative, so that the file and its folders may be moved together.
    relative = [os.path.relpath(folder.resolve(), options.output.resolve().parent) for folder in options.include_path]
    settings = {"tasks": options.tasks.split(","), "num_fewshot": options.num_fewshot, "limit": options.limit,
                "max_length": options.max_length, "add_bos": options.add_bos, "metadata": options.metadata,
                "apply_chat_template": options.apply_chat_template, "seeds": list(options.seed), "include_paths": relative,
                "versions": {name: version(name) for name in ("lm_eval", "transformers", "datasets")}}
    model = Recorder(options.tokenizer, options.max_length, options.add_bos)
    Harness(settings, options.include_path, options.tokenizer).ask(model, predict_only=True, log_samples=False,
                                                                   bootstrap_iters=0)
    if not model.pieces:
        raise RequestError(f"--tasks {options.tasks}: no requests (nothing to evaluate)")
    data = {f"{path}/{name}": value for path, folder in zip(relative, options.include_path)
            for name, value in hashes(folder).items()}
    write_requests(options.output, model, settings, tokenizer, data)
    generating = sum(piece[0] == "generate" for piece in model.pieces.values())
    if model.cut:
        print(f"warning: {model.cut} requests were longer than --max-length {options.max_length} less the tokens to generate; "
              "their beginnings were cut off, which may be the question's instruction (raise --max-length)", file=sys.stderr)
    return f"{len(model.pieces)} requests, {generating} of them to generate, {options.output.stat().st_size / 2**20:.1f} MiB"


def export_folder(options, group, max_length, seed, write):
    """Lets `write(folder)` make a folder of questions (task_folder.py) and puts its requests.h5 there; the folder
    appears whole or not at all."""
    if options.output.exists():
        raise RequestError(f"{options.output}: exists already (it may belong to results); remove it or name another")
    tokenizer_bytes(options.tokenizer)
    partial = options.output.with_name(options.output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    told = export(argparse.Namespace(
        tokenizer=options.tokenizer, tasks=group, output=partial / "requests.h5", num_fewshot=None, limit=None,
        max_length=max_length, include_path=[partial], metadata=None, apply_chat_template=options.apply_chat_template,
        add_bos=options.add_bos, seed=[seed] * 4))
    partial.rename(options.output)
    print(f"{options.output / 'requests.h5'}: {told}\n{options.output}: keep it for lm_eval_score.py, do not publish it")


def run_program(program, main_function, parse, arguments):
    """Exit status of a command line program: messages for people instead of tracebacks."""
    options = parse(arguments)
    try:
        main_function(options)
    except (RequestError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    return 0


def main(arguments=None):
    return run_program("lm_eval_export.py", lambda options: print(f"{options.output}: {export(options)}"), parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
