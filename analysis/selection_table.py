# SPDX-License-Identifier: Apache-2.0
"""Table of held-out KL and answer accuracy by selection rule and budget, over the seeds of jobs/experiments/selection_table.sh.

usage: selection_table.py FOLDER [--csv FILE]

Run folders are named RULE-kBUDGET-sSEED; phases of the uniform rule count as one rule ("uniform"), their best phase and
their mean over phases are both shown. Spreads are standard deviations over seeds.
"""
import argparse
import collections
import csv
import re
import statistics
from pathlib import Path

import h5py

from result_files import read_selection, read_selection_in_scores


def selected_layers(folder):
    """Earlier versions of Amalgam put the selection into scores.h5."""
    if (folder / "selection.h5").exists():
        return read_selection(folder / "selection.h5").layers
    return read_selection_in_scores(folder / "scores.h5").layers


def read_runs(folder):
    """Rows (rule, phase, budget, seed, layers, kl, accuracy) of all finished runs; the teacher's accuracy."""
    rows, teacher = [], None
    for path in sorted(Path(folder).glob("*/evaluation.h5")):
        match = re.fullmatch(r"([a-z_]+?)(\d*)-k(\d+)-s(\d+)", path.parent.name)
        if not match:
            continue
        rule, phase, budget, seed = match.groups()
        with h5py.File(path) as evaluation:
            names = [name.decode() for name in evaluation["model"]]
            student = names.index("student")
            teacher = float(evaluation["answer_accuracy"][names.index("teacher")])
            layers = " ".join(map(str, selected_layers(path.parent)))
            rows.append((rule, phase, int(budget), int(seed), layers, float(evaluation["kl"][student]),
                         float(evaluation["answer_accuracy"][student])))
    return rows, teacher


def spread(values):
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) if len(values) > 1 else 0:.4f}"


def by_rule(rows):
    """(budget, rule) -> (KLs, accuracies), one value a seed. Uniform: mean over phases, and the best phase of each seed."""
    table = collections.defaultdict(lambda: ([], []))
    phases = collections.defaultdict(list)
    for rule, _, budget, seed, _, kl, accuracy in rows:
        if rule == "uniform":
            phases[budget, seed].append((kl, accuracy))
            continue
        table[budget, rule][0].append(kl)
        table[budget, rule][1].append(accuracy)
    for (budget, _), found in sorted(phases.items()):
        mean = [statistics.mean(column) for column in zip(*found)]
        for rule, (kl, accuracy) in (("uniform, mean of phases", mean), ("uniform, best phase", min(found))):
            table[budget, rule][0].append(kl)
            table[budget, rule][1].append(accuracy)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--csv", help="also write every run to this file")
    arguments = parser.parse_args()
    rows, teacher = read_runs(arguments.folder)
    if not rows:
        raise SystemExit(f"{arguments.folder}: no finished runs named RULE-kBUDGET-sSEED")
    print(f"teacher: KL 0, answers right {100 * teacher:.1f} %\n")
    print("| kept layers | rule | seeds | KL to the teacher, nat/token | answers right |\n|---|---|---|---|---|")
    for (budget, rule), (kls, accuracies) in sorted(by_rule(rows).items(), key=lambda item: (item[0][0], statistics.mean(item[1][0]))):
        print(f"| {budget} | {rule} | {len(kls)} | {spread(kls)} | {spread(accuracies)} |")
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["rule", "phase", "budget", "seed", "layers", "kl", "answer_accuracy"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
