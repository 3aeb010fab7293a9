#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the results of tests/gpu/correctness.sh on two machines and fails where they differ by more than they may.

Logits by relative error (Frobenius norm) of each to the reference's in the same type; greedy tokens and the selected
layers must be equal; scores and evaluation by their largest difference, nat/token.

usage: compare.py REFERENCE_FOLDER OTHER_FOLDER [--csv FILE]
"""
import argparse
import csv
import sys
from pathlib import Path

import h5py
import numpy as np

LOGITS = {"float32": 1e-4, "bfloat16": 2e-2}  # relative error
TOKENS_DIFFERENT = 0.0  # share, fp32
NATS = 1e-3  # scores and evaluation of a whole quickstart run, fp32


def read(folder, name, dataset):
    with h5py.File(folder / name) as file:
        return file[dataset][()]


def compare(reference, other):
    """Rows (what, value, largest allowed)."""
    for model in ("teacher", "hybrid"):
        for precision, allowed in LOGITS.items():
            a, b = (read(folder, f"{model}-{precision}.h5", "logits").astype(np.float64) for folder in (reference, other))
            yield f"logits {model} {precision}: relative error", float(np.linalg.norm(b - a) / np.linalg.norm(a)), allowed
        a, b = (read(folder, f"{model}-generated.h5", "generated") for folder in (reference, other))
        yield f"greedy tokens {model}: share that differs", float(np.mean(a != b)), TOKENS_DIFFERENT
    a, b = (read(folder, "scores.h5", "score") for folder in (reference, other))
    yield "quickstart scores: largest difference", float(np.abs(b - a).max()), NATS
    a, b = (set(read(folder, "selection.h5", "layers").tolist()) for folder in (reference, other))
    yield "quickstart selection: layers that differ", float(len(a ^ b)), 0.0
    for dataset in ("kl", "loss"):
        a, b = (read(folder, "evaluation.h5", dataset) for folder in (reference, other))
        yield f"quickstart evaluation {dataset}: largest difference", float(np.abs(b - a).max()), NATS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--csv", type=Path)
    a = parser.parse_args()
    rows = [(what, f"{value:.3g}", f"{allowed:.3g}", "yes" if value <= allowed else "NO") for what, value, allowed in compare(a.reference, a.other)]
    table = [("quantity", "value", "allowed", "within")] + rows
    for row in table:
        print(",".join(row))
    if a.csv:
        with open(a.csv, "w", newline="") as stream:
            csv.writer(stream).writerows(table)
    sys.exit(any(row[3] == "NO" for row in rows))


if __name__ == "__main__":
    main()
