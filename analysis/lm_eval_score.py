#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Feeds runs' answers back to lm-evaluation-harness, which computes its metrics from them.

    python analysis/lm_eval_score.py --tokenizer MODEL_FOLDER requests.h5 outputs/NAME/evaluation.h5 [outputs/OTHER/...]

Prints one table for each model, for RULER by task and length; --json writes what the harness returns, --csv those tables.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

from lm_eval_requests import Replayer, RequestError, read_answers, read_requests  # first: says what is not installed

from lm_eval.utils import make_table

from lm_eval_export import run_program
from lm_eval_harness import BOOTSTRAP_SAMPLES, Harness
from length_table import CSV_HEADER, csv_lines, rows_by_length, table_by_length
from task_folder import hashes


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Score answers with lm-evaluation-harness.")
    parser.add_argument("requests", type=Path, help="what lm_eval_export.py, ruler.py or their like wrote")
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="evaluation.h5", help="of any number of runs")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="as in the export")
    parser.add_argument("--models", default="teacher,student", metavar="A,B", help="default: %(default)s")
    parser.add_argument("--include-path", type=Path, nargs="+", metavar="FOLDER",
                        help="after the files: where the folders of the export's --include-path are now (default: as they lay to "
                             "requests.h5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write tables by task and length here, too")
    return parser.parse_args(arguments)


def task_folders(options, settings, data):
    """The folders of the tasks, after a check that they are those of the export."""
    recorded = settings["include_paths"]
    folders = options.include_path or [(options.requests.resolve().parent / path).resolve() for path in recorded]
    if len(folders) != len(recorded):
        raise RequestError(f"--include-path: {len(folders)} folders (the export had {len(recorded)}: {' '.join(recorded)})")
    for path, folder in zip(recorded, folders):
        if not folder.is_dir():
            raise RequestError(f"{folder}: no such folder (the tasks' questions were there); --include-path says where it is "
                               "now, or write it again with the same program and options")
        found = {f"{path}/{name}": value for name, value in hashes(folder).items()}
        expected = {name: value for name, value in data.items() if name.startswith(f"{path}/")}
        new = {name for name in set(found) - set(expected) if name.endswith((".yaml", ".py"))}  # results may lie there, too
        for name in sorted(set(expected) | new):
            if expected.get(name) != found.get(name):
                raise RequestError(f"{folder}: {name} is not what it was in the export (the answers belong to other "
                                   "questions); put the old file back, or export and evaluate again")
    return folders


def answers_of(options, fingerprint, keys):
    """{label: answers} of the models in all files; a teacher that several runs share appears once."""
    found = {}
    for path in options.evaluations:
        for name in options.models.split(","):
            answers = read_answers(path, name, fingerprint, keys)
            label = f"{path.resolve().parent.name}/{name}" if len(options.evaluations) > 1 else name
            same = next((other for other in found if found[other] == answers), None)
            if label in found and same is None:
                label = str(path.resolve().parent / name)
            if same is None:
                found[label] = answers
            else:
                print(f"{label}: the same answers as {same}")
    return found


def score_one(harness, model):
    """(what the harness returns, rows by task and length)."""
    found = harness.ask(model, log_samples=True, bootstrap_iters=BOOTSTRAP_SAMPLES)
    rows = rows_by_length(found["samples"], lambda text: len(model.tok_encode(text)))
    return found, rows


def score(options):
    for path, suffix in ((options.json, ".json"), (options.csv, ".csv")):
        if path and path.exists() and path.suffix != suffix:
            raise RequestError(f"{path}: is there already and is no {suffix} file (it would be lost); name another file")
    settings, data, fingerprint, keys = read_requests(options.requests)
    here, there = version("lm_eval"), settings["versions"]["lm_eval"]
    if here != there:
        print(f"warning: exported with lm-eval {there}, scored with {here}", file=sys.stderr)
    harness = Harness(settings, task_folders(options, settings, data), options.tokenizer)
    results, lines, known_tokens = {}, [], {}
    for label, answers in answers_of(options, fingerprint, keys).items():
        model = Replayer(options.tokenizer, settings["max_length"], settings["add_bos"], answers, known_tokens)
        found, rows = score_one(harness, model)
        results[label] = found["results"]
        print(label)
        if rows:
            print(table_by_length(rows))
        by_length = {row.task for row in rows}
        if not by_length.issuperset(found["samples"]):
            others = {task: metrics for task, metrics in found["results"].items() if task not in by_length}
            print(make_table({**found, "results": others}))
        lines += csv_lines(label, rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=str) + "\n", encoding="utf-8")
    if options.csv:
        options.csv.write_text("\n".join([CSV_HEADER, *lines]) + "\n", encoding="utf-8")
    return results


def main(arguments=None):
    return run_program("lm_eval_score.py", score, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
