# SPDX-License-Identifier: Apache-2.0
"""Tests of analysis/: readers, table and report page, on run folders of made-up numbers (fake_run.py)."""

import contextlib
import csv
import io
import re
import shutil
import sys
import tempfile
import unittest
import zlib
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "analysis")]

import recall  # noqa: E402
import report  # noqa: E402
import table  # noqa: E402
from fake_run import FakeRun  # noqa: E402
from metrics import wall_time_per_stage  # noqa: E402
from plots import spread, trade_off  # noqa: E402
from result_files import NO_LAYER  # noqa: E402
from run_folder import flatten_yaml, paired_gap, read_run_folder  # noqa: E402


class PageCheck(HTMLParser):
    """Collects what the tests ask about: text, ids, addresses, and whether tags are balanced."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.addresses, self.text, self.unbalanced = [], [], [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.text += data


class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        root = Path(cls.folder.name)
        cls.guided = FakeRun(root / "guided", "kl_guided", 1).write()
        cls.uniform = FakeRun(root / "uniform", "uniform", 2).write()
        cls.random = FakeRun(root / "random", "random", 3).write()
        cls.root = root

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def page(self, *folders):
        """Builds the page through the command line, checks that it is whole and self-contained, returns it."""
        output = self.root / "page.html"
        with contextlib.redirect_stdout(io.StringIO()):
            report.main([str(folder) for folder in folders] + ["--output", str(output)])
        html = output.read_text(encoding="utf-8")
        check = PageCheck(html)
        self.assertEqual(check.unbalanced, [])
        self.assertEqual(check.open, [])
        self.assertEqual(len(check.ids), len(set(check.ids)), "ids must be unique in the page")
        for address in check.addresses:
            self.assertTrue(address.startswith(("#", "data:")), f"{address} needs the network")
        self.assertNotIn("<script", html)
        self.assertNotIn("@import", html)
        self.assertNotIn("nan", re.sub(r"<svg.*?</svg>", "", html, flags=re.S))
        return html, check.text

    def guided_page(self):
        """Of the guided run alone, which no test changes: it is built once."""
        if not hasattr(ReportTest, "built"):
            ReportTest.built = self.page(self.guided)
        return ReportTest.built

    def test_one_finished_run(self):
        html, text = self.guided_page()
        with h5py.File(self.guided / "scores.h5") as file:
            score = file["score"][:]
        with h5py.File(self.guided / "selection.h5") as file:
            layers = file["layers"][:]
        with h5py.File(self.guided / "evaluation.h5") as file:
            perplexity, accuracy = file["perplexity"][:], file["answer_accuracy"][:]
        self.assertIn("28 layers, softmax at " + ", ".join(map(str, layers)), text)
        self.assertIn('Chosen by the rule "kl_guided" with a budget of 7', text)
        strip = html[html.index('<div class="strip"'):]
        strip = strip[: strip.index("<p")]
        cells = re.findall(r'<div class="(cell(?: softmax)?)" title="layer (\d+)', strip)
        self.assertEqual([int(layer) for kind, layer in cells if kind == "cell softmax"], list(layers))
        self.assertEqual(len(cells), 28)
        self.assertIn(f"−{-score[layers[0]]:.3f}", strip)
        self.assertIn(f"{accuracy[1]:.3f} / {accuracy[0]:.3f}", text)
        self.assertIn(f"{perplexity[1]:.4g}", text)
        for fact in ("node001", "0123456789ab", "fake-teacher-28", "Open MPI 4.1.4", "align 3:35"):
            self.assertIn(fact, text)
        self.assertNotIn("not there yet", text)
        # Importance (wide and narrow), two races, six of training, three of evaluation, recall (wide and narrow).
        self.assertEqual(html.count("<svg "), 15)

    def test_three_runs_side_by_side(self):
        html, text = self.page(self.guided, self.uniform, self.random)
        comparison = html[html.index('id="comparison"'): html.index('id="run0"')]
        for name in ("guided", "uniform", "random"):
            self.assertIn(name, comparison)
        self.assertEqual(comparison.count('<div class="strip compact">'), 3)
        self.assertEqual(comparison.count('class="cell softmax"'), 21)
        best = re.findall(r'<tr>(.*?)</tr>', comparison, flags=re.S)
        bold = [row.count('"best"') for row in best if "<td" in row]
        self.assertEqual(bold, [4, 0, 0], "the guided run is best in KL, perplexity, answers and recall")
        self.assertEqual(html.count('id="run'), 3)
        self.assertNotIn("The scores are those of", text)
        self.assertRegex(text, r"The choice does not follow the scores: layer \d+, left out, beats layer \d+, kept")
        against_kl = comparison[comparison.index('aria-label="Recall against KL'):]
        against_kl = against_kl[: against_kl.index("</svg>")]
        for name in ("guided", "uniform", "random", "selection, s"):
            self.assertIn(name, against_kl)
        overlay = comparison[comparison.index('aria-label="kl by position"'):]
        overlay = overlay[: overlay.index("</svg>")]
        for name in ("guided", "uniform", "random"):
            self.assertIn(f">{name}<", overlay, "the legend names every run")

    def test_learning_rates_that_were_found(self):
        run = FakeRun(self.root / "automatic", automatic=("align", "score", "distill"))
        folder = run.write()
        html, text = self.page(folder)
        rates = html[html.index("Learning rates that were found"):]
        rates = rates[: rates.index("<h3>Evaluation")]
        rows = [re.sub(r"<[^>]*>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", rates, flags=re.S)]
        stages = [row[0] for row in rows if row and row[0] in ("align", "score", "distill")]
        self.assertEqual(stages, ["align", "score", "distill"])
        self.assertIn(["align", "0.002", "3", "trials", "of", "24", "steps"], rows)
        self.assertIn("distill 0.002 3.333e-05 3 trials".split(), [row[:5] for row in rows])
        self.assertIn("score 0.006 0.0001 rule of thumb,".split(), [row[:6] for row in rows])
        self.assertEqual(rates.count("diverged"), 2)
        self.assertNotIn("Learning rates that were found", self.guided_page()[1])
        run.learning_rates("align", finished=False)
        self.assertIn("not chosen yet", self.page(folder)[1])
        (folder / "learning_rates" / "align.h5").write_bytes(b"no HDF5")
        html, text = self.page(folder)
        self.assertIn("align.h5: cannot be opened", text)

    def test_format_1_of_the_scores_gives_the_same_page(self):
        """It had layers instead of layouts, and the selection in scores.h5."""
        for until in ("score", "select", "export"):
            with self.subTest(until=until):
                pages, runs = [], []
                for version in (1, 2):
                    folder = self.root / f"format-{version}" / f"until-{until}"
                    FakeRun(folder, until=until, layers=12, budget=3, scores_version=version).write()
                    self.assertEqual((folder / "selection.h5").exists(), version == 2 and until != "score")
                    pages.append(self.page(folder)[1])
                    runs.append(read_run_folder(folder))
                self.assertEqual(pages[0], pages[1])
                self.assertEqual(runs[0].problems, [])
                np.testing.assert_array_equal(runs[0].scores.layer, np.arange(12))
                if until != "score":
                    np.testing.assert_array_equal(runs[0].selection.order, runs[1].selection.order)
                    self.assertEqual(runs[0].softmax_layers(), runs[1].softmax_layers())

    def test_format_1_without_scores_holds_a_selection(self):
        folder = FakeRun(self.root / "unscored", "uniform", until="select", layers=12, budget=3, scores_version=1).write()
        with h5py.File(folder / "scores.h5", "r+") as file:
            for name in [name for name in file if name != "selection"]:
                del file[name]
        for file in folder.glob("candidates/*.h5"):
            file.unlink()
        run = read_run_folder(folder)
        self.assertEqual(run.problems, [])
        self.assertIsNone(run.scores)
        self.assertEqual(run.softmax_layers(), [3, 7, 11])

    def test_a_candidate_that_is_not_of_its_number_s_layer(self):
        """Candidate 0 restores layer 11, ..., and one restores two layers, so that it has none."""
        folder = FakeRun(self.root / "backwards", until="select", layers=12, budget=3).write()
        with h5py.File(folder / "scores.h5", "r+") as file:
            score = file["score"][:]
            file["layout"][:] = file["layout"][:][:, ::-1]
            del file["layer"]
        run = read_run_folder(folder)
        np.testing.assert_array_equal(run.scores.layer, np.arange(12)[::-1])
        html, _ = self.page(folder)
        self.assertIn(f"−{-score[0]:.3f}", re.search(r'title="layer 11.*?</div>', html, flags=re.S).group())
        with h5py.File(folder / "scores.h5", "r+") as file:
            layout = file["layout"][:]
            layout[0, 5] = 1
            file["layout"][:] = layout
        run = read_run_folder(folder)
        self.assertEqual(run.scores.layer[0], NO_LAYER)
        self.assertEqual(len(run.scores.of_layers().layer), 11)
        self.assertNotIn(NO_LAYER, run.scores.of_layers().layer)
        html, text = self.page(folder)
        self.assertNotIn(f"−{-score[0]:.3f}", re.search(r'title="layer 11.*?</div>', html, flags=re.S).group())
        self.assertIn("those in brackets candidates of other layouts", text)

    def test_shared_scores_are_drawn_once(self):
        shutil.copytree(self.guided, self.root / "again")
        html, text = self.page(self.guided, self.root / "again")
        self.assertIn("The scores are those of guided.", text)
        self.assertEqual(html.count('aria-label="Importance per layer of guided"'), 2, "wide and narrow")
        self.assertNotIn('aria-label="Importance per layer of again"', html)

    def test_runs_at_every_stage(self):
        for until in ("transfer", "align", "score", "select", "distill", "finetune", "evaluate"):
            with self.subTest(until=until):
                folder = FakeRun(self.root / f"until-{until}", until=until, layers=12, budget=3).write()
                html, text = self.page(folder)
                self.assertIn("export: not there yet", text)
                if until == "transfer":
                    self.assertIn("Importance of each layerThe scores of the candidates: not there yet", text)
                    self.assertIn("Throughput (metrics.csv): not there yet", text)
                if until == "score":
                    self.assertIn("The chosen layout: not there yet", text)
                    self.assertIn("score: 12 candidates", text)
                if until == "distill":
                    self.assertIn("distill: step 2000", text)
                    self.assertNotIn("going on", text)
                    (folder / "checkpoints/distill.h5").unlink()
                    html, text = self.page(folder)
                    self.assertIn("distill: step 1000, going on", text)
                    with h5py.File(folder / "selection.h5") as file:
                        layers = file["layers"][:]
                    (folder / "selection.h5").unlink()
                    self.assertEqual(read_run_folder(folder).softmax_layers(), list(layers), "from the checkpoint")
                    self.assertIn("The evaluation: not there yet", text)
                if until == "evaluate":
                    self.assertNotIn("The evaluation: not there yet", text)

    def test_what_the_job_leaves_out_is_not_awaited(self):
        job = "finetune:\n  tokens: {tokens}\nexport:\n  formats: {formats}\n"
        for asked, tokens, formats in ((False, "0", "[]"), (True, "1000", "[qwen3_5]")):
            with self.subTest(asked=asked):
                folder = FakeRun(self.root / f"short-{asked}", layers=12, budget=3, left_out=("finetune", "export"),
                                 more_job=job.format(tokens=tokens, formats=formats)).write()
                _, text = self.page(folder)
                why = "not there yet" if asked else "not asked for"
                for place in ("finetune", "Finetune", "export"):
                    self.assertIn(f"{place}: {why}", text)
                self.assertEqual("not there yet" in text, asked)

    def test_a_rule_without_scores_awaits_none(self):
        for rule, why in (("uniform", "not asked for"), ("kl_guided", "not there yet")):
            folder = FakeRun(self.root / f"unscored-{rule}", rule, until="align", layers=12, budget=3).write()
            _, text = self.page(folder)
            self.assertIn(f"The scores of the candidates: {why}", text)
            self.assertIn(f"score: {why}", text)

    def test_what_was_taken_over_is_not_awaited(self):
        folder = FakeRun(self.root / "reusing", layers=12, budget=3, more_job="reuse: outputs/earlier-run\n").write()
        _, text = self.page(folder)
        self.assertNotIn("taken over", text, "it logged these stages itself")
        lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        own = [line for line in lines if line.split(",")[1] not in ("align", "score")]
        (folder / "metrics.csv").write_text("".join(own), encoding="utf-8")
        _, text = self.page(folder)
        for figure in ("Align", "Align, layer by layer", "Score"):
            self.assertIn(f"{figure}: taken over from earlier-run", text)
        self.assertNotIn("not there yet", text)
        (folder / "checkpoints/align.h5").unlink()
        _, text = self.page(folder)
        self.assertIn("Align: not there yet", text)

    def test_a_student_in_any_format_is_an_export(self):
        folder = FakeRun(self.root / "fla").write()
        (folder / "student").rename(folder / "student-fla")
        _, text = self.page(folder)
        self.assertNotIn("export: not there yet", text)

    def test_an_empty_folder(self):
        folder = self.root / "empty"
        folder.mkdir()
        _, text = self.page(folder)
        self.assertIn("transfer: not there yet", text)
        _, text = self.page(folder, self.guided)
        self.assertIn("emptynot there yet", text)

    def test_scoring_still_going_on(self):
        folder = FakeRun(self.root / "scoring", until="score").write()
        (folder / "scores.h5").unlink()
        for number in range(5, 28):
            (folder / f"candidates/candidate-{number:03d}.h5").unlink()
        with h5py.File(folder / "candidates/candidate-004.h5", "r+") as file:
            for name in ("kl", "kl_mean", "kl_standard_error"):
                values = file[name][:, :3]
                del file[name]
                file[name] = values
            tokens = file["checkpoint_tokens"][:3]
            del file["checkpoint_tokens"]
            file["checkpoint_tokens"] = tokens
        run = read_run_folder(folder)
        self.assertEqual(list(run.scores.layer), [0, 1, 2, 3, 4])
        self.assertEqual(run.scores.kl_mean.shape, (5, 5))
        self.assertTrue(np.isnan(run.scores.kl_mean[4, 3:]).all())
        self.assertEqual(run.scores.score[4], -run.scores.kl_mean[4, 2])
        _, text = self.page(folder)
        self.assertIn("5 candidate(s) are scored so far; scores.h5 is not there yet", text)

    def test_damaged_files_are_named(self):
        folder = FakeRun(self.root / "damaged").write()
        data = (folder / "evaluation.h5").read_bytes()
        (folder / "evaluation.h5").write_bytes(data[: len(data) // 3])
        with h5py.File(folder / "scores.h5", "r+") as file:
            file.attrs["format_version"] = np.array([3, 0], dtype=np.int32)
        with h5py.File(folder / "checkpoints/distill.h5", "r+") as file:
            del file.attrs["step"]
        with open(folder / "metrics.csv", "a", encoding="utf-8") as file:
            file.write("12.5,distill,,,20")
        _, text = self.page(folder)
        self.assertIn("evaluation.h5: cannot be opened as HDF5", text)
        self.assertIn("scores.h5: format_version is [3, 0] but this reader knows versions up to 2.x", text)
        self.assertIn("distill.h5: a dataset or attribute is missing", text)
        self.assertIn("metrics.csv: 1 line(s) could not be read", text)

    def test_a_flipped_bit_is_found(self):
        folder = FakeRun(self.root / "flipped").write()
        with h5py.File(folder / "evaluation.h5", "r+") as file:
            for name in ("loss", "model"):
                file[name].attrs["crc32"] = np.int64(zlib.crc32(file[name][()].tobytes()))
        _, text = self.page(folder)
        self.assertNotIn("checksum", text)
        with h5py.File(folder / "evaluation.h5", "r+") as file:
            file["loss"][1] = np.nextafter(file["loss"][1], 0)
        _, text = self.page(folder)
        self.assertIn("evaluation.h5: a dataset or attribute is missing or damaged (/loss does not match its checksum)",
                      text)

    def test_a_renamed_file_is_refused(self):
        folder = FakeRun(self.root / "renamed").write()
        (folder / "evaluation.h5").write_bytes((folder / "scores.h5").read_bytes())
        run = read_run_folder(folder)
        self.assertIsNone(run.evaluation)
        self.assertIn('filetype is "amalgam scores" but "amalgam evaluation" is expected', run.problems[0])

    def test_numbers_that_are_none(self):
        folder = FakeRun(self.root / "diverged", layers=12, budget=3).write()
        with h5py.File(folder / "scores.h5", "r+") as file:
            for name in ("kl", "kl_mean", "kl_standard_error"):
                file[name][3:, 2:] = np.nan
            file["score"][3:] = np.nan
        with h5py.File(folder / "evaluation.h5", "r+") as file:
            for name in ("kl", "loss", "perplexity", "kl_by_position", "perplexity_by_position"):
                file[name][1] = np.nan
            file["answer_accuracy"][1] = 0.0
            file["recall/right"][1] = 0
        _, text = self.page(folder)
        self.assertIn("not a number", text)
        html, _ = self.page(folder, self.guided)
        bold = [row.count('"best"') for row in re.findall(r"<tr>(.*?)</tr>", html, flags=re.S)[1:4]]
        self.assertEqual(bold[0], 0, "numbers that are none are never the best")
        with h5py.File(folder / "scores.h5", "r+") as file:
            file["score"][:] = np.nan
        _, text = self.page(folder)
        self.assertIn("Importance per layer: not there yet", text)

    def test_an_all_linear_student(self):
        fake = FakeRun(self.root / "all-linear", "all_linear", until="select", layers=12, budget=0)
        folder = fake.write()
        with h5py.File(folder / "scores.h5", "r+") as file:
            file["score"][3] = -1e-5
        _, text = self.page(folder)
        self.assertIn("12 layers, all linear.", text)
        self.assertIn("0.000#", text)
        self.assertNotIn("−0.000", text)

    def test_wrong_shapes_are_named(self):
        folder = FakeRun(self.root / "shapes", layers=12, budget=3).write()
        with h5py.File(folder / "scores.h5", "r+") as file:
            values = file["kl_mean"][:-1]
            del file["kl_mean"]
            file["kl_mean"] = values
        run = read_run_folder(folder)
        self.assertIn("scores.h5: a dataset or attribute is missing or damaged (/kl_mean has shape [11, 5] but C is 12",
                      run.problems[0])
        self.assertEqual(len(run.scores.layer), 12, "the candidate files stand in")

    def test_no_answers_marked(self):
        folder = FakeRun(self.root / "no-answers", answers=False, layers=12, budget=3).write()
        _, text = self.page(folder)
        self.assertIn("no answers marked", text)
        self.assertNotIn("answers right, of", text)

    def test_recall_by_depth_and_length(self):
        html, text = self.guided_page()
        with h5py.File(self.guided / "evaluation.h5") as file:
            accuracy, right = file["recall/accuracy"][:], file["recall/right"][:]
        student = right[1].mean()
        self.assertTrue(0 < student < 1)
        self.assertIn(f"{student:.3f} / 1.000recall: student / teacher", text)
        self.assertIn("360 questions to each model, 20 of each kind, length and depth", text)
        maps = html[html.index('aria-label="Recall by depth and length'):]
        maps = maps[: maps.index("</svg>")]
        for words in ("teacher, in noise", "student, in text", "depth (%)", "length (tokens)", ">1.02k<", ">4.1k<"):
            self.assertIn(words, maps)
        shown = [int(number) for number in re.findall(r">(\d+)</text>", maps)]
        cells = [round(100 * value) for value in accuracy.ravel()]
        for value in set(cells):  # the depths 0, 50 and 100 are numbers of the axes, too
            self.assertGreaterEqual(shown.count(value), cells.count(value))
        self.assertGreater(len(set(cells)), 2)
        self.assertIn("among four keys", recall.words("four_keys"))
        self.assertEqual("through two aliases", recall.words("chains"))

    def test_the_cost_of_a_selection_is_that_of_its_candidates(self):
        run = read_run_folder(self.guided)
        self.assertAlmostEqual(table.comparison_row(run)["selection seconds"], run.scores.seconds.sum())
        self.assertIsNone(table.comparison_row(read_run_folder(self.uniform))["selection seconds"])
        rows = [table.comparison_row(one) for one in (run, read_run_folder(self.uniform))]
        self.assertIsNotNone(trade_off(rows))
        rows[1]["student recall"] = None
        self.assertIsNone(trade_off(rows), "nothing to compare")

    def test_gates(self):
        folder = FakeRun(self.root / "gated", "joint_gates", 4).write()
        value = np.linspace(1, np.linspace(0, 0.9, 28), 11)  # the last layer's stays nearest to 1
        with h5py.File(folder / "scores.h5", "a") as file:
            file["gates/value"], file["gates/kl"], file["gates/recall_kl"] = value, np.ones(10), np.ones(10)
            file["gates/seconds"] = np.array([30.0])
            file["gates"].attrs["tokens"] = 5000
        html, text = self.page(folder)
        run = read_run_folder(folder)
        self.assertEqual(list(run.scores.gates.order()[:2]), [27, 26])
        self.assertEqual(len(run.scores.of_layers().layer), 0)
        self.assertAlmostEqual(table.comparison_row(run)["selection seconds"], 30 + run.scores.seconds.sum())
        strip = html[html.index('<div class="strip"'):]
        self.assertIn("0.900", strip[: strip.index("<p")])
        self.assertIn("trained all at once on 5k tokens in 30 s", text)
        self.assertIn("place among the layers", self.page(folder, self.guided)[1])
        with h5py.File(folder / "scores.h5", "a") as file:
            del file["gates/kl"]
            file["gates/kl"] = np.ones(9)
        self.assertIn("gates", " ".join(read_run_folder(folder).problems))
        with h5py.File(folder / "scores.h5", "a") as file:
            del file["gates/kl"], file["gates/recall_kl"]
        self.assertIn("gates", " ".join(read_run_folder(folder).problems), "trained on nothing")
        with h5py.File(folder / "scores.h5", "a") as file:
            file["gates/state_error"] = np.ones(10)
        html, text = self.page(folder)
        self.assertIn("the error of the states of the batches", text)
        self.assertIn("states at answers", html)

    def test_far_context(self):
        folder = FakeRun(self.root / "far", "joint_gates", 4).write()
        with h5py.File(folder / "scores.h5", "a") as file:
            file["gates/value"], file["gates/kl"], file["gates/far_kl"] = np.ones((11, 28)), np.ones(10), np.ones(10)
            file["gates/seconds"] = np.array([30.0])
            file["gates"].attrs["tokens"] = 5000
            file["far_weight"] = np.array([2.0])
        self.assertTrue(read_run_folder(folder).scores.weighs_far_context)
        self.assertIn("far context", self.page(folder)[0])
        self.assertFalse(read_run_folder(self.guided).scores.weighs_far_context)
        with h5py.File(folder / "scores.h5", "a") as file:
            del file["gates/far_kl"]
            file["gates/far_kl"] = np.ones(9)
        self.assertIn("gates", " ".join(read_run_folder(folder).problems))

    def test_recall_is_less_where_answers_are_wrong(self):
        run = read_run_folder(self.guided)
        before = table.comparison_row(run)["student recall"]
        run.evaluation.recall.right[1, 0] = 0
        row = table.comparison_row(run)
        self.assertLess(row["student recall"], before)
        self.assertEqual((row["teacher recall"], row["recall questions"]), (1.0, 360))
        right = run.evaluation.recall.right[1]
        self.assertAlmostEqual(row["recall error"], right.std(ddof=1) / np.sqrt(right.size))

    def test_no_recall_asked(self):
        folder = FakeRun(self.root / "no-recall", recall=False, layers=12, budget=3).write()
        html, text = self.page(folder)
        self.assertIn("not askedrecall: student / teacher", text)
        self.assertNotIn("Recall by", text)
        _, text = self.page(folder, self.guided)
        self.assertIn("Recall by length", text)

    def test_recall_of_other_shapes_is_damage(self):
        folder = FakeRun(self.root / "other-shapes", layers=12, budget=3).write()
        with h5py.File(folder / "evaluation.h5", "r+") as file:
            del file["recall/depth"]
            file["recall/depth"] = np.array([0, 100], np.int64)
        run = read_run_folder(folder)
        self.assertIsNone(run.evaluation)
        self.assertIn("evaluation.h5: a dataset or attribute is missing or damaged (/recall/", run.problems[0])

    def test_text_of_a_run_is_escaped(self):
        folder = FakeRun(self.root / "a<b>&$c", layers=12, budget=3).write()
        html, text = self.page(folder)
        self.assertIn("a<b>&$c", text)
        _, text = self.page(folder, self.guided)
        self.assertIn("Comparisona<b>&$c", text)
        self.assertNotIn("a<b>", html)

    def test_table(self):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            table.main([str(self.guided), str(self.uniform)])
        markdown, _, comma_separated = output.getvalue().partition("\n\n")
        self.assertEqual(len(markdown.splitlines()), 4)
        self.assertIn("| uniform | uniform | 3 7 11 15 19 23 27 |", markdown)
        rows = list(csv.DictReader(io.StringIO(comma_separated)))
        with h5py.File(self.guided / "evaluation.h5") as file:
            self.assertEqual(float(rows[0]["KL"]), file["kl"][1])
            self.assertEqual(float(rows[0]["student perplexity"]), file["perplexity"][1])
            self.assertEqual(float(rows[0]["student recall"]), file["recall/right"][1].mean())
        self.assertEqual((rows[0]["answers"], rows[0]["recall questions"]), ("512", "360"))

    def test_a_missing_folder_is_a_sentence(self):
        with self.assertRaisesRegex(SystemExit, "there is no such folder"):
            table.main([str(self.root / "nowhere")])


    def test_a_page_that_cannot_be_written_is_a_sentence(self):
        with self.assertRaisesRegex(SystemExit, "nowhere: is not a folder"):
            report.main([str(self.guided), "--output", str(self.root / "nowhere" / "page.html")])
        (self.root / "page.html.part").mkdir()
        with self.assertRaisesRegex(SystemExit, "page.html: cannot be written"):
            report.main([str(self.guided), "--output", str(self.root / "page.html")])
        (self.root / "page.html.part").rmdir()


class ReaderTest(unittest.TestCase):
    def test_the_last_row_of_a_step_counts(self):
        with tempfile.TemporaryDirectory() as name:
            run = FakeRun(Path(name) / "run", until="align")
            run.write()
            with open(run.folder / "metrics.csv", "a", encoding="utf-8") as file:
                file.write("3.0,align,,,800,13107200,0.125,0.3,0.001,1000,10\n")
            curve = read_run_folder(run.folder).metrics.curve("align")
            self.assertEqual(len(curve.step), 80)
            self.assertEqual((curve.step[-1], curve.loss[-1]), (800, 0.125))

    def test_wall_time(self):
        step = iter(range(100))
        rows = [("align", None, None, 5.0), ("align", None, None, 10.0), ("score", 0, None, 14.0),
                ("score", 0, None, 30.0),
                ("score", 1, None, 15.0), ("score", 1, None, 31.0), ("distill", None, None, 40.0),
                ("distill", None, None, 2.0), ("distill", None, None, 9.0), ("finetune", None, None, 1.0)]
        timeline = [((stage, candidate, layer, next(step)), time, 4.0) for stage, candidate, layer, time in rows]
        seconds = wall_time_per_stage(timeline)
        self.assertEqual(seconds, {"align": 9.0, "score": 21.0, "distill": 13.0, "finetune": 1.0, "other": 6.0})

    def test_stages_without_rows_are_charged_to_no_other(self):
        timeline = [(("align", None, None, 10), 20.0, 18.0), (("distill", None, None, 10), 100.0, 15.0)]
        self.assertEqual(wall_time_per_stage(timeline), {"align": 18.0, "distill": 15.0, "other": 67.0})

    def test_job_file(self):
        text = 'name: "demo"  # a comment\nteacher:\n  path: a/b\nalign:\n  optimizer:\n    beta1: 0.9\nseed: 3\n'
        self.assertEqual(flatten_yaml(text), {"name": "demo", "teacher.path": "a/b", "align.optimizer.beta1": "0.9",
                                              "seed": "3"})

    def test_paired_gap_uses_differences(self):
        with tempfile.TemporaryDirectory() as name:
            folder = FakeRun(Path(name) / "run", until="select").write()
            run = read_run_folder(folder)
        scores, selection = run.scores, run.selection
        inside, outside, gap, error = paired_gap(scores, selection)
        self.assertIn(inside, selection.layers)
        self.assertNotIn(outside, selection.layers)
        difference = scores.kl[outside, -1] - scores.kl[inside, -1]
        self.assertAlmostEqual(gap, difference.mean())
        self.assertAlmostEqual(error, difference.std(ddof=1) / np.sqrt(difference.size))
        self.assertGreater(gap, 0)

    def test_errors_set_the_decimals(self):
        self.assertEqual(table.with_error(0.082456, 0.00209), "0.0825 ± 0.0021")
        self.assertEqual(table.with_error(10.0, 0.19), "10.00 ± 0.19")
        self.assertEqual(table.with_error(0.0, 0.0), "0")
        self.assertEqual(table.with_error(None, None), "not there yet")

    def test_labels_are_spread(self):
        placed = spread([1.0, 1.0, 1.1, 5.0], 1.0)
        self.assertTrue((np.diff(np.sort(placed)) >= 1.0 - 1e-9).all())
        self.assertEqual(placed[3], 5.0)
        self.assertAlmostEqual(placed[:3].mean(), np.mean([1.0, 1.0, 1.1]))


if __name__ == "__main__":
    unittest.main()
