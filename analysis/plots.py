# SPDX-License-Identifier: Apache-2.0
"""The figures of the report: each function returns an inline SVG, or None if there is nothing to show yet."""

import io
import re
from html import escape

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from result_files import NO_LAYER

SOFTMAX = "#c2410c"
LINEAR = "#7d94a8"
TEACHER = "#30363d"
RUNS = ["#1f6fb4", "#2e8b57", "#8e44ad", "#b8860b", "#0f8b8d", "#c2185b", "#5d6d7e", "#795548"]
DASHES = ["-", "--", "-.", ":"]
SMALL = (4.6, 2.9)
WIDE = (8.6, 3.4)
NARROW = (4.6, 3.2)
MAXIMUM_POINTS = 300

STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5,
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#8a949e", "axes.labelcolor": "#30363d",
    "axes.grid": True, "grid.color": "#e6e9ed", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "xtick.color": "#56606a", "ytick.color": "#56606a", "lines.linewidth": 1.7, "legend.frameon": False,
    "legend.fontsize": 8.8, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}

counter = 0


def new_figure(size=SMALL):
    plt.rcParams.update(STYLE)
    return plt.subplots(figsize=size, layout="constrained")


def shorten(tag):
    """A page has tens of figures: hundredths of a point are enough, groups need no ids, and the font is the page's
    (report.css)."""
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r'font-family: [^;]*; |(?<=<g) id="[^"]*"', "", tag)


