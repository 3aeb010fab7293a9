# SPDX-License-Identifier: Apache-2.0
"""How far each rule's set of layers is from the best there is, over the runs of jobs/experiments/every_set.sh.

usage: every_set.py FOLDER [--csv FILE]

The run folders set-A-B-C hold the students of all sets, rule-NAME-COUNT what a rule chose. A rule's student is that of its
set. Places count the sets of the same number of layers by the students' KL, and by their recall, the best is 1.
"""
import argparse
import csv
import re
from pathlib import Path

from result_files import read_evaluation, read_selection

COLUMNS = ("layers", "kl", "recall", "recall_of_teacher", "place_by_kl", "place_by_recall", "sets", "rules")


def read_students(folder):
    """Set of layers -> (KL to the teacher, nat/token; answers right in recall questions, of the student and of the teacher)."""
    found = {}
    for path in sorted(Path(folder).glob("set-*/evaluation.h5")):
        evaluation = read_evaluation(path)
        student, teacher = evaluation.model.index("student"), evaluation.model.index("teacher")
        right = evaluation.recall.right
        layers = tuple(int(layer) for layer in path.parent.name.split("-")[1:])
        found[layers] = (float(evaluation.kl[student]), float(right[student].mean()), float(right[teacher].mean()))
    return found


def read_choices(folder):
    """(rule, number of layers) -> set of layers."""
    found = {}
    for path in sorted(Path(folder).glob("rule-*/selection.h5")):
        rule, count = re.fullmatch(r"rule-(.+)-(\d+)", path.parent.name).groups()
        found[rule, int(count)] = tuple(sorted(read_selection(path).layers))
    return found


def ranked(students, choices):
    """Rows of COLUMNS, by number of layers and KL."""
    rows = []
    for count in sorted({len(layers) for layers in students}):
        sets = {layers: found for layers, found in students.items() if len(layers) == count}
        for layers, (kl, recall, teacher) in sorted(sets.items(), key=lambda item: item[1][0]):
            rules = sorted(rule for (rule, number), chosen in choices.items() if number == count and chosen == layers)
            rows.append((" ".join(map(str, layers)), f"{kl:.4f}", f"{recall:.3f}", f"{recall / teacher:.3f}",
                         1 + sum(other[0] < kl for other in sets.values()),
                         1 + sum(other[1] > recall for other in sets.values()), len(sets), " ".join(rules)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--csv", help="also write every set to this file")
    arguments = parser.parse_args()
    students = read_students(arguments.folder)
    if not students:
        raise SystemExit(f"{arguments.folder}: no finished runs named set-LAYERS")
    rows = ranked(students, read_choices(arguments.folder))
    print("| layers | KL, nat/token | recall, of the teacher's | place by KL | by recall | of | rules |\n|---|---|---|---|---|---|---|")
    for layers, kl, _, recall, by_kl, by_recall, sets, rules in rows:
        if rules or by_kl == 1 or by_recall == 1:
            print(f"| {layers} | {kl} | {recall} | {by_kl} | {by_recall} | {sets} | {rules} |")
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
