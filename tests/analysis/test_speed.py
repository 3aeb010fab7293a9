# SPDX-License-Identifier: Apache-2.0
"""speed.py on a file as amalgam measure writes it."""
import contextlib
import csv
import io
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "analysis"))
import speed


def write(path):
    """Two models, two contexts, batches of 1 and 4; the last does not fit the memory of the first model."""
    values = {
        "context": np.array([1000, 4000]), "batch": np.array([1, 4]), "copy_bandwidth": np.array(1e9),
        "weight_bytes": np.array([2e9, 3e9]), "cache_bytes": np.array([[1e6, 4e6], [5e5, 5e5]]),
        "first_token": np.array([[0.1, 0.4], [0.2, 0.8]]),
        "step": np.array([[[0.01, 0.02], [0.02, np.nan]], [[0.01, 0.01], [0.01, 0.02]]]),
        "step_floor": np.full((2, 2, 2), 0.005),
    }
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value
            file[name].attrs["crc32"] = np.int64(zlib.crc32(np.asarray(value).tobytes()))
        file["model"] = np.array([b"a/teacher", b"runs/x/checkpoints/distill.h5"])
        file.attrs.update(filetype="amalgam speed", format_version=np.array([1, 0]), device="cpu", precision="float32")


def run(*arguments):
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = speed.main(list(map(str, arguments)))
    return status, out.getvalue(), errors.getvalue()


class Speed(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.file = self.folder / "speed.h5"
        write(self.file)

    def test_table(self):
        status, out, _ = run(self.file, "--names", "teacher,student")
        self.assertEqual(status, 0)
        rows = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual(len(rows), 8)
        first, without = rows[1], rows[3]
        self.assertEqual((first["model"], first["context"], first["batch"]), ("teacher", "1000", "4"))
        self.assertEqual(float(first["step_ms"]), 20)
        self.assertEqual(float(first["tokens_per_second"]), 200)
        self.assertEqual(float(first["share_of_bandwidth"]), 0.25)
        self.assertEqual(float(first["memory_gb"]), 2.004)
        self.assertEqual(without["step_ms"], "nan")

    def test_page(self):
        status, _, _ = run(self.file, "--output", self.folder / "speed.html")
        self.assertEqual(status, 0)
        page = (self.folder / "speed.html").read_text()
        self.assertEqual(page.count("<svg"), 3)
        self.assertIn("tokens/s", page)

    def test_another_or_damaged_file_is_named(self):
        with h5py.File(self.file, "r+") as file:
            file["step"][0, 0, 0] = 7.0
        status, _, errors = run(self.file)
        self.assertEqual(status, 1)
        self.assertIn("step", errors)
        with h5py.File(self.file, "r+") as file:
            file.attrs["filetype"] = "amalgam scores"
        status, _, errors = run(self.file)
        self.assertEqual(status, 1)
        self.assertIn("amalgam scores", errors)


if __name__ == "__main__":
    unittest.main()
