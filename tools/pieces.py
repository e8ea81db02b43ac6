"""Train the runs of a plan, in as many pieces as it takes.

    python -m tools.pieces PLAN --mix CLEAN NOISE [--only RUN...] [--minutes M] [--jobs N]
        [--state DIR]
    python -m tools.pieces PLAN --status

Every run goes on where it stopped, until its steps are done; then comes the next of the plan.
With --minutes, all is saved and ended by then. With --state, each run's state is first taken from
the files in DIR, if those are further than the run folder, and afterwards written there in files
of at most 16 MiB, to go on from on another machine. What a piece achieved, against what the
hardware allows, is a line of RUNS/pieces.jsonl.

Status 0: all steps are done; 75: there are more to do, the same command goes on; 1: a run failed;
2: something is wrong with the command line, the plan or the data; 130: interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from data.console import carry_out, say, show
from data.errors import DataError, FailedError
from data.workers import stop_by_signals, usable_cores
from tools.plan import ROOT, Planned, chosen, read_plan
from tools.state import is_done, join, split, step_of
from tools.throughput import achieved
from training.interrupt import STOPPED

LOG = "pieces.jsonl"
_MARGIN = 0.25  # min, for a run's last save and for the writing of its state
_SHORTEST = 0.25  # min, that a piece is worth


@dataclass
class Pieces:
    """The pieces of one call: what trains, and what has come of it.

    Attributes:
        runs: the folder of run folders.
        state: where states are carried in and out, if anywhere.
        deadline: by `time.monotonic()`.
        jobs: runs at once.
        data: the arguments of `train.py` that say where data lie, and others of this machine.
    """

    runs: Path
    state: Path | None
    deadline: float
    jobs: int
    data: Sequence[str]
    failed: list[str] = field(default_factory=list)
    _children: set[subprocess.Popen] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def carry_out(self, plan: Sequence[Planned]) -> None:
        """Train what is left of a plan, `jobs` runs at once."""
        waiting: queue.SimpleQueue[Planned] = queue.SimpleQueue()
        for run in plan:
            waiting.put(run)
        workers = [threading.Thread(target=self._work, args=(waiting,)) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive():
                    worker.join(0.5)
        except KeyboardInterrupt:
            self._stopping.set()
            for child in list(self._children):
                child.terminate()  # each saves, and ends
            for worker in workers:
                worker.join()
            raise

    def _work(self, waiting: queue.SimpleQueue[Planned]) -> None:
        while not self._stopping.is_set():
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self._piece(run)
            except (DataError, OSError) as error:
                self.failed.append(f"{run.name}: {error}")

    def _piece(self, run: Planned) -> None:
        """Train one run until it is done or time is up."""
        folder = self.runs / run.name
        if self.state and join(self.state, folder):
            say(f"{run.name}: goes on from step {step_of(folder)}, from {self.state}")
        before = step_of(folder)
        minutes = (self.deadline - time.monotonic()) / 60 - _MARGIN
        if is_done(folder, run.steps) or minutes < _SHORTEST:
            return
        command = [sys.executable, str(run.program), *run.arguments, *self.data]
        command += ["--run", str(folder)]
        command += ["--minutes", f"{minutes:.3f}"] if math.isfinite(minutes) else []
        started = time.monotonic()
        child = subprocess.Popen(command, env=self._environment())
        self._children.add(child)
        status = child.wait()
        self._children.discard(child)
        if status not in (0, STOPPED):
            self.failed.append(f"{run.name}: train.py ended with status {status}")
        if not (after := step_of(folder)):
            return
        if self.state:
            split(folder, self.state)
        line = {
            "run": run.name,
            "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
            "from": before,
            "to": after,
            "of": run.steps,
            "minutes": round((time.monotonic() - started) / 60, 2),
            **achieved(folder, before, after, self._threads()),
        }
        with (self.runs / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _threads(self) -> int:
        return max(1, usable_cores() // self.jobs)

    def _environment(self) -> dict[str, str]:
        """Several runs share the cores; threads that wait for others' must not spin then."""
        if self.jobs == 1:
            return dict(os.environ)
        threads = str(self._threads())
        return {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        plan = chosen(read_plan(options.plan), options.only, options.plan)
        if not options.status:
            _train(plan, options)
        show(status(plan, options.runs))
        done = all(is_done(options.runs / run.name, run.steps) for run in plan)
        return 0 if done or options.status else STOPPED

    return carry_out("pieces", work, ". The same command goes on.")


def _train(plan: Sequence[Planned], options: argparse.Namespace) -> None:
    if options.mix is None:
        raise DataError("--mix CLEAN NOISE says what to train on")
    if not options.minutes > 0 or options.jobs < 1:
        raise DataError("--minutes must be more than 0, and --jobs at least 1")
    data = ["--mix", *(os.path.abspath(folder) for folder in options.mix)]
    data += options.train.split()
    options.runs.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    pieces = Pieces(options.runs, options.state, deadline, options.jobs, data)
    pieces.carry_out(plan)
    if pieces.failed:
        raise FailedError("; ".join(pieces.failed))


def status(plan: Sequence[Planned], runs: Path) -> str:
    """What has been done of a plan, a line a run."""
    lines = ["| run | steps | of | left |", "|---|---:|---:|---:|"]
    for run in plan:
        done = step_of(runs / run.name)
        lines.append(f"| {run.name} | {done:,} | {run.steps:,} | {max(0, run.steps - done):,} |")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.pieces",
        description="Train the runs of a plan, in as many pieces as it takes.",
        allow_abbrev=False,
    )
    parser.add_argument("plan", type=Path, metavar="PLAN", help="a file, as in plans/")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="RUN", help="runs of it; by default all"
    )
    parser.add_argument("--mix", nargs=2, metavar=("CLEAN", "NOISE"), help="what to train on")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="in all")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once")
    parser.add_argument("--state", type=Path, metavar="DIR", help="carry states in and out")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs", metavar="DIR", help="by default runs/"
    )
    parser.add_argument(
        "--train", default="", metavar="ARGUMENTS", help="more for train.py, in quotes"
    )
    parser.add_argument("--status", action="store_true", help="only tell what has been done")
    return parser


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
