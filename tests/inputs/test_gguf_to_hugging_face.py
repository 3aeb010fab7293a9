# SPDX-License-Identifier: Apache-2.0
"""Tests of what inputs/gguf_to_hugging_face.py does to numbers; fetch_smollm2.py --check tests the whole."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "inputs"))

from gguf_to_hugging_face import hugging_face_name, to_bfloat16, undo_rotary_permutation
from safetensors_file import write_bfloat16_tensors


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class ConversionTest(unittest.TestCase):
    def test_bfloat16_takes_the_nearest_value(self):
        random = np.random.default_rng(1)
        values = (random.standard_normal(10000) * 10.0 ** random.integers(-30, 30, 10000)).astype(np.float32)
        bits = to_bfloat16(values)
        error = np.abs(from_bfloat16(bits).astype(np.float64) - values)
        for neighbour in (bits - 1, bits + 1):
            self.assertTrue((error <= np.abs(from_bfloat16(neighbour).astype(np.float64) - values)).all())

    def test_bfloat16_rounds_ties_to_even(self):
        spacing = 2.0**-7  # of bf16 numbers between 1 and 2
        values = np.array([1 + spacing / 2, 1 + 3 * spacing / 2, -1 - spacing / 2, 0.0, -0.0], np.float32)
        self.assertEqual(from_bfloat16(to_bfloat16(values)).tolist(), [1.0, 1 + 2 * spacing, -1.0, 0.0, -0.0])
        self.assertEqual(to_bfloat16(values)[-1], 0x8000)

    def test_rotary_pairs_become_halves(self):
        # Two heads of dimension 6; a row is named by head * 10 + its place in Hugging Face order.
        halves = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
        pairs = [0, 3, 1, 4, 2, 5, 10, 13, 11, 14, 12, 15]
        columns = np.array([1.0, 100.0])
        restored = undo_rotary_permutation(np.outer(pairs, columns), heads=2)
        np.testing.assert_array_equal(restored, np.outer(halves, columns))

    def test_names(self):
        names = {
            "blk.12.attn_q.weight": "model.layers.12.self_attn.q_proj.weight",
            "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
            "token_embd.weight": "model.embed_tokens.weight",
            "blk.0.attn_q.bias": None,
            "blk.x.attn_q.weight": None,
            "blk.0.unknown.weight": None,
        }
        self.assertEqual({name: hugging_face_name(name) for name in names}, names)

    def test_safetensors_layout(self):
        tensors = {"a": np.arange(6, dtype=np.uint16).reshape(2, 3), "b": np.array([0x3F80], np.uint16)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            write_bfloat16_tensors(path, tensors)
            content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        self.assertEqual(length % 8, 0)
        header = json.loads(content[8 : 8 + length])
        self.assertEqual(header["a"], {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]})
        self.assertEqual(header["b"], {"dtype": "BF16", "shape": [1], "data_offsets": [12, 14]})
        self.assertEqual(content[8 + length :], bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0x80, 0x3F]))


if __name__ == "__main__":
    unittest.main()
