#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokenises a corpus with the tokenizer of a model into a token file that amalgam reads.

    python inputs/tokenise.py --tokenizer MODEL_FOLDER --output train.h5 part-1.jsonl.zst part-2.jsonl.zst

Documents keep the order of the input whatever the number of processes. See inputs/README.md.
"""

import argparse
import hashlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are our parallelism, read when tokenizers loads

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from corpus_files import TEXT_DOCUMENTS, Batch, CorpusError, check_paths, decode_batch, read_batches
from recall_wording import WordingError, make_wording
from token_file import TokenFileWriter, token_dtype
from tokenizer_folder import end_token, load_tokenizer, parse_tokenizer

BATCHES_IN_FLIGHT = 2  # per process; bounds the memory and keeps every process busy


@dataclass(frozen=True)
class Settings:
    """What a process needs to tokenise a batch."""

    tokenizer_json: str
    text_field: str
    eos_id: int | None  # appended to every document if given
    dtype: np.dtype


class BatchTokeniser:
    """Turns batches into tokens; one in each process."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.tokenizer = Tokenizer.from_str(settings.tokenizer_json)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of all documents and the number of tokens of each."""
        texts = decode_batch(batch, self.settings.text_field)
        end = [] if self.settings.eos_id is None else [self.settings.eos_id]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        documents = [np.array(encoding.ids + end, dtype=self.settings.dtype) for encoding in encodings]
        return np.concatenate(documents), np.array([len(document) for document in documents], dtype=np.int64)


def start_process(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the work
    global tokenise_in_process  # the executor offers no other place for what a process keeps
    tokenise_in_process = BatchTokeniser(settings)


def run_in_process(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return tokenise_in_process(batch)


def tokenise_batches(
    batches: Iterator[Batch], settings: Settings, processes: int
) -> Iterator[tuple[Batch, np.ndarray, np.ndarray]]:
    """Each batch with its tokens, in the order of the batches."""
    if processes == 1:
        tokeniser = BatchTokeniser(settings)
        for batch in batches:
            yield batch, *tokeniser(batch)
        return

    context = get_context("spawn")  # the children then share no HDF5 or file state with us
    with ProcessPoolExecutor(processes, context, start_process, (settings,)) as executor:
        waiting = deque()
        reader_fault = None  # told after the faults in batches read before it, whatever the number of processes
        try:
            while True:
                try:
                    batch = next(batches, None)
                except CorpusError as error:
                    reader_fault, batch = error, None
                if batch is not None:
                    waiting.append((batch, executor.submit(run_in_process, batch)))
                while waiting and (batch is None or len(waiting) >= processes * BATCHES_IN_FLIGHT):
                    done, result = waiting.popleft()
                    yield done, *result.result()
                if batch is None:
                    break
        finally:
            # Waiting for the batches in work: a pool that still ends while Python exits prints a traceback now and then.
            executor.shutdown(cancel_futures=True)
        if reader_fault is not None:
            raise reader_fault


def tokenise(arguments: argparse.Namespace) -> None:
    check_paths(arguments.input)
    if arguments.output.exists():
        raise CorpusError(
            f"{arguments.output}: exists already (token files are written once); remove it or name another"
        )
    if not arguments.output.parent.is_dir():
        raise CorpusError(f"{arguments.output.parent}: no such folder (the token file goes there); make it first")
    folder = arguments.tokenizer
    tokenizer_json = load_tokenizer(folder)
    tokenizer, vocabulary_size = parse_tokenizer(folder, tokenizer_json)
    eos_id = end_token(folder, tokenizer, vocabulary_size, arguments.eos_token) if arguments.eos else None
    try:
        wording = make_wording(tokenizer, eos_id)
    except WordingError as error:
        print(f"tokenise.py: no recall questions can be asked with this file: {error}", file=sys.stderr)
        wording = None
    settings = Settings(tokenizer_json, arguments.text_field, eos_id, token_dtype(vocabulary_size))

    start = time.monotonic()
    stored_bytes = sum(path.stat().st_size for path in arguments.input)
    batches = read_batches(arguments.input, arguments.text_documents, arguments.limit_documents)
    text_bytes = 0
    with (
        TokenFileWriter(arguments.output, settings.dtype) as writer,
        tqdm(total=stored_bytes, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for batch, tokens, lengths in tokenise_batches(batches, settings, arguments.processes):
            if arguments.limit_tokens is not None:
                tokens, lengths = cut(tokens, lengths, arguments.limit_tokens - writer.tokens)
            writer.append(tokens, lengths)
            text_bytes += batch.size
            bar.update(batch.position - bar.n)
            bar.set_postfix_str(f"{writer.tokens / 1e6:.1f} M tokens", refresh=False)
            if writer.tokens == arguments.limit_tokens:
                break
        if writer.tokens == 0:
            raise CorpusError(f"{arguments.input[0]}: no tokens in the input (an empty token file is of no use)")
        writer.close(
            {
                "tokenizer": folder.resolve().name,
                "tokenizer_sha256": hashlib.sha256(tokenizer_json.encode("utf-8")).hexdigest(),
                "vocabulary_size": np.int64(vocabulary_size),
                "eos_token_id": np.int64(-1 if eos_id is None else eos_id),
                "source": ", ".join(path.name for path in arguments.input),
            },
            wording,
        )
    seconds = time.monotonic() - start
    print(
        f"{arguments.output}: {writer.tokens} tokens ({settings.dtype.name}) in {writer.documents} documents; "
        f"{seconds:.1f} s, {writer.tokens / seconds:.0f} tokens/s, {text_bytes / seconds / 1e6:.1f} MB/s of input"
    )


def cut(tokens: np.ndarray, lengths: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The first documents, the last one shortened, that make at most limit tokens."""
    if len(tokens) <= limit:
        return tokens, lengths
    ends = np.cumsum(lengths)
    documents = int(np.searchsorted(ends, limit)) + 1
    lengths = lengths[:documents].copy()
    lengths[-1] -= ends[documents - 1] - limit
    return tokens[:limit], lengths


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tokenise a corpus into an amalgam token file (HDF5).")
    parser.add_argument("input", nargs="+", type=Path, help=".jsonl, .ndjson or .txt, each also with .gz, .xz, .zst")
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="FOLDER", help="Hugging Face model folder")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.h5", help="must not exist yet")
    parser.add_argument(
        "--processes",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="default: the cores this process may use, here %(default)s",
    )
    parser.add_argument("--text-field", default="text", metavar="NAME", help='of JSON Lines (default: "%(default)s")')
    parser.add_argument(
        "--text-documents",
        choices=TEXT_DOCUMENTS,
        default="file",
        help="what is one document in plain text (default: %(default)s)",
    )
    parser.add_argument(
        "--eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end every document with the end-of-sequence token (default: yes)",
    )
    parser.add_argument("--eos-token", metavar="TOKEN", help="end documents with this one, not the tokenizer's own")
    parser.add_argument("--limit-tokens", type=positive, metavar="N", help="stop after exactly N tokens")
    parser.add_argument("--limit-documents", type=positive, metavar="N", help="stop after N documents")
    return parser.parse_args()


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's stop also removes partial files
    try:
        tokenise(parse_arguments())
    except (CorpusError, OSError) as error:
        print(f"tokenise.py: error: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print("tokenise.py: error: a process was killed (memory ran out?); use fewer --processes", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tokenise.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
