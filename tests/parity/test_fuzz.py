# SPDX-License-Identifier: Apache-2.0
"""A small part of fuzz.py, and that it would see a fault."""
import json
import tempfile
import unittest
from unittest import mock

import torch

import fuzz


class Fuzz(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.fuzzer = fuzz.Fuzzer(folder.name, seed=7)

    def test_edits_are_taken_with_the_same_numbers_or_refused_in_words(self):
        faults = []
        counts = self.fuzzer.run(range(40), report=lambda text: faults.append(text) if text.split(": ")[1] in fuzz.FAULTS else None)
        self.assertEqual(faults, [])
        self.assertEqual(sum(counts.values()), 40)
        for outcome in ("equal", "both refuse"):
            self.assertGreater(counts[outcome], 3, counts)

    def test_a_model_that_transformers_never_finishes_is_given_up(self):
        folder = self.fuzzer.folder / "llama-False"
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2 ** 63}))
        with mock.patch.object(fuzz, "PATIENCE", 1.0):
            self.assertIn("no end", self.fuzzer.theirs(folder))

    def test_faults_would_be_seen(self):
        folder, logits = self.fuzzer.folder / "x", torch.ones(1, 2, 3)
        outcome = fuzz.Fuzzer.outcome
        self.assertEqual(outcome(folder, (0, "", logits), logits), "equal")
        self.assertEqual(outcome(folder, (0, "", 1.001 * logits), logits), "different")
        self.assertEqual(outcome(folder, (0, "", logits), float("nan") * logits), "different")
        self.assertEqual(outcome(folder, (0, "", logits), "refused"), "we accept")
        self.assertEqual(outcome(folder, (2, f"{folder}/config.json: is no config", None), "refused"), "both refuse")
        self.assertEqual(outcome(folder, (2, f"{folder}/config.json: is no config", None), logits), "we refuse")
        for status, said in ((-11, ""), (136, ""), (1, f"{folder}: failure"), (2, "something is wrong"), (3, f"{folder}: frame #0: ?"),
                             (3, f"{folder}: \udca2")):
            self.assertEqual(outcome(folder, (status, said, None), "refused"), "crash", (status, said))


if __name__ == "__main__":
    unittest.main()
