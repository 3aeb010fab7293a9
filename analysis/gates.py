# SPDX-License-Identifier: Apache-2.0
"""What the report shows of gates that were trained between both kinds of layers."""

import matplotlib.pyplot as plt
import numpy as np

import page
import plots


def by_step(run, size=plots.WIDE):
    """Every layer's gate, and the losses that they were trained on, against the step."""
    gates = run.scores.gates
    chosen = set(map(int, run.selection.layers)) if run.selection else set()
    plt.rcParams.update(plots.STYLE)
    figure, (above, below) = plt.subplots(2, 1, figsize=(size[0], 1.5 * size[1]), layout="constrained", sharex=True)
    for layer, course in enumerate(gates.value.T):
        colour = plots.SOFTMAX if layer in chosen else plots.LINEAR
        above.plot(course, color=colour, linewidth=1.4 if layer in chosen else 0.9, zorder=4 if layer in chosen else 3)
    steps = len(gates.value) - 1
    low, high = gates.value.min(), gates.value.max()
    distance = 0.055 * max(high - low, 1e-6)  # gates of a low penalty all stay near 1
    positions = plots.spread(gates.value[-1], distance)
    for layer, height in enumerate(positions):
        above.text(1.01 * steps, height, str(layer), fontsize=7.5, va="center",
                   color=plots.SOFTMAX if layer in chosen else plots.LINEAR)
    above.set_ylabel("gate")
    losses = ((gates.kl, "text"), (gates.recall_kl, "answers"), (gates.far_kl, "far context"),
              (gates.state_error, "states at answers"))
    for (loss, name), colour in zip(losses, plots.RUNS):
        if loss is not None:
            below.plot(np.arange(steps), loss, color=colour, label=name)
    below.set_xlabel("step")
    below.set_ylabel("KL to the teacher (nat/token)" if gates.kl is not None else "squared error of states")
    below.legend()
    return plots.to_svg(figure, f"Gates of {run.name} by step")


def section(run):
    gates = run.scores.gates
    caption = (f"Of each layer, between the teacher's attention (1) and the aligned linear mixer (0), trained all at once "
               f"on {plots.short_number(gates.tokens)} tokens in {gates.seconds:.0f} s. Orange: the chosen layers. Below: "
               f"{'the KL' if gates.kl is not None else 'the error of the states'} of the batches.")
    return page.figure(by_step(run), "Gates", caption, narrow=by_step(run, plots.NARROW))
