# SPDX-License-Identifier: Apache-2.0
"""`amalgam run` under mpirun as a soak sees it: started, watched, struck, waited for."""

import os
import pathlib
import re
import signal
import subprocess
import time

STAGES = ["start", "transfer", "align", "score", "select", "distill", "evaluate", "export"]
MENTION = re.compile(r"\b(" + "|".join(STAGES[1:]) + r")(:|  step| candidate)(.*)")


class StillRunning(Exception):
    pass


def stage_of(output):
    """The stage that a run is in by what it has said so far."""
    stage = "start"
    for match in MENTION.finditer(output):
        over = "finished in" in match[3] or "done before" in match[3]
        place = min(STAGES.index(match[1]) + over, len(STAGES) - 1)
        stage = STAGES[max(place, STAGES.index(stage))]
    return stage


def stage_seconds(output):
    """How long each stage took, of a run that went to its end."""
    seconds = {}
    for name, time_said in re.findall(r"\b(\w+): finished in ([\d:.]+)", output):
        total = 0.0
        for part in time_said.split(":"):
            total = 60 * total + float(part)
        seconds[name] = total
    return seconds


class Run:
    def __init__(self, program, job_file, ranks, log, environment=None):
        self.job_file = str(job_file)
        self.log = pathlib.Path(log)
        mpirun = os.environ.get("AMALGAM_MPIEXEC", "mpirun --oversubscribe").split()
        everybody = {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                     "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [*mpirun, "-np", str(ranks), program, "run", self.job_file], stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env={**os.environ, **everybody, **(environment or {})}, start_new_session=True)

    def output(self):
        return self.log.read_text(errors="replace")

    def is_over(self):
        return self.process.poll() is not None

    def ranks(self):
        """Process numbers of the ranks, which mpirun started."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(after_name[1]) == self.process.pid:
                found.append(int(entry.name))
        return found

    def send(self, process, number):
        try:
            os.kill(process, number)
        except ProcessLookupError:
            pass  # it has just ended

    def wait(self, seconds):
        """Exit status; minus the signal if one killed mpirun. Raises StillRunning after so long, having killed it."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for rank in self.ranks():
                self.send(rank, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            raise StillRunning(f"still running after {seconds:.0f} s") from None
        if not self.wait_until_gone(60.0):
            raise StillRunning("ranks outlive mpirun by a minute")
        return status

    def wait_until_gone(self, seconds):
        """Ranks whose mpirun was killed notice it soon."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.survivors():
                return True
            time.sleep(0.05)
        for process in self.survivors():
            self.send(process, signal.SIGKILL)
        return False

    def survivors(self):
        """Processes that run this job file, of this start or of another."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.job_file.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found
