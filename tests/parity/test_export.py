# SPDX-License-Identifier: Apache-2.0
"""Hybrids exported as stock qwen3_5_text: transformers gives our logits and our greedy generation, without custom code.

The student of each case is made by a real run (two optimizer steps of each stage) with layouts that are not periodic,
and with linear or softmax layers only.
"""
import json
import shutil
import tempfile
import unittest
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import teachers
from amalgam_binary import amalgam, checked, generated, logits
from fla_kda import Kda

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
    ("llama_linear", [], {}),
    ("llama_dynamic", [0, 1, 2, 3], {}),
    ("qwen2_window", [0, 1], {}),  # its windows are in the layers that become linear
    ("llama_attention_bias", [0, 2], {}),
]


def load(folder, dtype):
    """The exported model, every tensor of which must be known and none missing."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    if problems:
        raise AssertionError(f"{folder}: {problems}")
    return model.eval()


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
        job = dict(name=teacher, output=str(self.folder / "runs"), device="cpu", precision="float32", threads_per_rank=1, peak_flops="1e12", teacher=dict(path=str(folder)),
                   data=dict(training=str(self.folder / "tokens.h5"), validation=str(self.folder / "validation.h5")), student=student, align=stage, score=dict(tokens=0),
                   select=dict(rule="explicit", layers=kept) if kept else dict(rule="all_linear"), distill=stage, evaluate=dict(sequences=0), export=dict(formats=[]))
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
                model = load(target, torch.float32)
                self.assertEqual(type(model).__name__, "Qwen3_5ForCausalLM")
                with torch.no_grad():
                    expected = model(self.tokens).logits
                found = logits(checkpoint, self.folder / "tokens.h5", self.folder / "logits.h5", TIME)
                self.assertLess((found - expected).abs().max().item(), 1e-4 * expected.abs().max().item())

                ours = generated(checkpoint, self.folder / "tokens.h5", self.folder / "generated.h5", TIME, COUNT)
                theirs = model.generate(self.tokens, attention_mask=torch.ones_like(self.tokens), max_new_tokens=COUNT, do_sample=False,
                                        eos_token_id=None, pad_token_id=0)[:, TIME:]
                self.assertTrue(torch.equal(ours, theirs), f"{ours.tolist()} {theirs.tolist()}")

    def test_bfloat16_costs_what_it_costs_the_teacher(self):
        """KL to the fp32 logits: the exported model's in bf16 is not much more than that of the same weights in bf16."""
        for teacher in ("llama_theta", "qwen3"):
            with self.subTest(teacher):
                checkpoint = self.student(teacher, [1, 2], {})
                exact = logits(checkpoint, self.folder / "tokens.h5", self.folder / "logits.h5", TIME).log_softmax(-1)

                def kl(approximate):
                    return (exact.exp() * (exact - approximate.float().log_softmax(-1))).sum(-1).mean().item()

                narrow = logits(checkpoint, self.folder / "tokens.h5", self.folder / "narrow.h5", TIME, "--precision", "bfloat16")
                checked("export", checkpoint, self.folder / "narrow" / teacher, "--to", "qwen3_5")
                with torch.no_grad():
                    exported = load(self.folder / "narrow" / teacher, torch.bfloat16)(self.tokens).logits
                self.assertLess(kl(exported), 2 * kl(narrow))

    def test_tokenizer_comes_along(self):
        """A teacher without tokenizer_config.json, whose splitting rule (digits one by one) is not that of Qwen3.5."""
        checkpoint = self.student("llama_theta", [1], {})
        teacher, target = self.folder / "llama_theta", self.folder / "out"
        vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, "12": 256}, merges=[("1", "2")]))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
        tokenizer.save(str(teacher / "tokenizer.json"))
        (teacher / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
        checked("export", checkpoint, target, "--to", "qwen3_5")
        exported, text = AutoTokenizer.from_pretrained(target), "12 and 212"
        self.assertEqual(exported(text)["input_ids"], tokenizer.encode(text).ids)
        self.assertEqual(exported.apply_chat_template([dict(role="user", content=text)], tokenize=False), text)

    def test_what_a_format_cannot_say_is_refused(self):
        process = amalgam("export", self.student("qwen3", [1], {}), self.folder / "fla", "--to", "fla")
        self.assertEqual(process.returncode, 2)
        self.assertIn("q/k norm", process.stderr)
        self.assertFalse((self.folder / "fla").exists())

    def test_fla_folder(self):
        target = self.folder / "fla"
        checked("export", self.student("qwen2", [0, 2], {}), target, "--to", "fla", "--precision", "float32")
        config = json.loads((target / "config.json").read_text())
        self.assertEqual(config["model_type"], "gated_deltanet")
        self.assertEqual(config["attn"]["layers"], [0, 2])
        self.assertTrue(config["attn"]["qkv_bias"])

    def test_kimi_delta_attention_in_fla_format(self):
        """Softplus and bounded gates, with and without convolution; every written tensor is read."""
        for student in ({"variant": "kda_v1"}, {"variant": "kda_v2", "short_convolution": True}):
            with self.subTest(student):
                name = student["variant"]
                checkpoint = self.student("qwen2", [0, 2], student)
                checked("export", checkpoint, self.folder / name, "--to", "fla", "--precision", "float32")
                model = Kda(self.folder / name)
                self.assertEqual(model.config["architectures"], ["KDAForCausalLM"])
                with torch.no_grad():
                    expected = model.logits(self.tokens)
                self.assertEqual(model.used, set(model.tensors))
                found = logits(checkpoint, self.folder / "tokens.h5", self.folder / "logits.h5", TIME)
                self.assertLess((found - expected).abs().max().item(), 1e-4 * expected.abs().max().item())
                model.tensors["model.layers.1.attn.dt_bias"] += 0.5  # a negative control
                with torch.no_grad():
                    self.assertGreater((found - model.logits(self.tokens)).abs().max().item(), 1e-4 * expected.abs().max().item())
                shutil.rmtree(self.folder / "runs")  # the next student has the same name


if __name__ == "__main__":
    unittest.main()