def to_svg(figure, label):
    """The figure as an <svg> element that scales with the page; its ids are made unique in the page."""
    global counter
    counter += 1
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg"):]
    prefix = f"plot{counter}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r"<[^>]*>", lambda tag: shorten(tag[0]), svg)
    svg = re.sub(r"\n\s+", "\n", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def plain(name):
    """A run's or model's name for matplotlib: no mathematics, not hidden from legends by a leading underscore."""
    visible = "\u200b" + name if name.startswith("_") else name
    return visible.replace("$", r"\$")


def short_number(value, _=None):
    """1500 -> 1.5k, 2e8 -> 200M."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def token_axis(axes):
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("training tokens")


def value_axis(axes, values, logarithmic):
    """A logarithmic axis for values that span more than a factor of four, with plain numbers on it."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not logarithmic or finite.size == 0 or finite.min() <= 0 or finite.max() < 4 * finite.min():
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def thin_out(x, y):
    """At most MAXIMUM_POINTS points: means over equal groups of neighbours."""
    group = -(-len(x) // MAXIMUM_POINTS)
    if group <= 1:
        return x, y
    starts = np.arange(0, len(x), group)
    sizes = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def spread(values, distance):
    """Positions at least `distance` apart, in the order of the values and as near to them as that allows."""
    order = np.argsort(values)
    placed = np.array(values, dtype=float)
    blocks = []  # (sum of wished-for first positions, number of labels)
    for index in order:
        blocks.append([placed[index], 1])
        while len(blocks) > 1:
            (above, above_size), (below, below_size) = blocks[-2], blocks[-1]
            if above / above_size + distance * above_size <= below / below_size:
                break
            total, size = blocks.pop()
            blocks[-1][0] += total - size * distance * blocks[-1][1]
            blocks[-1][1] += size
    position = 0
    for total, size in blocks:
        for offset in range(size):
            placed[order[position]] = total / size + distance * offset
            position += 1
    return placed


def run_colours(count):
    return [(RUNS[index % len(RUNS)], DASHES[(index // len(RUNS)) % len(DASHES)]) for index in range(count)]


def paired_errors(scores):
    """Standard error of each candidate's KL once the difficulty common to all candidates is taken out."""
    errors = np.full(len(scores.layer), np.nan)
    for measurement in range(len(scores.checkpoint_tokens)):
        kl = scores.kl[:, measurement]
        measured = np.isfinite(kl).all(axis=1)
        if measured.sum() < 2 or kl.shape[1] < 2:
            continue
        relative = kl[measured] - kl[measured].mean(axis=0)
        errors[measured] = relative.std(axis=1, ddof=1) / np.sqrt(kl.shape[1])
    return errors


def label_importance(axes, all_scores):
    removal = {bool(scores.of_removal()) for scores in all_scores}
    if removal == {True}:
        axes.set_xlabel("layer that alone is linear")
        far = any(scores.weighs_far_context for scores in all_scores)
        axes.set_ylabel(f"importance = KL of {'text, answers, far context' if far else 'text and answers'} (nat/token)")
    elif removal == {False}:
        axes.set_xlabel("layer whose softmax attention is restored")
        axes.set_ylabel("importance = −KL (nat/token)")
    else:
        axes.set_xlabel("layer")
        axes.set_ylabel("importance (nat/token)")


def importance(run, size=WIDE):
    scores = run.scores.of_layers() if run.scores is not None else None
    if scores is None or not np.isfinite(scores.score).any():
        return None
    chosen = set(map(int, run.selection.layers)) if run.selection else set()
    figure, axes = new_figure(size)
    colours = [SOFTMAX if int(layer) in chosen else LINEAR for layer in scores.layer]
    low = np.nanmin(scores.score - np.nan_to_num(scores.score_standard_error))
    high = np.nanmax(scores.score + np.nan_to_num(scores.score_standard_error))
    bottom = low - 0.08 * max(high - low, 1e-6)
    axes.vlines(scores.layer, bottom, scores.score, colors=colours, linewidth=1.2, alpha=0.45)
    axes.errorbar(scores.layer, scores.score, scores.score_standard_error, fmt="none", ecolor="#9aa5b0", elinewidth=1,
                  capsize=2)
    axes.errorbar(scores.layer, scores.score, paired_errors(scores), fmt="none", ecolor="#30363d", elinewidth=2.6,
                  zorder=4)
    for names, colour, marker, label in ((True, SOFTMAX, "o", "chosen: softmax"), (False, LINEAR, "s", "stays linear")):
        members = np.array([(int(layer) in chosen) == names for layer in scores.layer])
        if members.any():
            label = label if chosen else "scored"
            axes.plot(scores.layer[members], scores.score[members], marker, color=colour, markersize=5,
                      markeredgecolor="white", markeredgewidth=0.8, label=label, zorder=5)
    axes.set_ylim(bottom, high + 0.08 * max(high - low, 1e-6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    axes.grid(axis="x", visible=False)
    label_importance(axes, [scores])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, handletextpad=0.2)
    return to_svg(figure, f"Importance per layer of {run.name}")


def race(run, relative=False):
    """Held-out KL of every candidate against training tokens.

    `relative` subtracts the mean over the candidates measured at that point, which shows the order; the chosen ones are
    then labelled at the right end.
    """
    scores = run.scores
    if scores is None:
        return None
    chosen = set(map(int, run.selection.layers)) if run.selection else set()
    values = scores.kl_mean
    if relative:
        measured = np.isfinite(values).sum(axis=0)
        values = values - np.nansum(values, axis=0) / np.maximum(measured, 1)
    figure, axes = new_figure((4.6, 3.3))
    ends = []
    for candidate, layer, kl in zip(map(int, scores.candidate), map(int, scores.layer), values):
        measured = np.isfinite(kl)
        if not measured.any():
            continue
        special = layer in chosen
        axes.plot(scores.checkpoint_tokens[measured], kl[measured], color=SOFTMAX if special else LINEAR,
                  linewidth=1.6 if special else 0.9, alpha=1 if special else 0.7, marker="o", markersize=2.6,
                  zorder=4 if special else 3)
        if special or not chosen:
            ends.append((f"({candidate})" if layer == NO_LAYER else str(layer), kl[measured][-1]))
    token_axis(axes)
    if relative:
        axes.axhline(0, color="#8a949e", linewidth=0.8)
        axes.set_ylabel("KL minus mean of all (nat/token)")
        label_ends(axes, scores.checkpoint_tokens[-1], ends, SOFTMAX if chosen else LINEAR)
    else:
        value_axis(axes, values, True)
        axes.set_ylabel("held-out KL (nat/token)")
        names = [(SOFTMAX, "chosen"), (LINEAR, "not chosen")] if chosen else [(LINEAR, "scored, none chosen yet")]
        axes.legend(handles=[plt.Line2D([], [], color=colour, label=name) for colour, name in names], loc="upper right")
    relation = ", relative to their mean" if relative else ""
    return to_svg(figure, f"Held-out KL of every candidate of {run.name}{relation}")


def label_ends(axes, right, ends, colour):
    """Names at the right ends of lines, moved apart where they would overlap."""
    axes.set_xlim(right=max(1.1 * right, 1))
    axes.figure.canvas.draw()
    heights = [axes.transData.transform((right, kl))[1] for _, kl in ends]
    line = 9 * axes.figure.dpi / 72
    for (name, _), height in zip(ends, spread(heights, line)):
        axes.text(1.025 * right, axes.transData.inverted().transform((0, height))[1], name, fontsize=8, color=colour,
                  fontweight="bold", va="center")


def loss_curve(runs, stage):
    """Training loss of a stage: one line per run."""
    figure, axes = new_figure()
    values = []
    for run, (colour, dash) in zip(runs, run_colours(len(runs))):
        curve = run.metrics.curve(stage)
        if curve is None:
            continue
        tokens, loss = thin_out(curve.tokens, curve.loss)
        values.append(loss)
        axes.plot(tokens, loss, color=colour, linestyle=dash, label=plain(run.name))
    if not values:
        plt.close(figure)
        return None
    value_axis(axes, np.concatenate(values), True)
    token_axis(axes)
    names = {"align": "mean alignment loss", "finetune": "loss (nat/token)"}
    axes.set_ylabel(names.get(stage, "training KL (nat/token)"))
    if len(runs) > 1:
        axes.legend()
    return to_svg(figure, f"Loss of the stage {stage}")


def candidate_losses(run):
    """Training loss of the candidates while they are scored."""
    candidates = run.metrics.candidates("score")
    if not candidates:
        return None
    layer_of = {} if run.scores is None else dict(zip(map(int, run.scores.candidate), map(int, run.scores.layer)))
    chosen = set(map(int, run.selection.layers)) if run.selection else set()
    figure, axes = new_figure()
    values = []
    for candidate in candidates:
        layer = layer_of.get(candidate)
        curve = run.metrics.curve("score", candidate)
        if curve is None:
            continue
        tokens, loss = thin_out(curve.tokens, curve.loss)
        values.append(loss)
        special = layer in chosen
        axes.plot(tokens, loss, color=SOFTMAX if special else LINEAR, linewidth=1.2, alpha=0.95 if special else 0.55,
                  zorder=4 if special else 3)
    if not values:
        plt.close(figure)
        return None
    value_axis(axes, np.concatenate(values), True)
    token_axis(axes)
    axes.set_ylabel("training KL (nat/token)")
    return to_svg(figure, f"Training loss of every candidate of {run.name}")


def gradient_norms(run):
    """Gradient norm of the stages that train the whole student."""
    figure, axes = new_figure()
    values = []
    for stage, colour in (("distill", RUNS[0]), ("finetune", RUNS[1])):
        curve = run.metrics.curve(stage)
        if curve is None:
            continue
        tokens, norm = thin_out(curve.tokens, curve.gradient_norm)
        values.append(norm)
        axes.plot(tokens, norm, color=colour, label=stage)
    if not values:
        plt.close(figure)
        return None
    value_axis(axes, np.concatenate(values), True)
    token_axis(axes)
    axes.set_ylabel("gradient norm")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return to_svg(figure, f"Gradient norm of {run.name}")


def align_heat_map(run):
    """Alignment loss of every layer against steps, as colours."""
    curves = [(layer, run.metrics.curve("align", None, layer)) for layer in run.metrics.layers("align")]
    curves = [(layer, curve) for layer, curve in curves if curve is not None]
    if not curves:
        return None
    steps = np.unique(np.concatenate([curve.step for _, curve in curves]))
    image = np.full((curves[-1][0] + 1, len(steps)), np.nan)
    for layer, curve in curves:
        image[layer, np.searchsorted(steps, curve.step)] = curve.loss
    figure, axes = new_figure()
    positive = image[np.isfinite(image) & (image > 0)]
    if positive.size == 0:
        plt.close(figure)
        return None
    norm = matplotlib.colors.LogNorm(positive.min(), max(positive.max(), positive.min() * 1.01))
    shown = axes.imshow(image, aspect="auto", origin="lower", interpolation="nearest", cmap="YlGnBu", norm=norm,
                        extent=(steps[0], max(steps[-1], steps[0] + 1), -0.5, len(image) - 0.5))
    axes.grid(visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.set_xlabel("step")
    axes.set_ylabel("layer")
    bar = figure.colorbar(shown, ax=axes, label="loss", pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return to_svg(figure, f"Alignment loss of every layer of {run.name}")


def by_position(runs, quantity):
    """Perplexity or KL against the position in the sequence; the teacher is drawn once, from the first run."""
    figure, axes = new_figure()
    values = []
    teacher_drawn = False
    several = len(runs) > 1
    for run, (colour, dash) in zip(runs, run_colours(len(runs))):
        evaluation = run.evaluation
        if evaluation is None:
            continue
        table = getattr(evaluation, f"{quantity}_by_position")
        edges = evaluation.position_edges
        student = run.model_index("student")
        extra = 0
        for index, model in enumerate(evaluation.model):
            if model == "teacher":
                if quantity == "kl" or teacher_drawn:
                    continue
                teacher_drawn = True
                style = dict(color=TEACHER, linestyle=(0, (3, 2)), label="teacher")
            elif index == student:
                style = dict(color=colour, linestyle=dash, label=plain(run.name if several else model))
            elif several:
                continue
            else:
                extra += 1
                style = dict(color=RUNS[extra % len(RUNS)], label=plain(model))
            axes.plot((edges[:-1] + edges[1:]) / 2, table[index], marker="o", markersize=3.2, **style)
            values.append(table[index])
    if not values:
        plt.close(figure)
        return None
    value_axis(axes, np.concatenate(values), True)
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("position in the sequence (tokens)")
    axes.set_ylabel("perplexity" if quantity == "perplexity" else "KL to the teacher (nat/token)")
    axes.legend()
    return to_svg(figure, f"{quantity} by position")


def trade_off(rows):
    """Recall of each student against its KL, and against what the selection of its layers cost; rows of table.py."""
    shown = [(row, colour) for row, (colour, _) in zip(rows, run_colours(len(rows)))
             if row["student recall"] is not None and row["KL"] is not None]
    if len(shown) < 2:
        return None
    plt.rcParams.update(STYLE)
    figure, (by_kl, by_cost) = plt.subplots(1, 2, figsize=WIDE, layout="constrained", sharey=True)
    for row, colour in shown:
        mark = {"color": colour, "marker": "o", "markersize": 5, "linestyle": "", "elinewidth": 1}
        by_kl.errorbar(row["KL"], row["student recall"], row["recall error"], row["KL error"], label=plain(row["run"]), **mark)
        # Rules without scores cost nothing, for which a logarithmic axis has no place: they stand at its left end.
        cost = max(row["selection seconds"] or 0.0, 1.0)
        by_cost.errorbar(cost, row["student recall"], row["recall error"], **mark)
    teacher = next((row["teacher recall"] for row, _ in shown if row["teacher recall"] is not None), None)
    if teacher is not None:
        for axes in (by_kl, by_cost):
            axes.axhline(teacher, color=TEACHER, linewidth=1, linestyle="--")
    by_kl.set_xlabel("KL to the teacher, nat/token")
    by_kl.set_ylabel("recall")
    by_cost.set_xscale("log")
    by_cost.set_xlim(left=0.8)
    by_cost.set_xlabel("selection, s (1: at most that)")
    figure.legend(loc="outside upper center", ncols=4)
    return to_svg(figure, "Recall against KL and against the cost of the selection")


def importance_overlay(runs, size=WIDE):
    """Importance of each layer, one line per run."""
    figure, axes = new_figure(size)
    drawn = 0
    for index, (run, (colour, dash)) in enumerate(zip(runs, run_colours(len(runs)))):
        if run.scores is None:
            continue
        scores = run.scores.of_layers()
        if len(scores.layer) == 0:
            continue
        order = np.argsort(scores.layer)
        shift = (index - (len(runs) - 1) / 2) * 0.12
        axes.errorbar(scores.layer[order] + shift, scores.score[order], scores.score_standard_error[order],
                      color=colour, linestyle=dash, marker="o", markersize=4, linewidth=1.2, elinewidth=1,
                      label=plain(run.name))
        drawn += 1
    if drawn == 0:
        plt.close(figure)
        return None
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=15))
    label_importance(axes, [run.scores for run in runs if run.scores is not None])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(drawn, 3))
    return to_svg(figure, "Importance per layer of every run")
