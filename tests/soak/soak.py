# SPDX-License-Identifier: Apache-2.0
"""Runs a small job of the built-in teacher again and again while things go wrong, for a given time:

    python tests/soak/soak.py --program build/cpu/src/amalgam --disk build/cpu/tests/storage/libsimulated_disk.so \\
        --minutes 60

A round is one job in one run folder, struck by a random fault at every start until it is done: ranks or mpirun are
killed (at any moment, or in the middle of a save), it is asked to stop, a second run is started in its folder, the disk
fills up. Every start has 1, 2 or 3 ranks. Each exit code must be one that README.md promises for what happened, and at
the end of a round all results must have the bits of a run that nobody disturbed. Prints a table of faults by stage.
Exits with 1 at the first thing that is not so, and leaves the folder. Needs h5py.
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import results
from run_under_mpi import STAGES, Run, StillRunning, stage_of, stage_seconds

DONE, STORAGE, NO_PROGRESS, BUSY, RESUMABLE = 0, 4, 7, 8, 75  # README.md
LENGTH = 16  # tokens of a sequence
NOT_OF_A_KILL = {2, 3, 4, 5, NO_PROGRESS, BUSY, RESUMABLE}
SAVING = ["created", "mid_write", "before_fsync", "before_mark", "before_rename", "before_purge"]


class Failure(Exception):
    pass


def job(output, name, steps):
    """All stages but finetune; a stage has so many steps of six short sequences."""
    inputs = pathlib.Path(__file__).resolve().parents[2] / "inputs" / "builtin"
    stage = {"sequence_length": LENGTH, "batch_sequences": 6, "tokens": steps * 6 * LENGTH,
             "optimizer": {"warmup_steps": 0, "learning_rate": 3e-3, "learning_rate_rest": 3e-3}}
    return {
        "name": name, "output": str(output), "teacher": {"path": str(inputs / "teacher")},
        "data": {"training": str(inputs / "train.h5"), "validation": str(inputs / "validation.h5")},
        "device": "cpu", "precision": "float32", "deterministic": True, "seed": 3, "peak_flops": "",
        "align": stage, "distill": stage,
        "score": {**stage, "tokens": max(1, steps // 3) * 6 * LENGTH, "validation_sequences": 6,
                  "measurements": 1},
        "select": {"rule": "kl_guided", "budget": "25%"}, "evaluate": {"sequences": 6, "sequence_length": LENGTH},
        "checkpoint": {"every_steps": 2},
    }


class Soak:
    def __init__(self, arguments):
        self.program, self.disk = arguments.program, arguments.disk
        self.folder = pathlib.Path(arguments.folder).resolve()
        self.random = random.Random(arguments.seed)
        self.faults = {name: getattr(self, name) for name in arguments.faults}
        self.table = collections.Counter()  # (fault, stage)
        self.rounds = self.starts = 0
        self.runs = self.folder / "runs"
        self.job_file = self.folder / "soak.yaml"
        self.steps = arguments.steps
        self.longest, self.seconds = 600.0, {}

    # What can go wrong. Each starts a run, strikes, and returns (exit status, statuses that are right, stage); None: as
    # of a kill.

    def nothing(self, ranks):
        run = self.start(ranks)
        return run.wait(self.longest), {DONE}, "-"

    def rank_killed(self, ranks):
        run, stage = self.start_and_wait(ranks)
        victims = run.ranks()
        if run.is_over() or not victims:
            return run.wait(self.longest), {DONE}, "too late"
        run.send(self.random.choice(victims), signal.SIGKILL)
        return run.wait(self.longest), None, stage

    def mpirun_killed(self, ranks):
        run, stage = self.start_and_wait(ranks)
        if run.is_over():
            return run.wait(self.longest), {DONE}, "too late"
        run.send(run.process.pid, signal.SIGKILL)
        return run.wait(self.longest), None, stage

    def all_killed(self, ranks):
        run, stage = self.start_and_wait(ranks)
        if run.is_over():
            return run.wait(self.longest), {DONE}, "too late"
        for process in [*run.ranks(), run.process.pid]:
            run.send(process, signal.SIGKILL)
        return run.wait(self.longest), None, stage

    def killed_while_saving(self, ranks):
        point = self.random.choice(SAVING)
        run = self.start(ranks, {"AMALGAM_FAULT": f"checkpoint.{point}:kill:rank=0:step={self.random.choice([2, 4])}"})
        status = run.wait(self.longest)
        stage = stage_of(run.output()) if status != DONE else "too late"
        return status, None if "signal 9" in run.output() else {DONE}, stage

    def stop_file(self, ranks):
        run, stage = self.start_and_wait(ranks)
        if not (self.runs / "soak").is_dir():
            return run.wait(self.longest), {DONE}, "too late"
        (self.runs / "soak" / "stop").touch()
        return run.wait(self.longest), {DONE, RESUMABLE, NO_PROGRESS}, stage

    def usr1(self, ranks):
        run, stage = self.start_and_wait(ranks)
        if stage == "start" or run.is_over():  # mpirun itself dies of it before its ranks are there
            return run.wait(self.longest), {DONE}, "too late"
        run.send(run.process.pid, signal.SIGUSR1)
        return run.wait(self.longest), {DONE, RESUMABLE, NO_PROGRESS}, stage

    def second_start(self, ranks):
        run, stage = self.start_and_wait(ranks)
        late = run.is_over()
        second = Run(self.program, self.job_file, self.random.randint(1, 2), self.folder / "second.log")
        statuses = [second.process.wait(self.longest), run.process.wait(self.longest)]
        if not run.wait_until_gone(60.0):
            raise StillRunning("ranks of two runs outlive their mpirun by a minute")
        if late:
            return max(statuses), {DONE}, "too late"
        # Whoever has the folder goes on; the other one is told, or finds the job done if it came at the very end.
        return (DONE if sorted(statuses) in ([DONE, BUSY], [DONE, DONE]) else max(statuses, key=abs)), {DONE}, stage

    def disk_full(self, ranks):
        used = sum(p.stat().st_blocks * 512 for p in self.runs.rglob("*") if p.is_file())
        room = self.random.randint(0, self.run_bytes)
        run = self.start(ranks, {"LD_PRELOAD": str(self.disk), "AMALGAM_SIMULATED_DISK": str(self.runs),
                                 "AMALGAM_SIMULATED_DISK_BYTES": str(used + room)})
        status = run.wait(self.longest)
        return status, {DONE, STORAGE}, stage_of(run.output()) if status != DONE else "enough space"

    # How.

    def start(self, ranks, environment=None):
        self.starts += 1
        return Run(self.program, self.job_file, ranks, self.folder / "last.log", environment)

    def start_and_wait(self, ranks):
        """A run at a random moment of a random stage, or later if that stage is done; and the stage it is in."""
        # Long stages more often, but short ones too.
        goal = self.random.choices(range(len(STAGES)), [0.5 + self.seconds.get(name, 0.0) for name in STAGES])[0]
        run = self.start(ranks)
        end = time.monotonic() + self.longest
        while not run.is_over() and STAGES.index(stage_of(run.output())) < goal:
            if time.monotonic() > end:
                run.wait(0.0)
            time.sleep(0.02)
        moment = time.monotonic() + self.random.uniform(0.0, self.seconds.get(STAGES[goal], 1.0))
        while not run.is_over() and time.monotonic() < moment:
            time.sleep(0.005)
        return run, stage_of(run.output())

    def undisturbed(self):
        self.write_job("undisturbed")
        begin = time.monotonic()
        run = self.start(1)
        if run.wait(self.longest) != DONE:
            raise Failure(f"the undisturbed run failed:\n{run.output()}")
        took = time.monotonic() - begin
        self.seconds = stage_seconds(run.output())
        self.seconds["start"] = max(0.5, took - sum(self.seconds.values()))
        self.longest = 120.0 + 20.0 * took
        folder = self.runs / "undisturbed"
        self.run_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        print(f"undisturbed: {took:.1f} s, {self.run_bytes / 1e6:.1f} MB, stages {self.seconds}", flush=True)

    def write_job(self, name):
        self.job_file.write_text(json.dumps(job(self.runs, name, self.steps), indent=1))  # JSON is YAML

    def round(self, is_time_over):
        """One job to its end, struck again and again; undisturbed once the time is over."""
        while True:
            ranks = self.random.randint(1, 3)
            fault = "nothing" if is_time_over() else self.random.choice(list(self.faults))
            status, right, stage = getattr(self, fault)(ranks)
            self.table[fault, stage] += 1
            print(f"round {self.rounds + 1}: {fault} in {stage}, {ranks} ranks: {status}", flush=True)
            if status in NOT_OF_A_KILL if right is None else status not in right:
                output = (self.folder / "last.log").read_text(errors="replace")[-4000:]
                raise Failure(f"{fault} in {stage} on {ranks} ranks ended with {status}, not {right or 'as a kill'}:\n{output}")
            if status == DONE and (self.runs / "soak" / "student" / "config.json").exists():
                break
        wrong = results.differences(self.runs / "undisturbed", self.runs / "soak")
        if wrong:
            raise Failure("results differ from the undisturbed run's:\n  " + "\n  ".join(wrong))
        self.rounds += 1

    def control(self):
        """A flipped bit in each kind of result is found, or the rounds before have shown nothing."""
        for name, dataset in (("student/model.safetensors", None), ("checkpoints/distill.h5", "model/model.norm.weight"),
                              ("scores.h5", "kl"), ("selection.h5", "layers")):
            copy = self.folder / "flipped"
            shutil.copytree(self.runs / "soak", copy)
            results.flip_bit(copy / name, dataset)
            wrong = results.differences(self.runs / "undisturbed", copy)
            if not any(text.startswith(name) for text in wrong):
                raise Failure(f"a flipped bit in {name} was not found")
            shutil.rmtree(copy)

    def run(self, seconds):
        self.runs.mkdir(parents=True)
        self.undisturbed()
        self.write_job("soak")
        end = time.monotonic() + seconds
        while self.rounds == 0 or time.monotonic() < end:
            shutil.rmtree(self.runs / "soak", ignore_errors=True)
            self.round(lambda: time.monotonic() >= end)
        self.control()

    def print_table(self):
        columns = [c for c in [*STAGES, "-", "too late", "enough space"] if any(k[1] == c for k in self.table)]
        print(f"\n{'fault':<20}" + "".join(f"{c:>13}" for c in columns) + f"{'all':>8}")
        for fault in self.faults:
            counts = [self.table[fault, c] for c in columns]
            print(f"{fault:<20}" + "".join(f"{n or '':>13}" for n in counts) + f"{sum(counts):>8}")
        struck = sum(n for (_, stage), n in self.table.items() if stage in STAGES)
        print(f"{self.rounds} rounds with the undisturbed run's bits, {self.starts} starts, {struck} faults", flush=True)


ALL_FAULTS = ["nothing", "rank_killed", "mpirun_killed", "all_killed", "killed_while_saving", "stop_file", "usr1",
              "second_start", "disk_full"]


def parse(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True, help="amalgam")
    parser.add_argument("--disk", help="libsimulated_disk.so; without it no disk fills up")
    parser.add_argument("--minutes", type=float, default=60.0, help="after them the round is finished undisturbed")
    parser.add_argument("--steps", type=int, default=6, help="of align and distill: how long a round is")
    parser.add_argument("--seed", type=int, default=0, help="of faults, moments and numbers of ranks")
    parser.add_argument("--faults", nargs="+", choices=ALL_FAULTS, default=ALL_FAULTS)
    parser.add_argument("--folder", help="to be made, removed after success; default: a temporary one")
    arguments = parser.parse_args(words)
    if not arguments.disk:
        arguments.faults = [name for name in arguments.faults if name != "disk_full"]
    arguments.program = str(pathlib.Path(arguments.program).resolve())
    arguments.folder = arguments.folder or tempfile.mkdtemp(prefix="amalgam-soak-")
    return arguments


def main():
    arguments = parse()
    soak = Soak(arguments)
    try:
        soak.run(60.0 * arguments.minutes)
    except (Failure, StillRunning) as failure:
        soak.print_table()
        sys.exit(f"{failure}\nleft: {soak.folder}")
    soak.print_table()
    shutil.rmtree(soak.folder)


if __name__ == "__main__":
    main()
