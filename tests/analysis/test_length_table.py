# SPDX-License-Identifier: Apache-2.0
"""Tables by task and length, from samples as lm-evaluation-harness gives them."""
import math
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))

from length_table import CSV_HEADER, average, csv_lines, rows_by_length, table_by_length


def sample(length, score, words, **more):
    return {"doc": {"max_length": length}, "metrics": [str(length), *more], str(length): score,
            "arguments": [("word " * words, {})], **more}


class LengthTables(unittest.TestCase):
    def setUp(self):
        self.rows = rows_by_length(
            {"first": [sample(1024, 1.0, 10), sample(1024, 0.0, 20), sample(1024, 1.0, 30), sample(1024, 1.0, 40),
                       sample(2048, 0.5, 50, **{"4096": -1.0})],
             "second": [sample(1024, 0.0, 8), sample(1024, 0.5, 8)],
             "without_lengths": [{"doc": {}, "metrics": ["acc"], "acc": 1.0, "arguments": [("a", "b")]}]},
            lambda text: len(text.split()))

    def test_means_standard_errors_and_tokens_by_length(self):
        found = {(row.task, row.length): row for row in self.rows}
        self.assertEqual(set(found), {("first", 1024), ("first", 2048), ("second", 1024)})
        first = found["first", 1024]
        self.assertEqual((first.score, first.documents, first.tokens), (0.75, 4, 25.0))
        self.assertAlmostEqual(first.error, math.sqrt((3 * 0.0625 + 0.5625) / 3 / 4))
        self.assertEqual(found["first", 2048].score, 0.5)  # the harness's -1 for a length that was not asked is not in it
        self.assertTrue(math.isnan(found["first", 2048].error))

    def test_averages_are_over_the_tasks_that_have_documents(self):
        mean = average([row for row in self.rows if row.length == 1024])
        self.assertEqual((mean.task, mean.score), ("average of 2 tasks", 0.5))
        self.assertAlmostEqual(mean.error, math.sqrt(0.25**2 + 0.25**2) / 2)
        table = table_by_length(self.rows)
        self.assertRegex(table, r"\| second +\| 25.0 ± 25.0 \(8; 2\) +\| - +\|")
        self.assertRegex(table, r"\| average +\| 50.0 ± 17.7 \(16; 2 tasks\) +\| 50.0 \(50; 1 tasks\) +\|")

    def test_csv_has_a_line_for_each_cell_and_average(self):
        lines = csv_lines("teacher", self.rows)
        self.assertEqual(len(lines), 5)
        self.assertIn("teacher,second,1024,0.25,0.25,2,8.0", lines)
        self.assertEqual({line.count(",") for line in lines}, {CSV_HEADER.count(",")})
        self.assertEqual(csv_lines("teacher", []), [])


if __name__ == "__main__":
    unittest.main()
