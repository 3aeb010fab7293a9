# SPDX-License-Identifier: Apache-2.0
"""Recall in the report: the picture of depth against length, accuracy by length, and the table."""

from html import escape

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

import page
import plots
from table import NOT_THERE, mean_and_error, with_error

WORDS = {"noise": "in noise", "text": "in text", "four_keys": "among four keys", "pairs": "in a list of pairs",
         "passages": "passages that begin again", "chains": "through two aliases"}


def words(kind):
    return WORDS.get(kind, kind)


def heat_maps(run, columns=4):
    """Fraction of right answers by depth and length: one map for each kind and model, so many in a row."""
    recall = run.evaluation.recall if run.evaluation is not None else None
    if recall is None:
        return None
    models, kinds = run.evaluation.model, recall.kind
    columns = min(columns, len(kinds))
    blocks = -(-len(kinds) // columns)
    plt.rcParams.update(plots.STYLE)
    figure, grid = plt.subplots(blocks * len(models), columns, squeeze=False, layout="constrained",
                                figsize=(2.2 * columns + 0.4, (0.75 + 0.21 * len(recall.depth)) * blocks * len(models)))
    for axes in grid.flat:
        axes.set_visible(False)
    for number, kind in enumerate(kinds):
        for row, model in enumerate(models):
            axes = grid[number // columns * len(models) + row][number % columns]
            axes.set_visible(True)
            draw_map(axes, recall, recall.accuracy[row, number])
            axes.set_title(f"{plots.plain(model)}, {words(kind)}", fontsize=9)
            if number % columns == 0:
                axes.set_ylabel("depth (%)")
            if row == len(models) - 1:
                axes.set_xlabel("length (tokens)")
    return plots.to_svg(figure, f"Recall by depth and length of {run.name}")


def draw_map(axes, recall, accuracy):
    """accuracy: [lengths, depths]."""
    axes.imshow(accuracy.T, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_xticks(range(len(recall.length)), [plots.short_number(length) for length in recall.length])
    axes.set_yticks(range(len(recall.depth)), [str(depth) for depth in recall.depth])
    for length in range(len(recall.length)):
        for depth in range(len(recall.depth)):
            axes.text(length, depth, f"{100 * accuracy[length, depth]:.0f}", ha="center", va="center", fontsize=8,
                      color="#1f252b" if 0.15 < accuracy[length, depth] < 0.85 else "white")


def by_length(runs):
    """Fraction of right answers, over kinds and depths, against length; the teacher is drawn once, from the first run."""
    figure, axes = plots.new_figure()
    teacher_drawn = False
    lengths = set()
    for run, (colour, dash) in zip(runs, plots.run_colours(len(runs))):
        recall = run.evaluation.recall if run.evaluation is not None else None
        if recall is None:
            continue
        for index, model in enumerate(run.evaluation.model):
            style = {"color": colour, "linestyle": dash, "label": plots.plain(run.name if len(runs) > 1 else model)}
            if model == "teacher":
                if teacher_drawn:
                    continue
                teacher_drawn = True
                style = {"color": plots.TEACHER, "linestyle": "--", "label": "teacher"}
            points = [mean_and_error(recall.right[index, :, place]) for place in range(len(recall.length))]
            axes.errorbar(recall.length, [mean for mean, _ in points], [error for _, error in points], marker="o",
                          markersize=4, elinewidth=1, capsize=2, **style)
            lengths.update(map(int, recall.length))
    if not lengths:
        plt.close(figure)
        return None
    axes.set_xscale("log")
    axes.set_xticks(sorted(lengths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plots.short_number))
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("length of the question (tokens)")
    axes.set_ylabel("fraction of answers right")
    axes.legend()
    return plots.to_svg(figure, "Recall by length")


def table(run):
    """Fraction of right answers by model, kind and length."""
    recall = run.evaluation.recall
    titles = (["model", "kind"] + [f"fraction right at {length} tokens" for length in recall.length]
              + ["answer's loss (nat/token)"])
    rows = []
    for index, model in enumerate(run.evaluation.model):
        for number, kind in enumerate(recall.kind):
            cells = [with_error(*mean_and_error(recall.right[index, number, place]), digits=3)
                     for place in range(len(recall.length))]
            rows.append([escape(model), escape(words(kind))] + cells + [f"{recall.answer_loss[index, number].mean():.3g}"])
    return page.table(titles, rows, words=(0, 1))


def section(run):
    """Of one run; empty if no questions were asked."""
    evaluation = run.evaluation
    if evaluation is None or evaluation.recall is None:
        return ""
    recall = evaluation.recall
    each = recall.right.shape[-1]
    html = "<h3>Recall</h3>"
    html += (f'<p class="note">{recall.right[0].size} questions to each model, {each} of each kind, length and depth. '
             "An answer is right if greedy decoding gives exactly its tokens.</p>")
    html += page.figure(heat_maps(run), "Recall by depth and length",
                        "Answers right, in %. Depth: how much of the context lies before the fact that is asked for.",
                        narrow=heat_maps(run, columns=2), why_missing=NOT_THERE)
    return html + table(run)
