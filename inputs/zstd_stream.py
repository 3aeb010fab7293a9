# SPDX-License-Identifier: Apache-2.0
"""Reads .zst files, also those of several frames, and notices when the end of the file is missing.

The stream reader of the zstandard package takes a truncated file for a complete one, hence this class.
"""

import io
from typing import BinaryIO

import zstandard

STORED_BYTES = 1 << 16  # read at a time


class ZstdStream(io.RawIOBase):
    """The decompressed bytes of an open file; damage raises OSError, a missing end EOFError."""

    def __init__(self, stored: BinaryIO):
        self.stored_ = stored
        self.decompressor_ = zstandard.ZstdDecompressor()
        self.frame_ = None  # the frame being read
        self.unused_ = b""  # stored bytes behind the last frame
        self.ready_ = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.ready_:
            stored = self.unused_ or self.stored_.read(STORED_BYTES)
            self.unused_ = b""
            if not stored:
                if self.frame_ is not None:
                    raise EOFError("compressed data ends before its end marker")
                return 0
            self.ready_ = memoryview(self.decompress_(stored))
        count = min(len(buffer), len(self.ready_))
        buffer[:count] = self.ready_[:count]
        self.ready_ = self.ready_[count:]
        return count

    def decompress_(self, stored: bytes) -> bytes:
        if self.frame_ is None:
            self.frame_ = self.decompressor_.decompressobj()
        try:
            data = self.frame_.decompress(stored)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        if self.frame_.eof:
            self.unused_ = self.frame_.unused_data
            self.frame_ = None
        return data
