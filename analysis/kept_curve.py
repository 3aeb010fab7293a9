# SPDX-License-Identifier: Apache-2.0
"""What the report shows of the numbers of layers that could be kept: what each costs, before any distillation."""

import matplotlib.pyplot as plt
import numpy as np

import page
import plots


def by_kept(run, size=plots.WIDE):
    """KL, recall, and bytes of keys and values a token, against the number of kept layers."""
    curve = run.selection.curve
    far = [] if curve.far_kl is None else [("KL of far context (nat/token)", curve.far_kl)]
    series = [("KL (nat/token)", curve.kl), *far, ("recall", curve.recall), ("keys and values (bytes/token)", curve.cache_bytes)]
    series = [(name, values) for name, values in series if np.isfinite(values).any()]
    plt.rcParams.update(plots.STYLE)
    figure, all_axes = plt.subplots(1, len(series), figsize=size, layout="constrained", squeeze=False)
    for axes, (name, values) in zip(all_axes[0], series):
        axes.plot(curve.kept, values, color=plots.LINEAR, marker="o", markersize=3.5)
        chosen = curve.kept == len(run.selection.layers)
        axes.plot(curve.kept[chosen], values[chosen], "o", color=plots.SOFTMAX, markersize=6)
        axes.set_xlabel("softmax layers")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(plots.MaxNLocator(integer=True, nbins=6))
    return plots.to_svg(figure, f"What every number of kept layers costs in {run.name}")


def section(run):
    if run.selection is None or run.selection.curve is None:
        return ""
    caption = ("The first layers of the rule's order, aligned but not distilled: distilled students are better, so fewer "
               "layers may do. Orange: what was chosen.")
    return page.figure(by_kept(run), "How many layers", caption, narrow=by_kept(run, plots.NARROW))
