# SPDX-License-Identifier: Apache-2.0
"""Hybrids exported as stock qwen3_5_text: transformers gives our logits and our greedy generation, without custom code.

The student of each case is made by a real run (two optimizer steps of each stage) with layouts that are not periodic.
"""
import json
import tempfile
import unittest
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM

import teachers
from amalgam_binary import amalgam, checked, generated, logits

TIME, COUNT = 60, 16
# teacher, kept softmax layers, student options
CASES = [
    ("llama_llama3", [1], {}),
    ("llama_theta", [1, 2], {}),
    ("llama_head_dim", [3], {}),
    ("llama_yarn", [0, 3], {"variant": "gdn_v3"}),
    ("qwen2", [0, 1], {}),
    ("qwen2_tied", [2], {"variant": "gdn_v3"}),
    ("qwen3", [1, 2, 3], {}),
    ("qwen3_yarn", [2], {}),
]


class Export(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tokens = teachers.write_tokens(self.folder / "tokens.h5", 8, TIME)
        teachers.write_tokens(self.folder / "validation.h5", 8, TIME, seed=1)

    def student(self, teacher, kept, student):
        """The last checkpoint of a small run."""
        folder = teachers.save(teachers.make(teacher), self.folder / teacher)
        stage = dict(tokens=4 * TIME, sequence_length=TIME, batch_sequences=2,
                     optimizer=dict(learning_rate=0.01, learning_rate_rest=0.01, warmup_steps=0))
        job = dict(name=teacher, output=str(self.folder / "runs"), device="cpu", precision="float32", teacher=dict(path=str(folder)),
                   data=dict(training=str(self.folder / "tokens.h5"), validation=str(self.folder / "validation.h5")), student=student, align=stage, score=dict(tokens=0),
                   select=dict(rule="explicit", layers=kept), distill=stage, evaluate=dict(sequences=0), export=dict(formats=[]))
        path = self.folder / f"{teacher}.yaml"
        path.write_text(yaml.safe_dump(job))
        checked("run", path)
        return self.folder / "runs" / teacher / "checkpoints" / "distill.h5"

    def test_qwen3_5(self):
        for teacher, kept, student in CASES:
            with self.subTest(teacher):
                checkpoint = self.student(teacher, kept, student)
                target = self.folder / "exported" / teacher
                checked("export", checkpoint, target, "--to", "qwen3_5", "--precision", "float32")
                config = json.loads((target / "config.json").read_text())
                self.assertEqual([i for i, kind in enumerate(config["layer_types"]) if kind == "full_attention"], kept)
                model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
                self.assertEqual(type(model).__name__, "Qwen3_5ForCausalLM")
                with torch.no_grad():
                    expected = model(self.tokens).logits
                found = logits(checkpoint, self.folder / "tokens.h5", self.folder / "logits.h5", TIME)
                self.assertLess((found - expected).abs().max().item(), 1e-4 * expected.abs().max().item())

                ours = generated(checkpoint, self.folder / "tokens.h5", self.folder / "generated.h5", TIME, COUNT)
                theirs = model.generate(self.tokens, attention_mask=torch.ones_like(self.tokens), max_new_tokens=COUNT, do_sample=False,
                                        eos_token_id=None, pad_token_id=0)[:, TIME:]
                self.assertTrue(torch.equal(ours, theirs), f"{ours.tolist()} {theirs.tolist()}")

    def test_tokenizer_comes_along(self):
        checkpoint = self.student("llama_theta", [1], {})
        (self.folder / "llama_theta" / "tokenizer.json").write_text("{}")
        (self.folder / "llama_theta" / "chat_template.jinja").write_text("{{ messages }}")
        checked("export", checkpoint, self.folder / "out", "--to", "qwen3_5")
        self.assertEqual((self.folder / "out" / "tokenizer.json").read_text(), "{}")
        self.assertEqual((self.folder / "out" / "chat_template.jinja").read_text(), "{{ messages }}")

    def test_what_a_format_cannot_say_is_refused(self):
        process = amalgam("export", self.student("qwen3", [1], {}), self.folder / "fla", "--to", "fla")
        self.assertEqual(process.returncode, 2)
        self.assertIn("q/k norm", process.stderr)
        self.assertFalse((self.folder / "fla" / "config.json").exists())

    def test_fla_folder(self):
        target = self.folder / "fla"
        checked("export", self.student("qwen2", [0, 2], {}), target, "--to", "fla", "--precision", "float32")
        config = json.loads((target / "config.json").read_text())
        self.assertEqual(config["model_type"], "gated_deltanet")
        self.assertEqual(config["attn"]["layers"], [0, 2])
        self.assertTrue(config["attn"]["qkv_bias"])


if __name__ == "__main__":
    unittest.main()
