# SPDX-License-Identifier: Apache-2.0
"""Writes a run folder of made-up numbers in the true format (outputs/README.md), for the tests of analysis/ only.

    python tests/analysis/fake_run.py FOLDER [--rule kl_guided] [--seed 1] [--until export]
"""

import argparse
import csv
import json
from pathlib import Path

import h5py
import numpy as np

STAGES = ("transfer", "align", "score", "select", "distill", "finetune", "evaluate", "export")
COLUMNS = ("time_s", "stage", "candidate", "layer", "step", "tokens", "loss", "gradient_norm", "learning_rate",
           "tokens_per_second", "memory_gib")
TOKENS_PER_STEP = 16384
JOB = """name: {name}
output: outputs
seed: {seed}
teacher:
  path: inputs/cache/fake-teacher-28
select:
  rule: {rule}   # kl_guided | uniform | random | explicit | all_linear
  budget: "{budget}"
{more}"""


class FakeRun:
    """One made-up run: 28 layers by default, a few of which truly matter, so that the layouts differ in KL."""

    def __init__(self, folder, rule="kl_guided", seed=1, until="export", layers=28, budget=7, answers=True, left_out=(),
                 more_job="", scores_version=2, automatic=(), recall=True):
        self.folder, self.rule, self.seed, self.layers, self.budget = Path(folder), rule, seed, layers, budget
        self.answers, self.scores_version, self.recall = answers, scores_version, recall
        self.automatic = automatic  # stages whose learning rates were found by the run
        self.stages = [stage for stage in STAGES[: STAGES.index(until) + 1] if stage not in left_out]
        self.random = np.random.default_rng(seed)
        self.rows = []
        self.time = 40.0
        depth = np.arange(layers) / max(layers - 1, 1)
        peaks = np.exp(-((depth - 0.72) / 0.12) ** 2) + 0.45 * np.exp(-((depth - 0.1) / 0.05) ** 2)
        self.worth = 0.02 + 0.16 * peaks * np.random.default_rng(7).uniform(0.35, 1.0, layers)
        self.job = JOB.format(name=self.folder.name, seed=seed, rule=rule, budget=budget, more=more_job)

    def write(self):
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (self.folder / "candidates").mkdir(exist_ok=True)
        (self.folder / "learning_rates").mkdir(exist_ok=True)
        (self.folder / "job.yaml").write_text(self.job, encoding="utf-8")
        writers = {"transfer": self.transfer, "align": self.align, "score": self.score, "select": self.select,
                   "distill": self.distill, "finetune": self.finetune, "evaluate": self.evaluate, "export": self.export}
        for stage in self.stages:
            if stage in self.automatic:
                self.learning_rates(stage)
            writers[stage]()
        with open(self.folder / "metrics.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(self.rows)
        log = [f"{stage}: done" for stage in self.stages]
        (self.folder / "log.txt").write_text("\n".join(log) + "\n", encoding="utf-8")
        return self.folder

    def open(self, path, filetype):
        file = h5py.File(self.folder / path, "w")
        attributes = {"filetype": filetype, "software": "amalgam", "software_version": "0.1.0",
                      "git_sha": "0123456789ab",
                      "date": f"2026-01-02T{10 + int(self.time) // 3600:02d}:{int(self.time) // 60 % 60:02d}:00+00:00",
                      "machine": "node001", "job_id": "4711", "command_line": "amalgam run job.yaml", "job": self.job,
                      "libraries": "Open MPI 4.1.4; HDF5 1.10.8; LibTorch 2.11.0"}
        for name, value in attributes.items():
            set_text(file, name, value)
        versions = {"amalgam checkpoint": 2, "amalgam scores": self.scores_version,
                    "amalgam candidate": self.scores_version}
        file.attrs["format_version"] = np.array([versions.get(filetype, 1), 0], dtype=np.int32)
        file.attrs["ranks"] = np.int64(8)
        return file

    def log(self, stage, candidate, layer, step, loss, speed=52000.0, memory=21.5):
        if layer == "":
            self.time += TOKENS_PER_STEP * 10 / speed
            tail = [f"{loss:.6g}", f"{0.3 + 0.1 * self.random.random():.4g}", "0.001",
                    f"{speed * self.random.uniform(0.96, 1.04):.5g}", f"{memory:.4g}"]
        else:
            tail = [f"{loss:.6g}", "", "", "", ""]
        self.rows.append([f"{self.time:.3f}", stage, candidate, layer, step, step * TOKENS_PER_STEP] + tail)

    def checkpoint(self, stage, step, layout, finished=True):
        name = stage if finished else f"{stage}-{step:08d}"
        with self.open(f"checkpoints/{name}.h5", "amalgam checkpoint") as file:
            set_text(file, "stage", stage)
            kept = [str(layer) for layer, mixer in enumerate(layout) if mixer == "softmax"]
            description = f"gated_delta_net x {self.layers - len(kept)}"
            set_text(file, "layout", description + (f", softmax at {{{', '.join(kept)}}}" if kept else ""))
            set_text(file, "config", json.dumps({"family": "qwen3", "hidden_size": 1024, "layers": self.layers,
                                                 "query_heads": 16, "key_value_heads": 8, "vocabulary_size": 151936,
                                                 "layout": layout}))
            for name, value in (("step", step), ("tokens", step * TOKENS_PER_STEP), ("data_cursor", step * 32),
                                ("seed", self.seed)):
                file.attrs[name] = np.int64(value)
            file["/model/model.norm.weight"] = np.ones(8, dtype=np.float32)

    def transfer(self):
        self.checkpoint("transfer", 0, ["gated_delta_net"] * self.layers)

    def align(self):
        start = self.random.uniform(0.5, 1.4, self.layers) * (1 + np.arange(self.layers) / self.layers)
        for step in range(10, 801, 10):
            noise = self.random.normal(1, 0.03, self.layers)
            losses = start * noise * (0.08 + 0.9 * np.exp(-step / 120) + 0.1 * np.exp(-step / 500))
            self.log("align", "", "", step, losses.mean(), speed=61000.0, memory=14.2)
            for layer in range(self.layers):
                self.log("align", "", layer, step, losses[layer])
        self.checkpoint("align", 800, ["gated_delta_net"] * self.layers)

    def learning_rates(self, stage, finished=True):
        """Three trials, of which the second is best and the last diverged; none for score."""
        with self.open(f"learning_rates/{stage}.h5", "amalgam learning rates") as file:
            set_text(file, "stage", stage)
            for name, value in (("trial_steps", 24), ("trial_sequence_length", 128), ("measured_batches", 6)):
                file.attrs[name] = np.int64(value)
            factor = np.array([1.0, 1 / 3, 3.0])
            rule = np.array([0.006, 0.0001])
            file["rule"] = rule
            file["chosen"] = rule * (1.0 if stage == "score" else factor[1]) if finished else np.full(2, np.nan)
            if stage == "score":
                return
            file["position"] = np.array([[0, 0], [-1, -1], [1, 1]], dtype=np.int32)
            file["learning_rate"], file["learning_rate_rest"] = rule[0] * factor, rule[1] * factor
            losses = np.array([[0.5], [0.4], [np.nan]]) + self.random.normal(0, 0.01, (3, 6))
            file["held_out_loss"] = losses
            file["seconds"] = np.array([3.0, 3.1, 3.2])

    def score(self):
        tokens = np.arange(5, dtype=np.int64) * 50 * TOKENS_PER_STEP
        difficulty = self.random.normal(0, 0.05, 32)
        base = 0.9 - self.worth[:, None] * np.array([0.8, 0.9, 1, 1, 1.05])
        mean = base * np.array([1.0, 0.62, 0.5, 0.45, 0.42])
        kl = mean[:, :, None] * (1 + difficulty) + self.random.normal(0, 0.006, (self.layers, len(tokens), 32))
        seconds = self.random.uniform(60, 66, self.layers)
        error = kl.std(axis=2, ddof=1) / np.sqrt(32)
        train = np.zeros((self.layers, 20))
        for candidate in range(self.layers):
            for index, step in enumerate(range(10, 201, 10)):
                noise = self.random.normal(1, 0.02)
                train[candidate, index] = (np.interp(step * TOKENS_PER_STEP, tokens, mean[candidate])) * noise
                self.log("score", candidate, "", step, train[candidate, index], speed=33000.0, memory=30.1)
        for candidate in range(self.layers):
            with self.open(f"candidates/candidate-{candidate:03d}.h5", "amalgam candidate") as file:
                self.write_scores(file, np.array([candidate]), tokens, kl, train, seconds, error)
        with self.open("scores.h5", "amalgam scores") as file:
            self.write_scores(file, np.arange(self.layers), tokens, kl, train, seconds, error)
            file["score"] = -kl.mean(axis=2)[:, -1]
            file["score_standard_error"] = error[:, -1]
            file["all_linear_kl"] = 1.1 * (1 + difficulty)
        self.final_score = -kl.mean(axis=2)[:, -1]

    def write_scores(self, file, members, tokens, kl, train, seconds, error):
        file["candidate"] = members.astype(np.int32)
        file["layer"] = members.astype(np.int32)
        if self.scores_version >= 2:
            set_texts(file, "mixer", ["gated_delta_net", "softmax"])
            file["layout"] = np.eye(self.layers, dtype=np.int32)[members]
        file["checkpoint_tokens"] = tokens
        file["sequence"] = np.arange(kl.shape[2], dtype=np.int64)
        file["kl"] = kl[members]
        file["kl_mean"] = kl[members].mean(axis=2)
        file["kl_standard_error"] = error[members]
        file["train_loss"] = train[members]
        file["seconds"] = seconds[members]
        file["rank"] = (members % 8).astype(np.int32)
        for name in ("candidate", "checkpoint_tokens", "sequence"):
            file[name].make_scale(name)
        for axis, name in enumerate(("candidate", "checkpoint_tokens", "sequence")):
            file["kl"].dims[axis].attach_scale(file[name])

    def select(self):
        best_first = np.argsort(-self.final_score, kind="stable")
        if self.rule == "kl_guided":
            order = best_first[: self.budget]
        elif self.rule == "uniform":
            order = (np.arange(self.budget) * self.layers) // self.budget + self.layers // self.budget - 1
        else:
            order = self.random.permutation(self.layers)[: self.budget]
        self.chosen = np.sort(order)
        if self.scores_version == 1:
            with h5py.File(self.folder / "scores.h5", "a") as file:
                group = file.create_group("selection")
                self.write_selection(group, order)
                for name, value in (("budget", self.budget), ("number_of_layers", self.layers), ("seed", self.seed)):
                    group.attrs[name] = np.int64(value)
            return
        with self.open("selection.h5", "amalgam selection") as file:
            self.write_selection(file, order)
            set_text(file, "options", f'budget: "{self.budget}"')
            set_texts(file, "layout", self.layout())

    def write_selection(self, place, order):
        place["layers"] = self.chosen.astype(np.int32)
        place["order"] = order.astype(np.int32)
        set_text(place, "rule", self.rule)

    def layout(self):
        return ["softmax" if layer in set(self.chosen) else "gated_delta_net" for layer in range(self.layers)]

    def final_kl(self):
        return float(0.24 - 0.16 * self.worth[self.chosen].sum() / np.sort(self.worth)[-self.budget:].sum())

    def distill(self):
        for step in range(10, 2001, 10):
            loss = self.final_kl() + 0.4 * np.exp(-step / 150) + 0.1 * np.exp(-step / 900)
            loss *= self.random.normal(1, 0.02)
            self.log("distill", "", "", step, loss, speed=29000.0, memory=41.3)
        self.checkpoint("distill", 1000, self.layout(), finished=False)
        self.checkpoint("distill", 2000, self.layout())

    def finetune(self):
        for step in range(10, 301, 10):
            self.log("finetune", "", "", step, 2.21 + self.final_kl() * 0.5 * np.exp(-step / 80) +
                     self.random.normal(0, 0.01), speed=24000.0, memory=52.7)
        self.checkpoint("finetune", 300, self.layout())

    def evaluate(self):
        edges = np.linspace(0, 2048, 17).astype(np.int64)
        middle = (edges[:-1] + edges[1:]) / 2
        teacher = 2.1 + 0.9 * np.exp(-middle / 150)
        kl = self.final_kl() * (0.8 + 0.5 * middle / 2048)
        loss = np.stack([teacher, teacher + kl * 0.9])
        per_sequence = loss.mean(axis=1)[:, None] + self.random.normal(0, 0.12, (2, 64))
        kl_sequence = np.stack([np.zeros(64), kl.mean() * self.random.normal(1, 0.2, 64)])
        with self.open("evaluation.h5", "amalgam evaluation") as file:
            file["model"] = np.array([b"teacher", b"student"])
            file["position_edges"] = edges
            file["loss_by_position"] = loss
            file["perplexity_by_position"] = np.exp(loss)
            file["kl_by_position"] = np.stack([np.zeros_like(kl), kl])
            file["loss"] = per_sequence.mean(axis=1)
            file["perplexity"] = np.exp(per_sequence.mean(axis=1))
            file["kl"] = kl_sequence.mean(axis=1)
            file["loss_standard_error"] = per_sequence.std(axis=1, ddof=1) / 8
            file["kl_standard_error"] = kl_sequence.std(axis=1, ddof=1) / 8
            file["loss_per_sequence"] = per_sequence
            file["kl_per_sequence"] = kl_sequence
            if self.answers:
                file["answer_accuracy"] = np.array([0.968, 1.12 - 2.4 * self.final_kl()])
                file["answer_count"] = np.int64(512)
            if self.recall:
                self.write_recall(file)
            set_text(file, "layout", ",".join(self.layout()))

    def write_recall(self, file):
        """The teacher answers all, the student less the longer the question; 20 questions of each kind and so on."""
        kinds, lengths, depths, questions = ["noise", "text"], [1024, 2048, 4096], [0, 50, 100], 20
        right = np.ones((2, len(kinds), len(lengths), len(depths), questions), np.int32)
        for place in range(len(lengths)):
            wrong = round(questions * min(self.final_kl() * (1 + place), 1))
            right[1, :, place, :, :wrong] = 0
        loss = np.where(right == 1, 0.05, 2.0)
        group = file.create_group("recall")
        set_texts(group, "kind", kinds)
        group["length"], group["depth"] = np.array(lengths, np.int64), np.array(depths, np.int64)
        group["right"], group["answer_loss_per_question"] = right, loss
        group["accuracy"], group["answer_loss"] = right.mean(axis=-1), loss.mean(axis=-1)
        for name, values in (("accuracy", right), ("answer_loss", loss)):
            group[f"{name}_standard_error"] = values.std(axis=-1, ddof=1) / np.sqrt(questions)
        group["checksum"] = np.arange(right[0].size, dtype=np.int64).reshape(right.shape[1:])
        group.attrs["seed"] = np.int64(0)

    def export(self):
        (self.folder / "student").mkdir(exist_ok=True)
        config = {"model_type": "qwen3_5_text", "num_hidden_layers": self.layers, "hidden_size": 1024}
        (self.folder / "student" / "config.json").write_text(json.dumps(config), encoding="utf-8")


def set_text(target, name, value):
    """A fixed-length UTF-8 string, as the C++ side writes it."""
    data = value.encode("utf-8")
    target.attrs.create(name, data, dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def set_texts(file, name, values):
    """A dataset of fixed-length UTF-8 strings, likewise."""
    width = max(len(value.encode("utf-8")) for value in values)
    file.create_dataset(name, data=[value.encode("utf-8") for value in values], dtype=h5py.string_dtype("utf-8", width))


def main():
    parser = argparse.ArgumentParser(description="Write a run folder of made-up numbers in the true format.")
    parser.add_argument("folder")
    parser.add_argument("--rule", choices=("kl_guided", "uniform", "random"), default="kl_guided")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--until", choices=STAGES, default="export")
    options = parser.parse_args()
    print(FakeRun(options.folder, options.rule, options.seed, options.until).write())


if __name__ == "__main__":
    main()
