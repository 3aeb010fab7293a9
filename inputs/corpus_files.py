# SPDX-License-Identifier: Apache-2.0
"""Reads corpora: JSON Lines or plain text, plain or compressed, as batches of raw documents in the order of the files.

A batch holds undecoded bytes and line numbers, so that decoding (and its errors) can happen in another process.
"""

import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

JSON_LINES = (".jsonl", ".ndjson")
PLAIN_TEXT = (".txt",)
COMPRESSIONS = (".gz", ".xz", ".zst")
TEXT_DOCUMENTS = ("file", "paragraph", "line")

BATCH_BYTES = 1 << 20  # a batch is closed once it holds this much
LARGEST_DOCUMENT = 1 << 28  # bytes; documents are held in memory as a whole


class CorpusError(Exception):
    """A problem in the input; the message is one line for the user."""


@dataclass
class Batch:
    """Some documents of one file."""

    path: Path
    json_lines: bool
    lines: list[int] = field(default_factory=list)  # where each document starts, from 1
    documents: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes
    position: int = 0  # bytes of all the files, as stored, read up to here

    def append(self, line: int, document: bytes) -> None:
        self.lines.append(line)
        self.documents.append(document)
        self.size += len(document)


def check_paths(paths: list[Path]) -> None:
    """Tells about all that is wrong with the names before any work is done."""
    for path in paths:
        suffixes(path)
        if not path.is_file():
            raise CorpusError(
                f"{path}: {'not a file' if path.exists() else 'file not found'}; give existing corpus files"
            )


def suffixes(path: Path) -> tuple[str, str]:
    """Kind and compression of a file by its name, e.g. (".jsonl", ".xz")."""
    compression = path.suffix.lower()
    kind = compression
    if compression in COMPRESSIONS:
        kind = Path(path.stem).suffix.lower()
    else:
        compression = ""
    if kind not in JSON_LINES + PLAIN_TEXT:
        raise CorpusError(
            f'{path}: unsupported extension "{kind}{compression}" (it tells what the file holds); known are '
            f"{', '.join(JSON_LINES + PLAIN_TEXT)}, each also with {', '.join(COMPRESSIONS)}"
        )
    return kind, compression


def open_stream(stored: BinaryIO, path: Path, compression: str) -> BinaryIO:
    """The decompressed bytes of an open file."""
    if compression == ".gz":
        return gzip.open(stored)
    if compression == ".xz":
        return lzma.open(stored)
    if compression == ".zst":
        try:
            from zstd_stream import ZstdStream
        except ImportError as error:
            raise CorpusError(
                f"{path}: the Python package zstandard is missing (it reads .zst files); install it"
            ) from error
        return io.BufferedReader(ZstdStream(stored), BATCH_BYTES)
    return stored


def read_batches(paths: list[Path], text_documents: str, limit_documents: int | None) -> Iterator[Batch]:
    """All documents of all files, at most limit_documents of them."""
    left = limit_documents
    finished_bytes = 0
    for path in paths:
        kind, compression = suffixes(path)
        json_lines = kind in JSON_LINES
        with open(path, "rb") as stored:
            batch = Batch(path, json_lines)
            for line, document in read_documents(stored, path, compression, "line" if json_lines else text_documents):
                if left == 0:
                    break
                left = None if left is None else left - 1
                batch.append(line, document)
                if batch.size >= BATCH_BYTES:
                    batch.position = finished_bytes + stored.tell()
                    yield batch
                    batch = Batch(path, json_lines)
            batch.position = finished_bytes + stored.tell()
            if batch.documents:
                yield batch
        if left == 0:
            return
        finished_bytes += path.stat().st_size


def read_documents(stored: BinaryIO, path: Path, compression: str, unit: str) -> Iterator[tuple[int, bytes]]:
    """(first line, bytes) of each document; blank lines separate paragraphs and are otherwise no documents."""
    stream = open_stream(stored, path, compression)
    if unit == "file":
        document = b"".join(line for _, line in read_lines(stream, path, whole_file=True))
        if document:
            yield 1, document
        return

    first_line, paragraph, size = 0, [], 0
    for number, line in read_lines(stream, path):
        blank = not line.strip()
        if unit == "line":
            if not blank:
                yield number, line.rstrip(b"\r\n")
            continue
        if not blank:
            first_line = first_line or number
            paragraph.append(line)
            size = check_size(size + len(line), path, first_line)
        elif paragraph:
            yield first_line, b"".join(paragraph).rstrip(b"\r\n")
            first_line, paragraph, size = 0, [], 0
    if paragraph:
        yield first_line, b"".join(paragraph).rstrip(b"\r\n")


def read_lines(stream: BinaryIO, path: Path, whole_file: bool = False) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends; the largest document limits each line, or with whole_file all lines together."""
    number, size = 0, 0
    while True:
        try:
            line = stream.readline(LARGEST_DOCUMENT + 1)
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise CorpusError(f"{path}: cannot be read after line {number} ({error}); is the file complete?") from error
        if not line:
            return
        number += 1
        if number == 1:
            line = without_mark(line, path)
        size = check_size(size + len(line) if whole_file else len(line), path, 1 if whole_file else number)
        yield number, line


def without_mark(start: bytes, path: Path) -> bytes:
    """The first line of a file without the byte order mark that some editors put before it: it is no text."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise CorpusError(f"{path}: begins with the mark of UTF-16 or UTF-32 (only UTF-8 is read); convert the file")
    return start.removeprefix(codecs.BOM_UTF8)


def check_size(size: int, path: Path, line: int) -> int:
    if size > LARGEST_DOCUMENT:
        raise CorpusError(
            f"{path}: the document at line {line} is larger than {LARGEST_DOCUMENT >> 20} MiB (a document has to fit "
            "in memory); split it, plain text with --text-documents paragraph or line"
        )
    return size


def decode_batch(batch: Batch, text_field: str) -> list[str]:
    """The texts of a batch."""
    decode = decode_json if batch.json_lines else decode_text
    return [decode(batch.path, line, document, text_field) for line, document in zip(batch.lines, batch.documents)]


def decode_text(path: Path, line: int, document: bytes, text_field: str | None = None) -> str:
    try:
        return document.decode("utf-8")
    except UnicodeDecodeError as error:
        bad_line = line + document.count(b"\n", 0, error.start)
        raise CorpusError(f"{path}: line {bad_line} is not UTF-8 ({error.reason}); convert the file") from error


def decode_json(path: Path, line: int, document: bytes, text_field: str) -> str:
    try:
        record = json.loads(decode_text(path, line, document))
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{path}: line {line} is not valid JSON ({error.msg} at column {error.colno}); one object a line?"
        ) from error
    if not isinstance(record, dict):
        raise CorpusError(f"{path}: line {line} is no JSON object (the text is looked up by its field name)")
    if text_field not in record:
        names = ", ".join(f'"{name}"' for name in list(record)[:8]) or "none"
        raise CorpusError(
            f'{path}: line {line} has no field "{text_field}" (it has: {names}); name the text with --text-field'
        )
    text = record[text_field]
    if not isinstance(text, str):
        raise CorpusError(f'{path}: line {line}: field "{text_field}" is no string but {type(text).__name__}')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f'{path}: line {line}: field "{text_field}" holds half a surrogate pair (no valid Unicode)'
        ) from error
    return text
