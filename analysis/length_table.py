# SPDX-License-Identifier: Apache-2.0
"""Scores of tasks that ask at several lengths (RULER), by task and length, with standard errors over the documents."""

import math
from dataclasses import dataclass

CSV_HEADER = "model,task,length,score,standard_error,documents,prompt_tokens"


@dataclass
class Row:
    task: str
    length: int  # nominal
    score: float
    error: float  # standard error of the score; NaN for a single document
    documents: int
    tokens: float  # what a prompt of this length really holds, mean


def rows_by_length(samples, count_tokens):
    """From the harness's samples: a document says its length in `max_length`, a metric of that name is its score."""
    rows = []
    for task, found in samples.items():
        by_length = {}
        for sample in found:
            length = sample["doc"].get("max_length")
            if str(length) in sample["metrics"]:  # the harness's own RULER adds one of -1 for 4096
                by_length.setdefault(length, []).append(sample)
        for length, group in sorted(by_length.items()):
            scores = [sample[str(length)] for sample in group]
            tokens = [count_tokens(sample["arguments"][0][0]) for sample in group]
            mean = sum(scores) / len(scores)
            squares = sum((score - mean) ** 2 for score in scores)
            error = math.sqrt(squares / (len(scores) - 1) / len(scores)) if len(scores) > 1 else math.nan
            rows.append(Row(task, length, mean, error, len(scores), sum(tokens) / len(tokens)))
    return rows


def average(rows):
    """Plain mean over the tasks; the errors of their scores are independent."""
    count = len(rows)
    return Row(f"average of {count} tasks", rows[0].length, sum(row.score for row in rows) / count,
               math.sqrt(sum(row.error**2 for row in rows)) / count, sum(row.documents for row in rows),
               sum(row.tokens for row in rows) / count)


def with_averages(rows):
    lengths = sorted({row.length for row in rows})
    return rows + [average([row for row in rows if row.length == length]) for length in lengths]


def table_by_length(rows):
    """Markdown. A cell: score in %, its standard error, the prompt's mean tokens, documents."""
    lengths = sorted({row.length for row in rows})
    cells = {}
    for row in with_averages(rows):
        task = "average" if row.task.startswith("average") else row.task
        count = row.task.split()[2] + " tasks" if task == "average" else str(row.documents)
        error = "" if math.isnan(row.error) else f" ± {100 * row.error:.1f}"
        cells[task, row.length] = f"{100 * row.score:.1f}{error} ({row.tokens:.0f}; {count})"
    tasks = list(dict.fromkeys(task for task, _ in cells))
    header = ["task \\ length", *map(str, lengths)]
    lines = [header, ["---"] * len(header)]
    lines += [[task, *(cells.get((task, length), "-") for length in lengths)] for task in tasks]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join(["score in % ± standard error (mean tokens of a prompt; documents)", *text])


def csv_lines(model, rows):
    return [f"{model},{row.task},{row.length},{row.score:.6g},{row.error:.6g},{row.documents},{row.tokens:.1f}"
            for row in (with_averages(rows) if rows else [])]
