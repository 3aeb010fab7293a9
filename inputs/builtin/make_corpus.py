# SPDX-License-Identifier: Apache-2.0
"""Makes the built-in corpus: English-looking text that can only be predicted
well by recalling facts stated earlier in the same document.

A document is exactly 512 tokens: <bos>, sentences, <eos>. Some sentences state
a fact (a person's surname, a place's code), later ones need it again, fillers
lie between. See README.md for the file format and the commands.
"""

import argparse
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import vocabulary as v

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # token_file.py

DOCUMENT_LENGTH = 512
BODY_LENGTH = DOCUMENT_LENGTH - 2
SHORTEST_CLOSER = 3
# More fillers than any document can hold; the surplus is dropped.
FILLER_COUNT = 100
# Exponent that makes early words of a class frequent and late ones rare.
SKEW = 1.6
TRAIN_SEED, VALIDATION_SEED = 7, 11


@dataclass(frozen=True)
class Style:
    """How many facts a document holds and how they are worded.

    `names` and `codes` are inclusive ranges; every fact is asked up to `asks`
    times while all fact sentences together stay within `fact_tokens`, and is
    stated within the first `stated_within` of the document.
    """

    names: tuple
    codes: tuple
    asks: int
    fact_tokens: int
    stated_within: float
    name_group: str
    code_group: str
    question_group: str


TEXT = Style((10, 20), (8, 16), 2, 430, 0.6, "name", "code", "question")
DENSE = Style(
    (4, 20), (4, 16), 6, 480, 0.6, "dense_name", "dense_code", "dense_code"
)


def _draw_distinct(rng, rows, columns, size):
    return np.argsort(rng.random((rows, size)), axis=1)[:, :columns]


def _choose_sentences(rng, count, style):
    """Sentences of `count` documents in reading order, as flat arrays:
    document, template, fact (index or 0) and whether it recalls the fact."""
    most_names, most_codes = style.names[1], style.codes[1]
    facts = most_names + most_codes
    is_name = np.arange(facts) < most_names
    present = np.concatenate(
        [
            np.arange(most) < rng.integers(low, most + 1, (count, 1))
            for low, most in (style.names, style.codes)
        ],
        axis=1,
    )

    def templates(names_by_fact, name_group, code_group):
        shape = names_by_fact.shape
        name = rng.choice(v.TEMPLATE_IDS[name_group], shape)
        code = rng.choice(v.TEMPLATE_IDS[code_group], shape)
        return np.where(names_by_fact, name, code)

    every_fact = np.broadcast_to(np.arange(facts), (count, facts))
    stated = templates(
        is_name[every_fact], style.name_group, style.code_group
    )
    stated_at = rng.random((count, facts)) * style.stated_within

    # Each round asks the facts in a new order; every ask comes after its fact.
    asked = np.concatenate(
        [
            _draw_distinct(rng, count, facts, facts)
            for _ in range(style.asks)
        ],
        axis=1,
    )
    asking = templates(is_name[asked], style.name_group, style.question_group)
    after = np.take_along_axis(stated_at, asked, axis=1)
    asked_at = after + (1 - after) * (1 - rng.random(asked.shape) ** 1.5)

    lengths = np.concatenate(
        [
            v.TEMPLATE_LENGTH[stated] * present,
            v.TEMPLATE_LENGTH[asking]
            * np.take_along_axis(present, asked, axis=1),
        ],
        axis=1,
    )
    kept = (lengths > 0) & (np.cumsum(lengths, axis=1) <= style.fact_tokens)
    total = (lengths * kept).sum(axis=1)

    filler = rng.choice(v.TEMPLATE_IDS["filler"], (count, FILLER_COUNT))
    filled = total[:, None] + np.cumsum(v.TEMPLATE_LENGTH[filler], axis=1)
    filler_kept = filled <= BODY_LENGTH - SHORTEST_CLOSER
    total += (v.TEMPLATE_LENGTH[filler] * filler_kept).sum(axis=1)
    closer = v.TEMPLATE_IDS["closer"][BODY_LENGTH - total - SHORTEST_CLOSER]

    template = np.concatenate([stated, asking, filler, closer[:, None]], 1)
    fact = np.concatenate(
        [every_fact, asked, np.zeros((count, FILLER_COUNT + 1), int)], axis=1
    )
    recalls = np.zeros(template.shape, bool)
    recalls[:, facts : facts + asked.shape[1]] = True
    kept = np.concatenate([kept, filler_kept, np.ones((count, 1), bool)], 1)
    place = np.concatenate(
        [stated_at, asked_at, rng.random((count, FILLER_COUNT + 1))], axis=1
    )
    order = np.argsort(np.where(kept, place, np.inf), axis=1)
    kept = np.take_along_axis(kept, order, axis=1)
    document = np.nonzero(kept)[0]
    flat = [
        np.take_along_axis(a, order, axis=1)[kept]
        for a in (template, fact, recalls)
    ]
    return document, *flat


