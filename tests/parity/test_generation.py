# SPDX-License-Identifier: Apache-2.0
"""Greedy tokens of every teacher variant are transformers' (fp32, CPU); where they differ, the two tokens are equally likely."""
import tempfile
import unittest
from pathlib import Path

import torch

import teachers
from amalgam_binary import generated

TIME, COUNT = 60, 30  # from below the original context of the scaled variants to above it


def first_difference(ours, theirs):
    different = (ours != theirs).nonzero()
    return int(different[0]) if len(different) else None


class Generation(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tokens = teachers.write_tokens(self.folder / "tokens.h5", 3, TIME)

    def test_variants(self):
        distinct = set()
        for name in teachers.VARIANTS:
            with self.subTest(name):
                model = teachers.make(name)
                folder = teachers.save(model, self.folder / name)
                ours = generated(folder, self.folder / "tokens.h5", self.folder / f"{name}.h5", TIME, COUNT)
                with torch.no_grad():
                    out = model.generate(self.tokens, attention_mask=torch.ones_like(self.tokens), max_new_tokens=COUNT, do_sample=False,
                                         eos_token_id=None, pad_token_id=0, output_logits=True, return_dict_in_generate=True)
                theirs = out.sequences[:, TIME:]
                self.assertEqual(ours.shape, theirs.shape)
                for row in range(len(ours)):
                    at = first_difference(ours[row], theirs[row])
                    if at is not None:
                        logits = out.logits[at][row]
                        self.assertLess((logits.max() - logits[ours[row, at]]).item(), 1e-4 * logits.abs().max().item())
                    distinct.update(ours[row].tolist())
        self.assertGreater(len(distinct), 20)

    def test_another_model_says_something_else(self):
        """A negative control: the comparison above would see a wrong model."""
        ours = [generated(teachers.save(teachers.make(name), self.folder / name), self.folder / "tokens.h5", self.folder / f"{name}.h5",
                          TIME, COUNT) for name in ("llama", "llama_linear")]
        self.assertIsNotNone(first_difference(ours[0][0], ours[1][0]))


if __name__ == "__main__":
    unittest.main()
