# SPDX-License-Identifier: Apache-2.0
"""Writes bf16 tensors as a safetensors file: header length (8 bytes), JSON header, the data in the header's order.

Written by hand because bf16 is no numpy type, and the safetensors package takes it from torch tensors only.
"""

import json
from pathlib import Path

import numpy as np

HEADER_ALIGNMENT = 8  # bytes; the format wants the data to begin at such an offset


def write_bfloat16_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Tensors hold the 16 bits of bf16 as uint16."""
    header = {"__metadata__": {"format": "pt"}}  # transformers refuses files without this entry
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little"))
        stream.write(text)
        for tensor in tensors.values():
            stream.write(tensor.astype("<u2", copy=False).tobytes())