def make_documents(rng, count, style=TEXT):
    """Tokens (count, 512) uint16 and the mask of recall answers, same shape."""
    document, template, fact, recalls = _choose_sentences(rng, count, style)
    length = v.TEMPLATE_LENGTH[template]
    sentence = np.repeat(np.arange(len(template)), length)
    start = np.cumsum(length) - length
    offset = np.arange(len(sentence)) - start[sentence]
    code = v.TEMPLATE_TABLE[template[sentence], offset]
    row = document[sentence]

    def class_of(name):
        i = v.CLASS_NAMES.index(name)
        return v.CLASS_START[i], v.CLASS_SIZE[i]

    keys, values = [], []
    for key_class, value_class, most in (
        ("first_name", "surname", style.names[1]),
        ("place", "code", style.codes[1]),
    ):
        first, size = class_of(key_class)
        keys.append(first + _draw_distinct(rng, count, most, size))
        first, size = class_of(value_class)
        values.append(first + rng.integers(0, size, (count, most)))
    key = np.concatenate(keys, axis=1)[row, fact[sentence]]
    value = np.concatenate(values, axis=1)[row, fact[sentence]]

    # Slots of a word class; nouns come from the topic of the document.
    index = np.clip(-1 - code, 0, len(v.CLASS_NAMES) - 1)
    draw = rng.random(len(code)) ** SKEW
    first, size = v.CLASS_START[index], v.CLASS_SIZE[index]
    topic_size = len(v.TOPICS[0].split())
    topic = rng.integers(0, len(v.TOPICS), count)[row]
    is_noun = index == v.CLASS_NAMES.index("noun")
    first = np.where(is_noun, first + topic * topic_size, first)
    size = np.where(is_noun, topic_size, size)
    word = first + (draw * size).astype(int)

    token = np.where(code >= 0, code, word)
    token = np.where(code == v.KEY, key, token)
    token = np.where(code == v.VALUE, value, token)

    tokens = np.full((count, DOCUMENT_LENGTH), v.EOS, np.uint16)
    tokens[:, 0] = v.BOS
    tokens[:, 1:-1] = token.reshape(count, BODY_LENGTH)
    answers = np.zeros(tokens.shape, bool)
    answers[:, 1:-1] = (recalls[sentence] & (code == v.VALUE)).reshape(
        count, BODY_LENGTH
    )
    return tokens, answers


def make_repeats(rng, count):
    """Documents in which one random sequence of distinct words (16 to 255 of
    them) repeats; same shapes as make_documents. They help recall to form but
    hold no facts, so that their mask is empty."""
    words = len(v.WORDS) - len(v.SPECIAL_TOKENS)
    period = rng.integers(16, BODY_LENGTH // 2 + 1, (count, 1))
    sequence = _draw_distinct(rng, count, BODY_LENGTH // 2, words)
    position = np.arange(BODY_LENGTH)[None]
    tokens = np.full((count, DOCUMENT_LENGTH), v.EOS, np.uint16)
    tokens[:, 0] = v.BOS
    tokens[:, 1:-1] = len(v.SPECIAL_TOKENS) + np.take_along_axis(
        sequence, position % period, axis=1
    )
    return tokens, np.zeros(tokens.shape, bool)


def make_mixture(rng, count, repeats, dense):
    """`count` documents, of which the shares `repeats` and `dense` are
    repeated sequences and bare facts; shuffled."""
    repeat_count = int(round(count * repeats))
    dense_count = int(round(count * dense))
    parts = []
    if repeat_count:
        parts.append(make_repeats(rng, repeat_count))
    if dense_count:
        parts.append(make_documents(rng, dense_count, DENSE))
    text_count = count - repeat_count - dense_count
    if text_count:
        parts.append(make_documents(rng, text_count, TEXT))
    order = rng.permutation(count)
    return tuple(np.concatenate(part)[order] for part in zip(*parts))


def write_tokens(path, tokenizer_json, tokens, answers=None):
    """Writes an Amalgam token file; documents are the rows of `tokens`. With
    the mask `answers`, which becomes /answer_positions, it is one to ask
    questions of, and gets the wording of recall questions, too."""
    import h5py

    from token_file import write_wording

    digest = hashlib.sha256(Path(tokenizer_json).read_bytes()).hexdigest()
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "amalgam tokens"
        file.attrs["format_version"] = np.array([1, 0], np.int32)
        file.attrs["tokenizer"] = "builtin"
        file.attrs["tokenizer_sha256"] = digest
        file.attrs["vocabulary_size"] = np.int64(len(v.WORDS))
        file["tokens"] = tokens.reshape(-1)
        file["document_offsets"] = np.arange(
            0, tokens.size + 1, DOCUMENT_LENGTH, dtype=np.int64
        )
        if answers is not None:
            file["answer_positions"] = np.flatnonzero(answers).astype(np.int64)
            write_wording(file, v.recall_wording())


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=here)
    parser.add_argument("--train-documents", type=int, default=3000)
    parser.add_argument("--validation-documents", type=int, default=250)
    parser.add_argument(
        "--repeats",
        type=float,
        default=0.1,
        help="share of repeated random sequences in train.h5",
    )
    arguments = parser.parse_args()

    folder = arguments.output
    v.write_tokenizer(folder / "teacher")
    tokenizer_json = folder / "teacher" / "tokenizer.json"
    # Training needs no answer positions, and the file stays smaller without.
    tokens, _ = make_mixture(
        np.random.default_rng(TRAIN_SEED),
        arguments.train_documents,
        arguments.repeats,
        dense=0.0,
    )
    write_tokens(folder / "train.h5", tokenizer_json, tokens)
    print(f"train.h5: {len(tokens)} documents, {tokens.size} tokens")

    tokens, answers = make_documents(
        np.random.default_rng(VALIDATION_SEED), arguments.validation_documents
    )
    write_tokens(folder / "validation.h5", tokenizer_json, tokens, answers)
    print(
        f"validation.h5: {len(tokens)} documents, {tokens.size} tokens, "
        f"{answers.sum()} recall answers"
    )


if __name__ == "__main__":
    main()
