# SPDX-License-Identifier: Apache-2.0
"""The soak for some twenty seconds, and whether it would notice if something were wrong."""

import os
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import results  # noqa: E402
import soak  # noqa: E402
from run_under_mpi import stage_of, stage_seconds  # noqa: E402


class Soak(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="amalgam-soak-"))
        arguments = soak.parse(["--program", os.environ["AMALGAM_BINARY"], "--minutes", "0.25", "--steps", "3",
                                "--disk", os.environ["AMALGAM_SIMULATED_DISK_LIBRARY"], "--seed", "1",
                                "--folder", str(cls.folder / "soak")])
        cls.soak = soak.Soak(arguments)
        cls.soak.run(60.0 * arguments.minutes)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_rounds_end_with_the_bits_of_an_undisturbed_run(self):
        self.soak.print_table()
        self.assertGreaterEqual(self.soak.rounds, 1)
        self.assertGreaterEqual(self.soak.starts, 2)

    def test_other_results_are_noticed(self):
        runs = self.soak.runs
        self.assertEqual(results.differences(runs / "undisturbed", runs / "soak"), [])
        copy = self.folder / "copy"
        shutil.copytree(runs / "soak", copy)
        results.flip_bit(copy / "student" / "model.safetensors")
        results.flip_bit(copy / "scores.h5", "kl")
        (copy / "selection.h5").unlink()
        (copy / "checkpoints" / "distill.h5.tmp").touch()
        wrong = results.differences(runs / "undisturbed", copy)
        for part in ("student/model.safetensors", "scores.h5", "selection.h5: missing", "distill.h5.tmp: left over"):
            self.assertTrue(any(part in text for text in wrong), (part, wrong))

    def test_a_wrong_exit_code_ends_it(self):
        self.soak.job_file.write_text('{"align": {"tokens": "many"}}')
        with self.assertRaises(soak.Failure):
            self.soak.round(lambda: True)


class Output(unittest.TestCase):
    def test_tells_the_stage(self):
        self.assertEqual(stage_of(""), "start")
        self.assertEqual(stage_of("transfer: done before\nalign: goes on from step 2"), "align")
        self.assertEqual(stage_of("align: finished in 2.0\n"), "score")
        self.assertEqual(stage_of("score candidate 3  step 2/2  loss 1\n"), "score")
        self.assertEqual(stage_seconds("x info align: finished in 1:05\n"), {"align": 65.0})


if __name__ == "__main__":
    unittest.main()
