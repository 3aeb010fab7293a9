#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recall questions as token files for `amalgam generate`: a 7-digit number is hidden in a context, the end asks for it.

    python recall_questions.py make --tokenizer MODEL_FOLDER --text TEXT.jsonl.xz --length 1024 recall-1024.h5
    amalgam generate --model CHECKPOINT --tokens recall-1024.h5 --sequence-length 1024 --count 10 --out answers.h5
    python recall_questions.py score recall-1024.h5 answers.h5

Kinds: "text", one number in sentences of the text; "noise", one number in a repeated paragraph; "four", four numbers
under four keys in the text, one is asked for. Every question has exactly LENGTH tokens; the place of a number is
uniform over the sentences. An answer is right if its seven digits stand in a row among the generated tokens. The
answers are kept in the token file (/answers, /kind). `make` needs inputs/requirements.txt and a tokenizer that gives
every digit its own token, `score` only h5py.
"""

import argparse
import hashlib
import json
import lzma
import random
import re
import sys
from pathlib import Path

import h5py
import numpy as np

KINDS = ("text", "noise", "four")
KEYS = """anchor basket candle dragon engine forest garden hammer island jacket kettle ladder magnet needle orange
pencil rabbit saddle tunnel violin wallet yellow zipper bottle castle desert eagle feather guitar harbor iron jungle
king lemon mirror night ocean piano queen river silver table uncle valley window""".split()
START = (
    "Some special magic numbers are hidden within the following text. Memorize them; there is a question at the end.\n"
)
NEEDLE = "One of the special magic numbers for {key} is: {number}."
QUESTION = "\nWhat is the special magic number for {key} mentioned in the text? The special magic number for {key} is:"
NOISE = ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."]


def sentences_of(path: Path, limit: int = 200000) -> list[str]:
    """Sentences of the documents in a JSON Lines file, up to some number."""
    found = []
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            found += [s for s in re.split(r"(?<=[.!?])\s+|\n+", json.loads(line)["text"]) if s.strip()]
            if len(found) > limit:
                break
    return found


def question(kind: str, length: int, sentences: list[str], encode, draw: random.Random) -> tuple[list[int], list[int]]:
    """Tokens of a question and of the seven digits of its answer."""
    keys = draw.sample(KEYS, 4 if kind == "four" else 1)
    numbers = [str(draw.randint(1000000, 9999999)) for _ in keys]
    start, end = encode(START), encode(QUESTION.format(key=keys[0]))
    needles = [encode(" " + NEEDLE.format(key=k, number=n)) for k, n in zip(keys, numbers)]
    room = length - len(start) - len(end) - sum(map(len, needles))
    context, at = [], 0 if kind == "noise" else draw.randrange(len(sentences))
    source = NOISE if kind == "noise" else sentences
    while sum(map(len, context)) < room:
        context.append(encode(" " + source[at % len(source)].strip()))
        at += 1
    context[-1] = context[-1][: len(context[-1]) + room - sum(map(len, context))]  # cut: the length is exact
    for needle in needles:
        context.insert(draw.randint(1, len(context)), needle)
    tokens = start + [token for sentence in context for token in sentence] + end
    assert len(tokens) == length
    return tokens, [encode(digit)[0] for digit in numbers[0]]


def make(arguments: argparse.Namespace) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "inputs"))
    from token_file import TokenFileWriter, token_dtype
    from tokenizers import Tokenizer

    tokenizer_json = (arguments.tokenizer / "tokenizer.json").read_bytes()
    tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    sentences = sentences_of(arguments.text)

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    answers, kinds = [], []
    with TokenFileWriter(arguments.file, token_dtype(vocabulary)) as writer:
        for kind in KINDS:
            draw = random.Random(f"{arguments.seed} {kind} {arguments.length}")
            for _ in range(arguments.count):
                tokens, digits = question(kind, arguments.length, sentences, encode, draw)
                writer.append(np.array(tokens), np.array([arguments.length]))
                answers.append(digits)
                kinds.append(KINDS.index(kind))
        writer.close(
            {
                "tokenizer": arguments.tokenizer.resolve().name,
                "tokenizer_sha256": hashlib.sha256(tokenizer_json).hexdigest(),
                "vocabulary_size": np.int64(vocabulary),
                "eos_token_id": np.int64(-1),
                "source": f"recall questions from {arguments.text.name}, seed {arguments.seed}",
            }
        )
    with h5py.File(arguments.file, "a") as file:
        file["answers"], file["kind"] = np.array(answers, np.int32), np.array(kinds, np.int32)


def accuracies(questions: Path, generated: Path) -> dict[str, float]:
    """The fraction of right answers of each kind."""
    with h5py.File(questions) as file:
        answers, kinds = file["answers"][()], file["kind"][()]
    with h5py.File(generated) as file:
        produced = file["generated"][()]
    right = np.zeros(len(produced))
    for i, (row, answer) in enumerate(zip(produced, answers)):
        right[i] = any(np.array_equal(row[p : p + len(answer)], answer) for p in range(len(row) - len(answer) + 1))
    return {kind: float(right[kinds[: len(right)] == k].mean()) for k, kind in enumerate(KINDS)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall questions for amalgam generate, and their scores.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write a token file of questions")
    making.add_argument("file", type=Path, metavar="FILE.h5")
    making.add_argument("--tokenizer", type=Path, required=True, metavar="FOLDER")
    making.add_argument("--text", type=Path, required=True, metavar="FILE.jsonl.xz", help="the haystack")
    making.add_argument("--length", type=int, required=True, help="tokens of a question")
    making.add_argument("--count", type=int, default=100, help="questions of each kind (default: %(default)s)")
    making.add_argument("--seed", type=int, default=0)
    scoring = commands.add_parser("score", help="print the fraction of right answers of each kind")
    scoring.add_argument("questions", type=Path)
    scoring.add_argument("generated", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments)
    else:
        for kind, value in accuracies(arguments.questions, arguments.generated).items():
            print(f"{kind} {value:.3f}")


if __name__ == "__main__":
    main()
