# SPDX-License-Identifier: Apache-2.0
"""Reads a whole run folder, outputs/NAME/, as far as the run has got (formats: outputs/README.md).

Nothing here raises for a piece that is missing or half written: it is None or empty, and damaged files are named in
`problems`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from learning_rates import in_order, read_learning_rates
from metrics import Metrics, read_metrics
from result_files import (Evaluation, Provenance, Scores, Selection, UnreadableFile, join_candidates, read_candidate,
                          read_checkpoint_info, read_evaluation, read_scores, read_selection, read_selection_in_scores)

RULES_WITHOUT_SCORES = ("uniform", "random", "explicit", "all_linear")
RULES_THAT_DISTIL = ("kl_guided", "kl_guided_removal", "kl_guided_average")  # their candidates, with score.tokens


@dataclass
class RunFolder:
    path: Path
    name: str
    job_text: str = ""
    job: dict = field(default_factory=dict)  # dotted key -> text
    metrics: Metrics = field(default_factory=Metrics)
    scores: Optional[Scores] = None
    selection: Optional[Selection] = None
    evaluation: Optional[Evaluation] = None
    learning_rates: list = field(default_factory=list)  # LearningRates, in order of stages
    checkpoints: list = field(default_factory=list)  # CheckpointInfo, in order of stage and step
    exported: dict = field(default_factory=dict)  # folder of the student -> its config.json
    log_tail: list = field(default_factory=list)
    problems: list = field(default_factory=list)

    def provenances(self):
        """Of every readable HDF5 file, oldest first."""
        found = [checkpoint.provenance for checkpoint in self.checkpoints]
        found += [part.provenance for part in (self.scores, self.evaluation) if part is not None]
        return sorted(found, key=lambda provenance: provenance.date)

    def provenance(self) -> Optional[Provenance]:
        """Of the newest file, or None while there is no file."""
        found = self.provenances()
        return found[-1] if found else None

    def model_config(self):
        """The model's configuration by the newest checkpoint, or {} while there is none."""
        return self.checkpoints[-1].config if self.checkpoints else {}

    def teacher(self):
        """The teacher's name as the job gives it: the last part of its folder, or '' if the job does not say."""
        return self.job.get("teacher.path", "").rstrip("/").split("/")[-1]

    def asks_for(self, stage):
        """Whether the job runs a stage. Yes where the job does not say, as in a folder without job.yaml."""
        rule = self.job.get("select.rule")
        if stage == "score" and rule in RULES_WITHOUT_SCORES:
            return False
        if stage == "score" and rule is not None and rule not in RULES_THAT_DISTIL:
            return True
        switch = {"evaluate": "evaluate.sequences", "export": "export.formats"}.get(stage, f"{stage}.tokens")
        return self.job.get(switch) not in ("0", "[]")

    def took_over(self, stage):
        """Whether the result of align or score is that of the run under `reuse`: it is there, but nothing was logged."""
        results = {"align": any(info.stage == "align" and info.finished for info in self.checkpoints),
                   "score": self.scores is not None and self.scores.complete}
        return bool(self.job.get("reuse")) and results.get(stage, False) and stage not in self.metrics.stages()

    def layout(self):
        """One mixer name per layer of the student, or [] while it is not chosen."""
        if self.evaluation is not None and self.evaluation.layout:
            return self.evaluation.layout
        for checkpoint in reversed(self.checkpoints):
            if checkpoint.stage in ("distill", "finetune"):
                return checkpoint.config["layout"]
        return self.selection.layout if self.selection is not None else []

    def softmax_layers(self):
        return [layer for layer, mixer in enumerate(self.layout()) if is_softmax(mixer)]

    def model_index(self, name):
        """The row of a model in the evaluation. The student may go by another name: then it is the last one."""
        if self.evaluation is None:
            return None
        if name in self.evaluation.model:
            return self.evaluation.model.index(name)
        others = [index for index, model in enumerate(self.evaluation.model) if model != "teacher"]
        return others[-1] if name == "student" and others else None


def is_softmax(mixer):
    return mixer.startswith("softmax")


