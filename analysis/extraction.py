#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SWDE, FDA and SQuAD completion of lm-evaluation-harness (recall-intensive: a value is to be found in a document) from files,
and their request file for `evaluate.requests` of a job.

    python analysis/extraction.py --tokenizer MODEL_FOLDER --swde FOLDER --fda FOLDER --squad-completion FOLDER --output extraction
    python analysis/extraction.py --tokenizer MODEL_FOLDER --squad-questions --output squad

A FOLDER holds validation.jsonl or .parquet as on the hub (hazyresearch/based-swde-v2, based-fda, based-squad), with columns
`text` and `value`. No package holds them. What can be made without them is something else and is named so: SQuAD v2.0 dev,
answerable, in question form, "contains first reference" (task squad_v2_questions; Based's has its questions reworded).
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

from python_packages import require_packages

require_packages("lm_eval", "datasets")

from datasets import Dataset

import data_packages
from lm_eval_export import add_shared_arguments, export_folder, run_program
from lm_eval_requests import RequestError
from task_folder import file_sha256, write_documents, write_group, write_manifest

GROUP = "extraction_local"
TASKS = {"swde": ("swde_local", "LocalSWDE"), "fda": ("fda_local", "LocalFDA"),
         "squad_completion": ("squad_completion_local", "LocalSQUADCompletion")}
QUESTIONS = "squad_v2_questions"


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Make questions of SWDE, FDA and SQuAD from files, and their request file.")
    add_shared_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="must not exist yet")
    for name in TASKS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FOLDER",
                            help="holds validation.jsonl or validation*.parquet; or such a file itself")
    parser.add_argument("--squad-questions", action="store_true", help=f"ask {QUESTIONS}, too (see above)")
    parser.add_argument("--squad", type=Path, metavar="FILE", help="for it: SQuAD v2.0 dev, JSON as published (default: installed)")
    parser.add_argument("--samples", type=int, metavar="N", help="the first N documents of each (default: all)")
    parser.add_argument("--max-length", type=int, default=4096, metavar="N",
                        help="tokens the model sees at once (default: %(default)s)")
    return parser.parse_args(arguments)


def find_file(option, path):
    if path.is_file():
        return path
    found = [file for pattern in ("validation.jsonl", "**/validation*.parquet") for file in sorted(path.glob(pattern))]
    if not found:
        raise RequestError(f"{option} {path}: holds neither validation.jsonl nor validation*.parquet")
    return found[0]


def read_pairs(option, path):
    """[{text, value}] of a file with such columns."""
    try:
        if path.suffix == ".parquet":
            rows = Dataset.from_parquet(str(path)).to_list()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        pairs = [{"text": str(row["text"]), "value": str(row["value"])} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{option} {path}: not rows with `text` and `value` ({error!r})") from error
    if not pairs or not all(pair["value"].strip() for pair in pairs):
        raise RequestError(f"{option} {path}: no rows, or rows with an empty `value` (every answer would contain it)")
    return pairs


def squad_questions(path):
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        return [{"text": f"Title: {article['title'].replace('_', ' ')}\n\n{paragraph['context']}\n\nQuestion: {asked['question']}\nAnswer:",
                 "value": asked["answers"][0]["text"]}
                for article in articles for paragraph in article["paragraphs"] for asked in paragraph["qas"]
                if not asked["is_impossible"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RequestError(f"--squad {path}: not SQuAD v2.0 in JSON ({error!r})") from error


def find_files(options):
    """{task: (file, its class, documents)}."""
    found = {}
    for name, (task, kind) in TASKS.items():
        option, path = f"--{name.replace('_', '-')}", getattr(options, name)
        if path is not None:
            file = find_file(option, path)
            found[task] = file, kind, read_pairs(option, file)
    if options.squad_questions:
        file, message = data_packages.find_data(options.squad, data_packages.SQUAD, "--squad", QUESTIONS)
        if message:
            raise RequestError(message)
        found[QUESTIONS] = file, "SquadQuestions", squad_questions(file)
    if not found:
        raise RequestError("nothing is asked for; name files with --swde, --fda, --squad-completion, or set --squad-questions")
    return found


def make(options):
    found = find_files(options)

    def write(folder):
        for task, (_, kind, documents) in found.items():
            write_documents(folder, task, documents[: options.samples])
            (folder / f"{task}.yaml").write_text(f"task: {task}\nclass: !function documents.{kind}\n", encoding="utf-8")
            print(f"{task}: {len(documents[: options.samples])} of {len(documents)} documents", flush=True)
        write_group(folder, GROUP, {task: {} for task in found}, modules={"documents.py": "extraction_tasks.py"})
        write_manifest(folder, [], program="extraction.py", samples=options.samples,
                       sources={task: {"file": file.name, "sha256": file_sha256(file)} for task, (file, _, _) in found.items()},
                       versions={name: version(name) for name in ("lm_eval", "datasets")})
    export_folder(options, GROUP, options.max_length, 0, write)


def main(arguments=None):
    return run_program("extraction.py", make, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
