#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the questions of RULER (13 tasks of lm-evaluation-harness) at any lengths, without a network, and the request file
for `evaluate.requests` of a job.

    python analysis/ruler.py --tokenizer MODEL_FOLDER --lengths 1024,2048,4096 --samples 500 --output ruler
    mpirun -np N amalgam run job.yaml --set evaluate.requests=ruler/requests.h5
    python analysis/lm_eval_score.py --tokenizer MODEL_FOLDER ruler/requests.h5 outputs/NAME/evaluation.h5

Essays and questions that it needs lie in Python packages (found if they are installed) or in files of yours; they and
the folder that this writes must not be published. Tasks whose texts are not there are left out, with a message.
"""

import argparse
import sys
import time
from importlib.metadata import version
from pathlib import Path

from python_packages import require_packages

require_packages("lm_eval", "nltk", "wonderwords", "scipy")

import nltk

import data_packages
from lm_eval_export import add_shared_arguments, export_folder, run_program
from lm_eval_requests import RequestError, load_tokenizer
from ruler_documents import ESSAY_TASKS, QUESTION_TASKS, TASKS, Ruler, TooShort
from task_folder import DOCUMENTS, file_sha256, from_documents, write_documents, write_group, write_manifest

GROUP = "ruler_local"
ROOM = 128  # added to the longest length: generators count neither answer prefixes nor, for fwe, what is generated


def whole_numbers(text):
    return sorted({int(part) for part in text.split(",")})


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description="Make the questions of RULER and their request file.")
    add_shared_arguments(parser)
    parser.add_argument("--lengths", required=True, type=whole_numbers, metavar="N,N", help="tokens, such as 1024,2048,4096")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="must not exist yet")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="of each task and length (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of each task and length (default: %(default)s)")
    parser.add_argument("--tasks", default=",".join(TASKS), metavar="A,B", help="default: all 13, which are %(default)s")
    parser.add_argument("--essays", type=Path, metavar="FILE", help="text of haystacks: .txt, or .json/.jsonl with `text`")
    parser.add_argument("--squad", type=Path, metavar="FILE", help="SQuAD v2.0 dev, JSON as published")
    parser.add_argument("--hotpot", type=Path, metavar="FILE", help="HotpotQA dev distractor, JSON as published")
    parser.add_argument("--nltk-data", type=Path, metavar="FOLDER", help="holds tokenizers/punkt_tab, for essays")
    parser.add_argument("--max-length", type=int, metavar="N",
                        help=f"tokens the model sees at once (default: the longest length + {ROOM}, so that no prompt is cut)")
    return parser.parse_args(arguments)


def find_punkt(given):
    """NLTK's sentence splitter, which cuts essays where needles go: (folder or None for where NLTK looks, message)."""
    if given is None:
        try:
            nltk.data.find("tokenizers/punkt_tab")
            return None, None
        except LookupError:
            pass
    path, message = data_packages.find_data(given, data_packages.PUNKT, "--nltk-data", "NLTK's punkt_tab")
    if path is not None and not (path / "tokenizers" / "punkt_tab").is_dir():
        return None, f"{path}: holds no tokenizers/punkt_tab"
    return path, message


def find_sources(options, tasks):
    """({argument of Ruler: path}, {task: why it is left out})."""
    wanted = {"essays": (options.essays, data_packages.ESSAYS, ESSAY_TASKS),
              "squad": (options.squad, data_packages.SQUAD, ("ruler_qa_squad",)),
              "hotpot": (options.hotpot, data_packages.HOTPOTQA, ("ruler_qa_hotpot",))}
    sources, missing = {}, {}
    for name, (given, packaged, users) in wanted.items():
        if set(users) & set(tasks):
            path, message = data_packages.find_data(given, packaged, f"--{name}", name)
            if given is not None and message:
                raise RequestError(message)  # what was named must be there; what was not is left out
            if path is not None:
                sources[name] = path
            missing.update({task: message for task in users if message})
    if set(ESSAY_TASKS) & set(tasks):
        path, message = find_punkt(options.nltk_data)
        if path is not None:
            sources["nltk_data"] = path
        missing.update({task: message for task in ESSAY_TASKS if message})
    return sources, missing


def note(text):
    print(f"note: {text}", file=sys.stderr, flush=True)


def make_documents(ruler, tasks, options):
    """{task: documents of all lengths}; says what is left out."""
    found = {}
    for task in tasks:
        for length in options.lengths:
            start = time.monotonic()
            try:
                documents = ruler.documents(task, length, options.samples)
            except TooShort as error:
                note(f"{task} at {length} is left out: {error}")
                continue
            found.setdefault(task, []).extend(documents)
            tokens = sum(ruler.count(f"{document['input']} {document['gen_prefix']}") for document in documents) / len(documents)
            print(f"{task} {length}: {len(documents)} documents, {tokens:.0f} tokens, {time.monotonic() - start:.1f} s", flush=True)
            if len(documents) < options.samples:
                note(f"{task} at {length}: {options.samples - len(documents)} of {options.samples} questions do not fit")
            if tokens < length / 2:
                note(f"{task} at {length}: prompts hold {tokens:.0f} tokens only (haystacks grow in steps, essays may end)")
    return found


def write_folder(folder, documents, sources, options):
    entries = {}
    for task, found in documents.items():
        write_documents(folder, task, found)
        lengths = sorted({document["max_length"] for document in found})
        metrics = ", ".join(f'{{metric: "{length}", aggregation: mean, higher_is_better: true}}' for length in lengths)
        entries[task] = {**from_documents(task, "test"), "metric_list": f"[{metrics}]",
                         "process_results": f"!function scores.{'of_part' if task in QUESTION_TASKS else 'of_all'}"}
    everywhere = sorted({document["max_length"] for found in documents.values() for document in found})
    write_group(folder, GROUP, entries, everywhere, {**DOCUMENTS, "scores.py": "ruler_scores.py"})
    files = {name: {"file": path.name, "sha256": file_sha256(path)} for name, path in sources.items() if path.is_file()}
    write_manifest(folder, ["ruler"], program="ruler.py", seed=options.seed, samples=options.samples, lengths=options.lengths,
                   sources=files, tokenizer_sha256=file_sha256(options.tokenizer / "tokenizer.json"),
                   versions={name: version(name) for name in ("lm_eval", "nltk", "wonderwords", "numpy", "scipy", "transformers")},
                   documents={task: len(found) for task, found in documents.items()})


def make(options):
    tasks = options.tasks.split(",")
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise RequestError(f"--tasks: RULER has no {', '.join(unknown)}; there are {', '.join(TASKS)}")
    if options.samples < 1 or options.lengths[0] < 1:
        raise RequestError("--samples and --lengths must be at least 1")

    def write(folder):
        sources, missing = find_sources(options, tasks)
        for message in dict.fromkeys(missing.values()):
            note(f"{', '.join(task for task in tasks if missing.get(task) == message)} left out: {message}")
        ruler = Ruler(load_tokenizer(options.tokenizer), options.seed, **sources)
        documents = make_documents(ruler, [task for task in tasks if task not in missing], options)
        if not documents:
            raise RequestError("no task is left (see the notes above)")
        write_folder(folder, documents, sources, options)
    export_folder(options, GROUP, options.max_length or options.lengths[-1] + ROOM, options.seed, write)


def main(arguments=None):
    return run_program("ruler.py", make, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
