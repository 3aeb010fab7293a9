# SPDX-License-Identifier: Apache-2.0
"""The bridge to lm-evaluation-harness: tasks of our own, exported, answered by `amalgam run`, scored; the teacher must get
what the harness's own Hugging Face model gives it. Skipped where lm-eval is not installed."""
import importlib.util
import json
import os
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

from request_runs import answered

ROOT = Path(__file__).resolve().parents[2]
TEACHER = ROOT / "inputs/builtin/teacher"
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(ROOT / "analysis"))

DOCUMENTS = [{"question": "The sky is", "choices": [" blue", " green cheese"], "answer": 0, "text": "The sky is blue today."},
             {"question": "Two and two make", "choices": [" five", " four"], "answer": 1, "text": "Two and two make four. " * 9},
             {"question": "Water is", "choices": [" wet", " as dry as dust"], "answer": 0, "text": "Rivers run to the sea."}]
TASKS = {
    "own_choice": """
        output_type: multiple_choice
        doc_to_text: "{{question}}"
        doc_to_choice: "{{choices}}"
        doc_to_target: "{{answer}}"
        metric_list: [{metric: acc}, {metric: acc_norm}]
    """,
    "own_rolling": """
        output_type: loglikelihood_rolling
        doc_to_text: ""
        doc_to_target: "{{text}}"
        metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
    """,
    "own_generation": """
        output_type: generate_until
        doc_to_text: "{{question}}"
        doc_to_target: "{{choices[answer]}}"
        generation_kwargs: {until: ["e", "."], max_gen_toks: 12}
        metric_list: [{metric: exact_match}]
    """,
}
MAX_LENGTH = 24  # shorter than a document: windows roll


@unittest.skipUnless(importlib.util.find_spec("lm_eval"), "lm-eval is not installed (analysis/requirements-lm-eval.txt)")
class Bridge(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.tasks = self.folder / "tasks"
        self.tasks.mkdir()
        # Says that none of the harness's own tasks are needed: reading them all takes 15 s each time.
        (self.tasks / "manifest.json").write_text('{"harness_folders": []}')
        data = self.folder / "documents.jsonl"
        data.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
        for name, task in TASKS.items():
            (self.tasks / f"{name}.yaml").write_text(
                f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
                f"metadata: {{version: 1.0}}\n{textwrap.dedent(task)}")
        self.requests = self.folder / "requests.h5"

    def export(self):
        import lm_eval_export
        arguments = ["--tokenizer", str(TEACHER), "--tasks", ",".join(TASKS), "--output", str(self.requests), "--max-length",
                     str(MAX_LENGTH), "--include-path", str(self.tasks)]
        self.assertEqual(lm_eval_export.main(arguments), 0)

    def run_job(self):
        data = ROOT / "inputs/builtin"
        return answered(self.folder, TEACHER, data / "train.h5", data / "validation.h5", self.requests)

    def reference(self):
        """The harness with its own model."""
        import lm_eval
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
        model = HFLM(pretrained=str(TEACHER), device="cpu", dtype="float32", batch_size=1, max_length=MAX_LENGTH, add_bos_token=False)
        return lm_eval.simple_evaluate(model=model, tasks=list(TASKS),
                                       task_manager=TaskManager(include_path=str(self.tasks), include_defaults=False))

    def test_the_teacher_gets_what_the_harness_gives_it(self):
        import lm_eval_score
        from lm_eval_requests import Replayer, RequestError, read_answers, read_requests
        self.export()
        evaluation = self.run_job()
        results = lm_eval_score.score(lm_eval_score.parse_arguments(["--tokenizer", str(TEACHER), str(self.requests),
                                                                      str(evaluation)]))
        expected = self.reference()
        compared = 0
        for task, metrics in expected["results"].items():
            for metric, value in metrics.items():
                if isinstance(value, float) and "stderr" not in metric:
                    self.assertAlmostEqual(results["teacher"][task][metric], value, delta=1e-4 * abs(value), msg=f"{task} {metric}")
                    compared += 1
        self.assertGreaterEqual(compared, 5)
        self.assertNotEqual(results["student"]["own_rolling"], results["teacher"]["own_rolling"])

        settings, _, fingerprint, keys = read_requests(self.requests)
        answers = read_answers(evaluation, "teacher", fingerprint, keys)
        generated = [answer for answer in answers.values() if isinstance(answer, list)]
        self.assertEqual(len(generated), len(DOCUMENTS))
        replayer = Replayer(TEACHER, settings["max_length"], settings["add_bos"], answers)
        texts = [replayer.generate(document["question"], {"until": ["e", "."], "max_gen_toks": 12}) for document in DOCUMENTS]
        self.assertEqual(texts, [sample["resps"][0][0] for sample in expected["samples"]["own_generation"]])
        self.assertGreater(len("".join(texts)), 3)
        with self.assertRaisesRegex(RequestError, "other requests"):
            read_answers(evaluation, "teacher", "something else", keys)
        with self.assertRaisesRegex(RequestError, "student"):
            read_answers(evaluation, "nobody", fingerprint, keys)

    def test_an_existing_file_is_not_overwritten(self):
        self.requests.write_text("mine")
        import lm_eval_export
        self.assertEqual(lm_eval_export.main(["--tokenizer", str(TEACHER), "--tasks", "own_choice", "--output", str(self.requests)]), 1)
        self.assertEqual(self.requests.read_text(), "mine")


if __name__ == "__main__":
    unittest.main()
