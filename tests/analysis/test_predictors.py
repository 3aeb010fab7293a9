# SPDX-License-Identifier: Apache-2.0
"""predictors.py on tables as analysis/results/selection has them, and its rank correlation on numbers with a known one."""
import contextlib
import csv
import io
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))
import predictors

# Of four layers; what is felt without the first two.
MEASURED = {
    "kl_when_linear": (0.1, 0.2, 0.4, 0.3), "recall_kl_when_linear": (4.0, 3.0, 0.2, 0.1),
    "recall_when_linear": (0.0, 0.1, 0.8, 0.9), "kl_when_restored_distilled": (0.4, 0.3, 0.1, 0.2),
}
# Kept layers, settings, RULER, KL, and tokens where they are others than 10 million: the more of the first two layers, the better by RULER and the worse by KL.
STUDENTS = (
    ("0 1", "", 60, 0.09), ("0 2", "", 50, 0.07), ("0 3", "", 48, 0.08), ("1 2", "", 40, 0.05), ("1 3", "", 30, 0.06),
    ("2 3", "", 10, 0.04), ("2 3", "seed 1", 90, 0.01), ("2 3", "question_fraction 0.1", 90, 0.01), ("0", "", 90, 0.01),
    ("2 3", "", "", 0.01), ("2 3", "", 90, 0.01, 30_000_000),
)


def write_csv(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def write_tables(folder):
    layers, students = Path(folder) / "layers.csv", Path(folder) / "students.csv"
    write_csv(layers, [{"layer": i} | {name: of[i] for name, of in MEASURED.items()} for i in range(4)])
    write_csv(students, [
        {"softmax_layers": kept, "settings": settings, "distillation_tokens": (*tokens, 10_000_000)[0], "kl": kl}
        | {f"ruler_{length}": ruler for length in predictors.LENGTHS}
        | {f"{kind}_{length}": 0.01 * float(ruler or 0) for kind in predictors.KINDS for length in predictors.LENGTHS}
        for kept, settings, ruler, kl, *tokens in STUDENTS
    ])
    return layers, students


class Predictors(unittest.TestCase):
    def test_correlates_ranks(self):
        # Six times the squared differences (1 + 1 + 0 + 0 = 2) over n (n^2 - 1) = 60.
        self.assertAlmostEqual(predictors.rank_correlation(np.array([1, 2, 3, 4]), np.array([20, 10, 30, 400])), 0.8)
        self.assertEqual(list(predictors.ranks(np.array([0.5, 0.1, 0.5, 0.9]))), [1.5, 0, 1.5, 3])

    def test_counts_sets_that_differ_in_layers_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            _, students = write_tables(folder)
            found = predictors.read_students(students, 2, 10_000_000)
        self.assertEqual(sorted(found), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
        self.assertEqual(found[2, 3][0], 10)

    def test_prints_a_table(self):
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed):
            sys.argv = ["predictors.py", *map(str, write_tables(folder)), "--layers", "2"]
            predictors.main()
        rows = {cells[1].strip(): [float(cell.split()[0]) for cell in cells[2:5]]
                for cells in (line.split("|") for line in printed.getvalue().splitlines() if "±" in line)}
        self.assertEqual(rows["recall_kl_when_linear"][0], 1.0)
        self.assertGreater(rows["recall_when_linear"][0], 0.9)
        self.assertLess(rows["kl_when_linear"][0], 0)
        self.assertLess(rows["recall_kl_when_linear"][2], 0)


if __name__ == "__main__":
    unittest.main()
