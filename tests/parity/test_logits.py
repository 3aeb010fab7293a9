# SPDX-License-Identifier: Apache-2.0
"""Logits of every teacher variant agree with transformers' to 1e-4 of the largest (fp32, CPU)."""
import json
import tempfile
import unittest
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

import teachers
from amalgam_binary import amalgam, logits

TIME = 100  # more than the original context of the scaled variants


class Logits(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tokens = teachers.write_tokens(self.folder / "tokens.h5", 2, TIME)

    def compare(self, model, folder):
        with torch.no_grad():
            expected = model(self.tokens).logits
        found = logits(folder, self.folder / "tokens.h5", self.folder / "logits.h5", TIME)
        self.assertEqual(found.shape, expected.shape)
        self.assertLess((found - expected).abs().max().item(), 1e-4 * expected.abs().max().item())

    def test_variants(self):
        for name in teachers.VARIANTS:
            with self.subTest(name):
                model = teachers.make(name)
                self.compare(model, teachers.save(model, self.folder / name))

    def test_config_of_transformers_4(self):
        for name in ("llama", "llama_llama3", "llama_dynamic", "qwen2", "qwen3_yarn"):
            with self.subTest(name):
                model = teachers.make(name)
                folder = teachers.save(model, self.folder / name)
                teachers.as_transformers_4(folder)
                self.compare(model, folder)

    def test_shards(self):
        model = teachers.make("qwen3")
        folder = teachers.save(model, self.folder / "sharded", shard="100KB")
        self.assertGreater(len(list(folder.glob("model-*.safetensors"))), 2)
        self.compare(model, folder)

    def test_narrow_weights(self):
        for dtype in (torch.float16, torch.bfloat16):
            with self.subTest(str(dtype)):
                folder = teachers.save(teachers.make("llama").to(dtype), self.folder / str(dtype).split(".")[-1])
                # Read back: in the narrow model the rotary frequencies are rounded too.
                self.compare(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder)

    def test_unknown_rope_is_refused_by_name(self):
        folder = teachers.save(teachers.make("llama"), self.folder / "longrope")
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"]["rope_type"] = "longrope"
        (folder / "config.json").write_text(json.dumps(config))
        process = amalgam("logits", "--model", folder, "--tokens", self.folder / "tokens.h5", "--out", self.folder / "x.h5",
                          "--sequence-length", TIME)
        self.assertEqual(process.returncode, 2)
        self.assertIn("longrope", process.stderr)
        self.assertFalse((self.folder / "x.h5").exists())


if __name__ == "__main__":
    unittest.main()
