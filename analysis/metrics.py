# SPDX-License-Identifier: Apache-2.0
"""Reads metrics.csv, the log of training steps of a run (format: outputs/README.md)."""

import csv
from dataclasses import dataclass, field

import numpy as np

STAGES = ("align", "score", "distill", "finetune")
NUMBERS = ("time_s", "tokens", "loss", "gradient_norm", "learning_rate", "tokens_per_second", "memory_gib")


@dataclass
class Curve:
    """One series of steps: a stage, or one candidate or layer of it. All arrays have one entry per logged step."""

    step: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    gradient_norm: np.ndarray
    learning_rate: np.ndarray
    tokens_per_second: np.ndarray
    memory_gib: np.ndarray


@dataclass
class Metrics:
    """The rows of metrics.csv. `rows` maps (stage, candidate, layer, step) to its last row; None stands for empty."""

    rows: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    bad_lines: int = 0

    def stages(self):
        present = {key[0] for key in self.rows}
        return [stage for stage in STAGES if stage in present]

    def curve(self, stage, candidate=None, layer=None):
        """The series of a stage in order of steps, or None if nothing is logged for it."""
        keys = sorted(key for key in self.rows if key[:3] == (stage, candidate, layer))
        if not keys:
            return None
        columns = {name: np.array([self.rows[key][name] for key in keys]) for name in NUMBERS if name != "time_s"}
        return Curve(step=np.array([key[3] for key in keys]), **columns)

    def layers(self, stage):
        return sorted({key[2] for key in self.rows if key[0] == stage and key[2] is not None})

    def candidates(self, stage):
        return sorted({key[1] for key in self.rows if key[0] == stage and key[1] is not None})


def read_metrics(path):
    """Reads the file; a line that is cut short (the run was killed while writing) is counted, not fatal."""
    metrics = Metrics()
    timeline = []
    with open(path, newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            if None in record or None in record.values():  # more or fewer fields than the header names
                metrics.bad_lines += 1
                continue
            try:
                key = (record["stage"], optional_int(record["candidate"]), optional_int(record["layer"]),
                       int(record["step"]))
                row = {name: optional_float(record[name]) for name in NUMBERS}
                if key[0] not in STAGES:
                    raise ValueError(f"stage {key[0]}")
            except (KeyError, ValueError):
                metrics.bad_lines += 1
                continue
            metrics.rows[key] = row
            if np.isfinite(row["time_s"]):
                trained = row["tokens"] / row["tokens_per_second"] if row["tokens_per_second"] > 0 else 0.0
                timeline.append((key, row["time_s"], trained))
    metrics.seconds = wall_time_per_stage(timeline)
    return metrics


def optional_int(text):
    return int(text) if text.strip() else None


def optional_float(text):
    return float(text) if text.strip() else np.nan


def wall_time_per_stage(timeline):
    """Seconds per stage, over all processes of a run.

    time_s starts again at zero in a restarted process. A restart shows as time going back within one series, or at a
    change of stage; time going back from one candidate to the next is not one, since groups of ranks work side by side.
    A stage is charged from when it began to train: by `trained`, the seconds that its first row has behind it. What
    lies before that is "other": reading files, and stages that train nothing, such as scores of candidates as they are.
    """
    seconds = {}
    latest_of_series = {}
    latest = 0.0
    stage_start = 0.0
    stage = None
    for (row_stage, candidate, layer, _), time, trained in timeline:
        series = (row_stage, candidate, layer)
        restarted = time < latest_of_series.get(series, 0.0) or (row_stage != stage and time < latest)
        if restarted or row_stage != stage:
            if stage is not None:
                seconds[stage] = seconds.get(stage, 0.0) + latest - stage_start
            if restarted:
                latest_of_series.clear()
                latest = 0.0
            begun = max(latest, time - trained)
            seconds["other"] = seconds.get("other", 0.0) + begun - latest
            stage, stage_start = row_stage, begun
        latest_of_series[series] = time
        latest = max(latest, time)
    if stage is not None:
        seconds[stage] = seconds.get(stage, 0.0) + latest - stage_start
    return {stage: seconds[stage] for stage in (*STAGES, "other") if stage in seconds}
