# SPDX-License-Identifier: Apache-2.0
"""Reads learning_rates/STAGE.h5: the race that found the automatic learning rates of a stage."""

from dataclasses import dataclass

import numpy as np

from result_files import Provenance, expect_shapes, read_provenance, read_with, text

ORDER = ("align", "score", "distill", "finetune")


@dataclass
class LearningRates:
    """Arrays: T trials, B held-out batches; rates are of mixers and of the rest."""

    stage: str
    rule: np.ndarray  # [2]
    chosen: np.ndarray  # [2], NaN while the race goes on
    learning_rate: np.ndarray  # [T]
    learning_rate_rest: np.ndarray  # [T]
    held_out_loss: np.ndarray  # [T, B], not finite where a trial diverged
    trial_steps: int
    trial_sequence_length: int
    provenance: Provenance


def read_learning_rates(path):
    def reader(file):
        trials = "position" in file
        if trials:
            expect_shapes(file, {"learning_rate": "T", "learning_rate_rest": "T", "held_out_loss": "TB", "seconds": "T"})
        return LearningRates(
            stage=text(file.attrs["stage"]), rule=file["rule"][:], chosen=file["chosen"][:],
            learning_rate=file["learning_rate"][:] if trials else np.empty(0),
            learning_rate_rest=file["learning_rate_rest"][:] if trials else np.empty(0),
            held_out_loss=file["held_out_loss"][:] if trials else np.empty((0, 0)),
            trial_steps=int(file.attrs["trial_steps"]), trial_sequence_length=int(file.attrs["trial_sequence_length"]),
            provenance=read_provenance(file))

    return read_with(path, "amalgam learning rates", reader)


def in_order(found):
    return sorted(found, key=lambda rates: ORDER.index(rates.stage) if rates.stage in ORDER else len(ORDER))