def read_run_folder(path):
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such folder (a run folder is outputs/NAME); is the name right?")
    run = RunFolder(path=path, name=path.resolve().name)
    if (path / "job.yaml").is_file():
        run.job_text = (path / "job.yaml").read_text(encoding="utf-8", errors="replace")
        run.job = flatten_yaml(run.job_text)
    if (path / "metrics.csv").is_file():
        run.metrics = read_metrics(path / "metrics.csv")
        if run.metrics.bad_lines:
            run.problems.append(f"metrics.csv: {run.metrics.bad_lines} line(s) could not be read and are left out")
    if (path / "log.txt").is_file():
        run.log_tail = (path / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
    for config in sorted(path.glob("student*/config.json")):  # one folder for each export format
        try:
            run.exported[config.parent.name] = json.loads(config.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            run.problems.append(f"{config.parent.name}/config.json: is not valid JSON ({error})")
    rates = [attempt(run, read_learning_rates, file) for file in sorted(path.glob("learning_rates/*.h5"))]
    run.learning_rates = in_order([one for one in rates if one is not None])
    read_checkpoints(run)
    run.scores = attempt(run, read_scores, path / "scores.h5")
    if run.scores is None:
        parts = [attempt(run, read_candidate, file) for file in sorted(path.glob("candidates/candidate-*.h5"))]
        parts = [part for part in parts if part is not None]
        run.scores = join_candidates(parts) if parts else None
    if (path / "selection.h5").is_file():
        run.selection = attempt(run, read_selection, path / "selection.h5")
    elif run.scores is None or run.scores.complete:  # what is damaged has been named
        run.selection = attempt(run, read_selection_in_scores, path / "scores.h5")
    run.evaluation = attempt(run, read_evaluation, path / "evaluation.h5")
    return run


def attempt(run, reader, path):
    """What the reader makes of a file; None if it is not there, None and a problem noted if it cannot be read."""
    if not path.is_file():
        return None
    try:
        return reader(path)
    except UnreadableFile as error:
        run.problems.append(str(error))
        return None


def read_checkpoints(run):
    order = {"transfer": 0, "align": 1, "distill": 2, "finetune": 3}
    found = [attempt(run, read_checkpoint_info, file) for file in sorted(run.path.glob("checkpoints/*.h5"))]
    run.checkpoints = sorted((info for info in found if info is not None),
                             key=lambda info: (order.get(info.stage, len(order)), info.step))


def flatten_yaml(job_text):
    """The scalars of a resolved job as {"section.key": "value"}.

    The job file is written by Amalgam as nested block mappings; this reads just that, so no YAML library is needed.
    """
    values = {}
    parents = []  # (indentation, key)
    for line in job_text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith(("#", "-")) or ":" not in bare:
            continue
        indentation = len(line) - len(line.lstrip())
        while parents and parents[-1][0] >= indentation:
            parents.pop()
        key, _, value = bare.partition(":")
        value = value.split(" #")[0].strip().strip("\"'")
        if value:
            values[".".join([name for _, name in parents] + [key])] = value
        else:
            parents.append((indentation, key))
    return values


def paired_gap(scores, selection):
    """How clearly the worst chosen candidate is ahead of the best one left out: (inside, outside, gap, standard error).

    Both were measured on the same sequences, so the error is that of the differences, which is far smaller than the
    error of either mean. None if there is no such pair.
    """
    if scores is None or selection is None or scores.of_removal():  # there the answers' KL counts too
        return None
    scores = scores.of_layers()
    chosen = np.isin(scores.layer, selection.layers)
    finite = np.isfinite(scores.score)
    if not (chosen & finite).any() or not (~chosen & finite).any():
        return None
    inside = np.flatnonzero(chosen & finite)[np.argmin(scores.score[chosen & finite])]
    outside = np.flatnonzero(~chosen & finite)[np.argmax(scores.score[~chosen & finite])]
    both = np.isfinite(scores.kl_mean[inside]) & np.isfinite(scores.kl_mean[outside])
    if not both.any():
        return None
    measurement = np.flatnonzero(both)[-1]
    difference = scores.kl[outside, measurement] - scores.kl[inside, measurement]
    difference = difference[np.isfinite(difference)]
    if difference.size < 2:
        return None
    error = float(difference.std(ddof=1) / np.sqrt(difference.size))
    return int(scores.layer[inside]), int(scores.layer[outside]), float(difference.mean()), error
