# SPDX-License-Identifier: Apache-2.0
"""The races for learning rates as a table of the report."""

import numpy as np

import page
from table import format_value, with_error


def table_of(found):
    """HTML: a row for what each stage took, one below it for each trial. Empty if no rate was automatic."""
    rows = []
    for rates in found:
        with_rest = rates.stage != "align"
        how = f"{len(rates.learning_rate)} trials of {rates.trial_steps} steps" if rates.learning_rate.size else \
            "rule of thumb, no trials"
        taken = np.isfinite(rates.chosen).all()
        rows.append([f"<b>{rates.stage}</b>", bold(rate(rates.chosen[0])) if taken else "not chosen yet",
                     bold(rate(rates.chosen[1])) if taken and with_rest else "", how])
        for mixers, rest, losses in zip(rates.learning_rate, rates.learning_rate_rest, rates.held_out_loss):
            error = losses.std(ddof=1) / np.sqrt(losses.size) if losses.size > 1 else float("nan")
            loss = with_error(float(losses.mean()), error) if np.isfinite(losses).all() else "diverged"
            rows.append(["", rate(mixers), rate(rest) if with_rest else "", loss])
    if not rows:
        return ""
    return "<h3>Learning rates that were found</h3>" + page.table(
        ["stage", "mixers", "rest", "held-out loss of the trial"], rows)


def rate(value):
    return format_value(float(value))


def bold(words):
    return f"<b>{words}</b>"
