# SPDX-License-Identifier: Apache-2.0
"""Writes token files: HDF5 with /tokens, /document_offsets and /recall, the format "amalgam tokens" version 1.2 (1.0 without
/recall; files of version 1.1 have no /recall/alias).

The number of tokens is known only at the end. Tokens are therefore spooled to a raw file beside the final one and
copied into contiguous datasets at last: readers get plain pread-able data, and memory stays bounded.
"""

import os
import shutil
import zlib
from datetime import datetime, timezone
from pathlib import Path

import h5py
import numpy as np

FILETYPE = "amalgam tokens"
FORMAT_VERSION = (1, 0)
VERSION_WITH_WORDING = (1, 2)
LARGEST_UINT16_VOCABULARY = 65536
COPY_ELEMENTS = 1 << 22  # elements moved at a time


def token_dtype(vocabulary_size: int) -> np.dtype:
    return np.dtype("<u2" if vocabulary_size <= LARGEST_UINT16_VOCABULARY else "<u4")


class TokenFileWriter:
    """Collects documents and leaves either the complete file under its final name or nothing.

    Use as a context manager; call close() when everything was appended; without it, all is removed.
    """

    def __init__(self, path: Path, dtype: np.dtype):
        self.path = path
        self.dtype = dtype
        self.tokens = 0
        self.documents = 0
        stem = f".{path.name}.{os.getpid()}"
        self.partial_ = path.with_name(f"{stem}.partial")
        self.tokens_spool_ = path.with_name(f"{stem}.tokens")
        self.offsets_spool_ = path.with_name(f"{stem}.offsets")

    def __enter__(self) -> "TokenFileWriter":
        self.tokens_stream_ = open(self.tokens_spool_, "wb")
        self.offsets_stream_ = open(self.offsets_spool_, "wb")
        self.offsets_stream_.write(np.zeros(1, "<i8").tobytes())
        return self

    def append(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Documents one after another in tokens, with the number of tokens of each in lengths."""
        offsets = self.tokens + np.cumsum(lengths, dtype="<i8")
        self.tokens_stream_.write(np.ascontiguousarray(tokens, dtype=self.dtype))
        self.offsets_stream_.write(np.ascontiguousarray(offsets))
        self.tokens += len(tokens)
        self.documents += len(lengths)

    def close(self, attributes: dict, wording: dict[str, list] | None = None) -> None:
        """Writes the HDF5 file, makes sure it is on disk and gives it its final name."""
        self.tokens_stream_.close()
        self.offsets_stream_.close()
        with h5py.File(self.partial_, "w", libver=("earliest", "v110")) as file:
            file.attrs["filetype"] = FILETYPE
            file.attrs["format_version"] = np.array(FORMAT_VERSION, dtype=np.int32)
            for name, value in attributes.items():
                file.attrs[name] = value
            file.attrs["created"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            copy_spool(self.tokens_spool_, file.create_dataset("tokens", (self.tokens,), self.dtype))
            copy_spool(self.offsets_spool_, file.create_dataset("document_offsets", (self.documents + 1,), "<i8"))
            if wording is not None:
                write_wording(file, wording)
        sync(self.partial_)
        os.replace(self.partial_, self.path)
        sync(self.path.parent)

    def __exit__(self, *exception) -> None:
        self.tokens_stream_.close()
        self.offsets_stream_.close()
        for path in (self.partial_, self.tokens_spool_, self.offsets_spool_):
            path.unlink(missing_ok=True)


def copy_spool(spool: Path, dataset: h5py.Dataset) -> None:
    checksum = 0
    with open(spool, "rb") as stream:
        for start in range(0, dataset.shape[0], COPY_ELEMENTS):
            count = min(COPY_ELEMENTS, dataset.shape[0] - start)
            piece = np.fromfile(stream, dataset.dtype, count)
            dataset[start : start + count] = piece
            checksum = zlib.crc32(piece, checksum)
    dataset.attrs["crc32"] = np.int64(checksum)


def write_wording(file: h5py.File, wording: dict[str, list]) -> None:
    """Writes the group /recall: of each name a list of tokens, or of pieces, which are lists of tokens."""
    file.attrs["format_version"] = np.array(VERSION_WITH_WORDING, dtype=np.int32)
    for name, value in wording.items():
        pieces = [value] if not value or isinstance(value[0], int) else value
        write_checked(file, f"recall/{name}", np.array([token for piece in pieces for token in piece], "<i4"))
        if pieces is value:
            offsets = np.cumsum([0] + [len(piece) for piece in pieces])
            write_checked(file, f"recall/{name}_offsets", offsets.astype("<i8"))


def write_checked(file: h5py.File, name: str, values: np.ndarray) -> None:
    file[name] = values
    file[name].attrs["crc32"] = np.int64(zlib.crc32(values.tobytes()))


def add_wording(path: Path, wording: dict[str, list]) -> None:
    """Gives a token file the group /recall, in place of the one it has. Until all is on disk the file stays as it is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(path, partial)
        with h5py.File(partial, "a", libver=("earliest", "v110")) as file:
            if "recall" in file:
                del file["recall"]
            write_wording(file, wording)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or the entry of a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
