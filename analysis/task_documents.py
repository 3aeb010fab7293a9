# SPDX-License-Identifier: Apache-2.0
"""Copied as documents.py into folders of questions (analysis/task_folder.py): reads the files that lie beside it."""

import json
from pathlib import Path

from datasets import Dataset

FOLDER = Path(__file__).resolve().parent


def load(file, split, **_):
    """{split: documents}, as lm-evaluation-harness's `custom_dataset` wants them."""
    with open(FOLDER / file, encoding="utf-8") as lines:
        return {split: Dataset.from_list([json.loads(line) for line in lines])}
