#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The wording of recall questions as tokens of a tokenizer: the group /recall of a token file, from which the program
makes its questions (src/questions/recall_questions.h). tokenise.py writes it by itself; for files without it:

    python inputs/recall_wording.py --tokenizer MODEL_FOLDER validation.h5

A question is put together from pieces that are tokenised one by one, so the tokens must be those of the whole text. All
pieces therefore begin with a space, which tokenizers take for the beginning of a word, or with punctuation; what the
numbers have in common at their beginning (a space of its own where digits stand alone) belongs to the piece before them;
and it is checked on random questions, with whole numbers in as many tokens as this tokenizer makes of them.
"""

import argparse
import hashlib
import random
import re
import sys
from pathlib import Path

import h5py
from tokenizers import Tokenizer

from corpus_files import CorpusError
from token_file import FILETYPE, add_wording
from tokenizer_folder import load_tokenizer, parse_tokenizer

ANCHOR = " So it is"  # stands before what is tokenised: some tokenizers treat the beginning of a text in a way of its own
START = ""
NOISE = [
    " The road is long.",
    " The lake is still.",
    " Rain falls on the hill.",
    " Birds sing in the tree.",
    " The day goes by.",
]
FACT = (" The special number of the", " is", ".")  # before the key, between key and number, after the number
ALIAS = (" The special number of the", " is that of the", ".")  # likewise; another key is where a number would be
# Before and after the key. Had it the words of the fact ("The special number of the KEY is"), copying what followed them
# would do: SmolLM2-135M-Instruct then answers 15 of 15 in a text of 1024 tokens.
QUESTION = (" Question: What is the special number of the", "? Answer:")
PAIR = ("", ":", ";")
QUESTION_OF_PAIR = (" The number of the", " is")
ADJECTIVES = """ancient brave broken bright clever dusty empty famous frozen gentle golden heavy hidden hollow humble lonely
modern narrow noisy polite purple quiet rapid rusty silver smooth steep sturdy tender velvet wild wooden""".split()
NOUNS = """anchor basket bottle candle castle desert dragon eagle engine feather forest garden guitar hammer harbor island
jacket jungle kettle ladder lemon magnet mirror needle orange pencil rabbit saddle tunnel violin wallet zipper""".split()
KEYS = [f" {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
NUMBERS = [f" {number}" for number in random.Random(0).sample(range(1000000, 10000000), 2048)]
SENTENCE_END = re.compile(r"""([.!?。！？]["'”’)\]]*|\n)\s*$""")


class WordingError(Exception):
    """This tokenizer cannot have the wording; the text is meant for people."""


class Splitter:
    """Tokens of pieces of text as they are within a text."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.anchor = self.encode(ANCHOR)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def __call__(self, text: str) -> list[int]:
        tokens = self.encode(ANCHOR + text)
        if tokens[: len(self.anchor)] != self.anchor:
            raise WordingError(f'the tokenizer joins "{ANCHOR}" and "{text}" (pieces must stay apart)')
        return tokens[len(self.anchor) :]

    def pieces(self, texts) -> list[list[int]]:
        return [self(text) for text in texts]


def common_start(lists: list[list[int]]) -> list[int]:
    first, last = min(lists), max(lists)
    length = 0
    while length < min(len(first), len(last)) - 1 and first[length] == last[length]:
        length += 1
    return first[:length]


def make_wording(tokenizer: Tokenizer, end_of_document: int | None) -> dict[str, list]:
    """Names and tokens of the datasets below /recall (outputs/README.md); raises WordingError."""
    split = Splitter(tokenizer)
    numbers = split.pieces(NUMBERS)
    shared = common_start(numbers)
    values = [number[len(shared) :] for number in numbers]
    fact, alias, pair = split.pieces(FACT), split.pieces(ALIAS), split.pieces(PAIR)
    question, question_of_pair = split.pieces(QUESTION), split.pieces(QUESTION_OF_PAIR)
    for before_number in (fact[1], pair[1], question[1], question_of_pair[1]):
        before_number += shared
    vocabulary = tokenizer.get_vocab().values()
    wording = {
        "start": split(START) if START else [],
        "noise": split.pieces(NOISE),
        "fact": fact,
        "alias": alias,
        "pair": pair,
        "question": question,
        "question_of_pair": question_of_pair,
        "keys": split.pieces(KEYS),
        "values": values,
        "sentence_ends": sorted(token for token in vocabulary if SENTENCE_END.search(tokenizer.decode([token]))),
        "left_out_of_text": [] if end_of_document is None else [end_of_document],
    }
    for name, words in (("keys", KEYS), ("values", NUMBERS)):
        if len(set(map(tuple, wording[name]))) < len(words):
            raise WordingError(f"the tokenizer gives different {name} the same tokens (unknown words?)")
    expect_tokens_of_the_whole(split, wording)
    return wording


def expect_tokens_of_the_whole(split: Splitter, wording: dict[str, list]) -> None:
    """Compares random questions put together from tokens with the same put together from text."""
    draw = random.Random(1)
    for turn in range(200):
        texts, tokens = [ANCHOR + START], split.anchor + wording["start"]

        def add(text: str, piece: list[int]) -> None:
            nonlocal tokens
            texts.append(text)
            tokens += piece

        def add_noise() -> None:
            for _ in range(draw.randint(0, 2)):
                number = draw.randrange(len(NOISE))
                add(NOISE[number], wording["noise"][number])

        def add_parts(parts: tuple, name: str, key: int, told: str, told_tokens: list[int]) -> None:
            before, between, after = wording[name]
            add(parts[0] + KEYS[key], before + wording["keys"][key])
            add(parts[1] + told, between + told_tokens)
            add(parts[2], after)

        def add_fact(parts: tuple, name: str) -> tuple[int, int]:
            key, value = draw.randrange(len(KEYS)), draw.randrange(len(NUMBERS))
            add_parts(parts, name, key, NUMBERS[value], wording["values"][value])
            return key, value

        def add_alias(of: int) -> int:
            key = draw.randrange(len(KEYS))
            add_parts(ALIAS, "alias", key, KEYS[of], wording["keys"][of])
            return key

        add_noise()
        if turn % 2:
            key, value = add_fact(FACT, "fact")
            add_noise()
            for _ in range(draw.randint(0, 2)):
                key = add_alias(key)
                add_noise()
            asked, name = QUESTION, "question"
        else:
            for _ in range(3):
                key, value = add_fact(PAIR, "pair")
            asked, name = QUESTION_OF_PAIR, "question_of_pair"
        before, after = wording[name]
        add(asked[0] + KEYS[key], before + wording["keys"][key])
        add(asked[1] + NUMBERS[value], after + wording["values"][value])
        whole = split.encode("".join(texts))
        if whole != tokens:
            place = next(i for i, (a, b) in enumerate(zip(whole, tokens)) if a != b)
            around = split.tokenizer.decode(whole[max(0, place - 4) : place + 4])
            raise WordingError(f'the tokenizer joins pieces near "{around}" (a question must be what it would make of it)')


def add_to_file(path: Path, folder: Path) -> None:
    tokenizer_json = load_tokenizer(folder)
    tokenizer, _ = parse_tokenizer(folder, tokenizer_json)
    try:
        with h5py.File(path) as file:
            filetype, made_with = file.attrs.get("filetype"), file.attrs.get("tokenizer_sha256")
            end = int(file.attrs.get("eos_token_id", -1))
    except OSError as error:
        raise CorpusError(f"{path}: cannot be opened as HDF5 ({error})") from error
    if filetype != FILETYPE:
        raise CorpusError(f'{path}: is no token file (its filetype is "{filetype}")')
    digest = hashlib.sha256(tokenizer_json.encode("utf-8")).hexdigest()
    if made_with != digest:
        raise CorpusError(
            f"{path}: was made with the tokenizer of SHA-256 {str(made_with)[:12]}..., but {folder} has {digest[:12]}... "
            "(the same numbers would be other words) give the folder it was made with"
        )
    wording = make_wording(tokenizer, end if end >= 0 else None)
    add_wording(path, wording)
    print(
        f"{path}: has the wording of recall questions now; a number has {min(map(len, wording['values']))} to "
        f"{max(map(len, wording['values']))} tokens, a fact about {sum(map(len, wording['fact'])) + len(wording['keys'][0]) + len(wording['values'][0])}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Give token files the wording of recall questions.")
    parser.add_argument("file", nargs="+", type=Path, metavar="FILE.h5", help="token file of tokenise.py")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="that it was made with")
    arguments = parser.parse_args()
    try:
        for path in arguments.file:
            add_to_file(path, arguments.tokenizer)
    except (CorpusError, WordingError, OSError) as error:
        print(f"recall_wording.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
