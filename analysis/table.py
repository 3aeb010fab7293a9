# SPDX-License-Identifier: Apache-2.0
"""Compares runs: prints one row per run as a markdown table, then the same as CSV.

    python analysis/table.py outputs/first outputs/second [--format markdown|csv|both]
"""

import argparse
import csv
import io
import math
import sys

import numpy as np

from run_folder import RULES_WITHOUT_SCORES, read_run_folder

NOT_THERE = "not there yet"
COLUMNS = ("run", "teacher", "rule", "layers", "softmax layers", "KL", "KL error", "teacher perplexity",
           "student perplexity", "perplexity error", "teacher answers", "student answers", "answers", "teacher recall",
           "student recall", "recall error", "recall questions", "selection seconds", "ranks", "seconds")


def comparison_row(run):
    """The values of one run by column; None for what is not there yet."""
    row = dict.fromkeys(COLUMNS)
    row["run"] = run.name
    row["teacher"] = run.teacher() or None
    row["rule"] = run.selection.rule if run.selection else run.job.get("select.rule")
    layout = run.layout()
    row["layers"] = len(layout) or None
    row["softmax layers"] = " ".join(map(str, run.softmax_layers())) or "none" if layout else None
    evaluation = run.evaluation
    teacher, student = run.model_index("teacher"), run.model_index("student")
    if student is not None:
        row["KL"] = float(evaluation.kl[student])
        row["KL error"] = float(evaluation.kl_standard_error[student])
        row["student perplexity"] = float(evaluation.perplexity[student])
        row["perplexity error"] = float(evaluation.perplexity[student] * evaluation.loss_standard_error[student])
    if teacher is not None:
        row["teacher perplexity"] = float(evaluation.perplexity[teacher])
    if evaluation is not None:
        row["answers"] = evaluation.answer_count or 0
    if row["answers"]:
        row["teacher answers"] = float(evaluation.answer_accuracy[teacher]) if teacher is not None else None
        row["student answers"] = float(evaluation.answer_accuracy[student]) if student is not None else None
    if evaluation is not None:
        recall = evaluation.recall
        row["recall questions"] = int(recall.right[0].size) if recall is not None else 0
    if row["recall questions"]:
        if teacher is not None:
            row["teacher recall"] = mean_and_error(recall.right[teacher])[0]
        if student is not None:
            row["student recall"], row["recall error"] = mean_and_error(recall.right[student])
    if run.scores is not None and run.scores.complete and row["rule"] not in RULES_WITHOUT_SCORES:
        gates = run.scores.gates.seconds if run.scores.gates is not None else 0.0
        row["selection seconds"] = gates + float(np.nansum(run.scores.seconds))  # of all groups of ranks together
    provenance = run.provenance()
    row["ranks"] = provenance.ranks if provenance else None
    row["seconds"] = float(sum(run.metrics.seconds.values())) if run.metrics.seconds else None
    return row


def mean_and_error(values):
    """Mean and standard error of all values."""
    values = np.asarray(values, dtype=float).ravel()
    error = float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else 0.0
    return float(values.mean()), error


def format_value(value, digits=4):
    if value is None:
        return NOT_THERE
    if isinstance(value, float):
        return f"{value:.{digits}g}" if math.isfinite(value) else "not a number"
    return str(value)


def with_error(value, error, digits=4):
    """The value to as many decimals as its error has with two significant digits: 0.0825 ± 0.0021. Without an error:
    to so many significant digits."""
    if value is None or error is None or not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return format_value(value, digits)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def format_answers(row, model):
    return "no answers marked" if row["answers"] == 0 else format_value(row[f"{model} answers"], 3)


def format_recall(row, model):
    if row["recall questions"] == 0:
        return "not asked"
    return with_error(row["student recall"], row["recall error"], 3) if model == "student" else format_value(
        row["teacher recall"], 3)


def format_duration(seconds):
    if seconds is None:
        return NOT_THERE
    seconds = int(round(seconds))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


def to_markdown(rows):
    titles = ("run", "rule", "softmax layers", "KL (nat/token)", "perplexity: teacher", "student", "answers: teacher",
              "student", "recall: teacher", "student", "ranks", "wall time")
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for row in rows:
        cells = (row["run"], format_value(row["rule"]), format_value(row["softmax layers"]),
                 with_error(row["KL"], row["KL error"]), format_value(row["teacher perplexity"]),
                 with_error(row["student perplexity"], row["perplexity error"]), format_answers(row, "teacher"),
                 format_answers(row, "student"), format_recall(row, "teacher"), format_recall(row, "student"),
                 format_value(row["ranks"]), format_duration(row["seconds"]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def to_csv(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return stream.getvalue().rstrip("\n")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Compare runs: a markdown table, then the same as CSV.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder, outputs/NAME")
    parser.add_argument("--format", choices=("markdown", "csv", "both"), default="both")
    options = parser.parse_args(arguments)
    try:
        runs = [read_run_folder(path) for path in options.runs]
    except FileNotFoundError as error:
        sys.exit(str(error))
    for run in runs:
        for problem in run.problems:
            print(f"{run.name}: {problem}", file=sys.stderr)
    rows = [comparison_row(run) for run in runs]
    if options.format != "csv":
        print(to_markdown(rows))
    if options.format == "both":
        print()
    if options.format != "markdown":
        print(to_csv(rows))


if __name__ == "__main__":
    main()
