# SPDX-License-Identifier: Apache-2.0
"""Which measurement of single layers foretells the students: rank correlations over sets of layers, in Markdown.

usage: predictors.py LAYERS.csv STUDENTS.csv [--layers COUNT] [--tokens TOKENS]

LAYERS.csv has a row a layer (analysis/results/selection/smollm2-layers.csv), STUDENTS.csv a row a student (smollm2.csv).
Counted are students with RULER, of COUNT kept layers (8), distilled on TOKENS tokens (10 million), of seed 0, trained
without questions and with the default mixer.
What was measured of the kept layers is added up, and correlated (Spearman) with the students' RULER (mean of the lengths),
their recall (mean of noise, text and four keys) and minus their KL; students of one set count as one, by their means.
Behind each: its standard deviation over 1000 resamplings of the sets.
"""
import argparse
import csv

import numpy as np

LENGTHS = (1024, 2048, 4096)
KINDS = ("noise", "text", "four_keys")
# Of other seeds, other training or another mixer: no choice of layers.
OTHER_STUDENTS = ("seed", "fraction", "convolution", "documents")
# Smaller for layers that are needed more, unlike the others.
FALLING = ("recall_when_linear", "recall_when_ablated", "kl_when_restored_distilled", "kl_when_restored_aligned")
SUMS = {"kl_when_linear + recall_kl_when_linear": ("kl_when_linear", "recall_kl_when_linear")}


def read_measurements(path):
    """Name -> number of each layer, larger for layers that are needed more."""
    with open(path, newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["layer"]))
    found = {
        name: np.array([float(row[name]) for row in rows]) * (-1 if name in FALLING else 1)
        for name in rows[0]
        if name != "layer"
    }
    return found | {name: sum(found[part] for part in parts) for name, parts in SUMS.items()}


def read_students(path, count, tokens):
    """Set of layers -> RULER, recall, minus KL."""
    found = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            layers = row["softmax_layers"].split()
            is_other = any(word in row["settings"] for word in OTHER_STUDENTS)
            if len(layers) != count or row["distillation_tokens"] != str(tokens) or not row["ruler_1024"] or is_other:
                continue
            ruler = np.mean([float(row[f"ruler_{length}"]) for length in LENGTHS])
            recall = np.mean([float(row[f"{kind}_{length}"]) for kind in KINDS for length in LENGTHS])
            found.setdefault(tuple(int(layer) for layer in layers), []).append((ruler, recall, -float(row["kl"])))
    return {layers: np.mean(students, axis=0) for layers, students in found.items()}


def ranks(numbers):
    """From 0; equal numbers have the mean of their ranks."""
    order = np.argsort(numbers, kind="stable")
    result = np.empty(len(numbers))
    result[order] = np.arange(len(numbers))
    for number in np.unique(numbers):
        result[numbers == number] = result[numbers == number].mean()
    return result


def rank_correlation(a, b):
    return np.corrcoef(ranks(a), ranks(b))[0, 1]


def resampling_error(a, b, samples=1000):
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(a), len(a)) for _ in range(samples)]
    # One set over and over has no order.
    ordered = [places for places in drawn if len(np.unique(a[places])) > 1 and len(np.unique(b[places])) > 1]
    return np.std([rank_correlation(a[places], b[places]) for places in ordered])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("measurements")
    arguments.add_argument("students")
    arguments.add_argument("--layers", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=10_000_000)
    given = arguments.parse_args()
    students = read_students(given.students, given.layers, given.tokens)
    if len(students) < 3:
        raise SystemExit(f"{given.students}: {len(students)} sets of {given.layers} layers have RULER, 3 are needed")
    results = np.array(list(students.values()))
    print(f"{len(students)} sets of {given.layers} layers\n")
    print("| measured of a layer | RULER | recall | KL |\n|---|---|---|---|")
    for name, of_layer in read_measurements(given.measurements).items():
        # Rounded: equal sums of decimals must tie, in whatever order they were added.
        sums = np.round([of_layer[list(layers)].sum() for layers in students], 9)
        cells = (f"{rank_correlation(sums, r):+.2f} ± {resampling_error(sums, r):.2f}" for r in results.T)
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
