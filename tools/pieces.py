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
2: something is wrong with the command line, the plan or the data; 130: interrupted, and saved.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from data.console import carry_out, say, show
from data.errors import DataError, FailedError
from data.workers import stop_by_signals, usable_cores
from tools.plan import ROOT, Planned, chosen, read_plan
from tools.state import carried, join, progress, reached, split, step_of
from tools.throughput import achieved
from training.interrupt import STOPPED

LOG = "pieces.jsonl"
_MARGIN = 0.4  # min before the end, when runs are told to save
_SHORTEST = 1.0  # min, that a call is worth: most of it goes into starting
_POLL = 0.2  # s


@dataclass
class Piece:
    """One run that is being trained.

    before: the step it started from. started: when. told: that it has to save and end.
    """

    run: Planned
    process: subprocess.Popen
    before: int
    started: float = field(default_factory=time.monotonic)
    told: bool = False


@dataclass
class Pieces:
    """The pieces of one call: what trains, and what has come of it.

    Attributes:
        runs: the folder of run folders.
        state: where states are carried in and out, if anywhere.
        deadline: by `time.monotonic()`; runs are told to save in time for it.
        jobs: runs at once.
        data: the arguments of `train.py` that say where data lie, and others of this machine.
        failed: names of runs that have failed, with the status of their `train.py`.
    """

    runs: Path
    state: Path | None
    deadline: float
    jobs: int
    data: Sequence[str]
    failed: dict[str, int] = field(default_factory=dict)
    _training: list[Piece] = field(default_factory=list)

    def carry_out(self, plan: Sequence[Planned]) -> None:
        """Train what is left of a plan, `jobs` runs at once."""
        waiting = deque(plan)
        try:
            while waiting or self._training:
                while waiting and len(self._training) < self.jobs:
                    self._start(waiting.popleft())
                if time.monotonic() >= self.deadline or 2 in self.failed.values():
                    waiting.clear()
                    self._stop()
                self._finish_ended()
                time.sleep(_POLL)
        except BaseException:
            self._stop()
            for piece in self._training:
                piece.process.wait()
            self._finish_ended()
            raise

    def _start(self, run: Planned) -> None:
        """Start or go on with a run, unless it is done."""
        folder = self.runs / run.name
        joined = self.state and join(self.state, folder)
        before, done = progress_in(run, folder)
        if joined:
            say(f"{run.name}: goes on from step {before}, from {self.state}")
        if done or time.monotonic() >= self.deadline:
            self._carry(folder)
            return
        command = [sys.executable, str(run.program), *run.arguments, *self.data]
        command += ["--run", str(folder)]
        process = subprocess.Popen(command, env=self._environment())
        self._training.append(Piece(run, process, before))

    def _stop(self) -> None:
        """Have every run save and end."""
        for piece in self._training:
            if not piece.told and piece.process.poll() is None:
                piece.process.terminate()
                piece.told = True

    def _finish_ended(self) -> None:
        """Carry out the states of runs that have ended, and note what they achieved."""
        for piece in [piece for piece in self._training if piece.process.poll() is not None]:
            self._training.remove(piece)
            status = piece.process.returncode
            folder = self.runs / piece.run.name
            # Told to end before it could listen, it ends by the signal itself.
            if status not in (0, STOPPED, -signal.SIGTERM):
                self.failed[piece.run.name] = status
            after = step_of(folder)
            self._carry(folder)
            if after > piece.before:
                self._note(piece, folder, after)

    def _carry(self, folder: Path) -> None:
        """Write a run's state, unless one that is as far is there."""
        if self.state and reached(folder) > carried(self.state, folder.name):
            split(folder, self.state)

    def _note(self, piece: Piece, folder: Path, after: int) -> None:
        """Add a line to the log of pieces."""
        minutes = (time.monotonic() - piece.started) / 60
        line = {
            "run": piece.run.name,
            "ended": datetime.now().astimezone().isoformat(timespec="seconds"),
            "from": piece.before,
            "to": after,
            "of": piece.run.steps,
            "minutes": round(minutes, 2),
            **achieved(folder, piece.before, after, self._threads()),
        }
        with (self.runs / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _threads(self) -> int:
        return max(1, usable_cores() // self.jobs)

    def _environment(self) -> dict[str, str]:
        """Return the environment of a run: several runs at once share the cores."""
        if self.jobs == 1:
            return dict(os.environ)
        return {**os.environ, "OMP_NUM_THREADS": str(self._threads())}


def progress_in(run: Planned, folder: Path) -> tuple[int, bool]:
    """The steps that a run has done, and whether they are all and what has come of it is validated.

    Raises:
        DataError: what is in the folder was trained by another plan.
    """
    found = progress(folder)
    if found is None:
        return 0, False
    if found.config.optim.cooldown[1] != run.steps:
        raise DataError(
            f"{folder} is of another plan, of {found.config.optim.cooldown[1]:,} steps and not "
            f"{run.steps:,}; name another folder with --runs"
        )
    return found.step, found.step >= run.steps and found.validated


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        plan = chosen(read_plan(options.plan), options.only, options.plan)
        if not options.status:
            _train(plan, options)
        found = [progress_in(run, options.runs / run.name) for run in plan]
        show(status(plan, [step for step, _ in found]))
        return 0 if options.status or all(done for _, done in found) else STOPPED

    return carry_out("pieces", work, ". The same command goes on.")


def _train(plan: Sequence[Planned], options: argparse.Namespace) -> None:
    if options.mix is None:
        raise DataError("--mix CLEAN NOISE says what to train on")
    if not options.minutes >= _SHORTEST or options.jobs < 1:
        raise DataError(f"--minutes must be at least {_SHORTEST:g}, and --jobs at least 1")
    for folder in options.mix:
        if not os.path.isdir(folder):
            raise DataError(f"--mix: {folder} is no folder")
    for made in (options.runs, options.state):
        if made is not None:
            try:
                made.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{made} cannot be a folder ({error.strerror})") from None
    data = ["--mix", *(os.path.abspath(folder) for folder in options.mix)]
    deadline = time.monotonic() + 60 * (options.minutes - _MARGIN)
    pieces = Pieces(
        options.runs,
        options.state,
        deadline,
        min(options.jobs, len(plan)),
        [*data, *shlex.split(options.train)],
    )
    pieces.carry_out(plan)
    if pieces.failed:
        named = [f"{name}: train.py ended with status {n}" for name, n in pieces.failed.items()]
        kind = DataError if 2 in pieces.failed.values() else FailedError
        raise kind("; ".join(named))


def status(plan: Sequence[Planned], steps: Sequence[int]) -> str:
    """What has been done of a plan, a line a run. steps: of each."""
    lines = ["| run | steps | of | left |", "|---|---:|---:|---:|"]
    for run, done in zip(plan, steps, strict=True):
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
        "--train", default="", metavar="ARGUMENTS", help="more for train.py: --train='--device cpu'"
    )
    parser.add_argument("--status", action="store_true", help="only tell what has been done")
    return parser


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
