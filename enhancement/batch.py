"""Many recordings, each enhanced into a file of its kind, one after the other or side by side."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import torch
from tqdm import tqdm

from data.audio import SAMPLE_RATE, AudioError
from data.utils import FailedError, digest_of, replacing, stamp_of
from data.workers import as_finished, tidied_up, usable_cores
from enhancement.audio_file import FileSource, Writer
from enhancement.journal import Journal
from enhancement.model import Model, load
from enhancement.recording import enhanced, survey
from enhancement.targets import Job
from enhancement.whole import code_digest
from training.checkpoint import CheckpointError
from training.config import ConfigError

_LONG = 60.0  # s of a recording that gets a progress bar of its own


@dataclass(frozen=True)
class Outcome:
    """What became of a recording: failed, if there is an error; notes for who listens to it."""

    job: Job
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """A recording for a worker process, with all that it needs to know."""

    job: Job
    out: Path
    model: str
    device: str
    threads: int
    overwrite: bool


def select(model: Model, jobs: Sequence[Job], out: Path) -> list[Job]:
    """Those that are not done yet by this model."""
    journal, by = Journal(out), made_by(model)
    return [job for job in jobs if not journal.is_done(job, by)]


def made_by(model: Model) -> str:
    """By what a model is known, in the journal of what it made: weights, windows and code."""
    parts = (model.trained.digest, repr(model.windows), code_digest(), _own_code())
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


@cache
def _own_code() -> str:
    return digest_of(sorted(Path(__file__).parent.glob("*.py")))


def enhance_all(
    model: Model, jobs: Sequence[Job], out: Path, overwrite: bool, workers: int
) -> Iterator[Outcome]:
    """Enhance recordings, with progress bars; what became of each, as soon as it is known.

    Args:
        workers: processes; with 1, it is this one.
    """
    with tqdm(total=len(jobs), desc="enhancing", unit="file", disable=None) as bar:
        for outcome in _outcomes(model, jobs, out, overwrite, workers):
            yield outcome
            bar.update()


def _outcomes(
    model: Model, jobs: Sequence[Job], out: Path, overwrite: bool, workers: int
) -> Iterator[Outcome]:
    if workers <= 1 or len(jobs) <= 1:
        journal = Journal(out)
        for job in jobs:
            yield enhance_one(model, job, journal, overwrite, shown=True)
        return
    # A relative path of a model, too, is the same one there.
    threads = usable_cores() // workers or 1
    order = Order(jobs[0], out, model.name, str(model.device), threads, overwrite)
    orders = [replace(order, job=job) for job in jobs]
    for number, outcome in as_finished(enhance_order, orders, workers):
        yield outcome or Outcome(jobs[number], "its process died (was there no memory?)")


def enhance_order(order: Order) -> Outcome:
    """`enhance_one` in a worker process, which keeps the model for the next."""
    with tidied_up():
        torch.set_num_threads(order.threads)
        try:
            model = _loaded(order.model, order.device)
        except (CheckpointError, ConfigError, FailedError, OSError, MemoryError) as error:
            return Outcome(order.job, f"the model cannot be loaded any more: {error}")
        return enhance_one(model, order.job, Journal(order.out), order.overwrite)


@lru_cache(maxsize=1)
def _loaded(model: str, device: str) -> Model:
    return load(model, device)


def enhance_one(
    model: Model, job: Job, journal: Journal, overwrite: bool, shown: bool = False
) -> Outcome:
    """Enhance one recording into its place; what goes wrong with it is in the outcome.

    Args:
        journal: of the output folder.
        overwrite: replace a file that is there and was not made here.
        shown: with a progress bar, if it is long.
    """
    try:
        if job.target.is_dir():
            raise AudioError(f"{job.target} is a folder, where a file would be written")
        if os.path.lexists(job.target) and not overwrite and not journal.is_own(job):
            raise AudioError(
                f"{job.target} is in the way: it was not made here, or has been changed since. "
                "Move it, or have it replaced by --overwrite"
            )
        return Outcome(job, notes=tuple(_enhance(model, job, journal, shown)))
    except AudioError as error:
        return Outcome(job, str(error))
    except OSError as error:
        where = error.filename or job.target
        if str(where).endswith(".partial"):
            where = job.target
        return Outcome(job, f"{where}: {error.strerror or error}")
    except MemoryError:
        return Outcome(job, "there is not enough memory for it")
    except torch.OutOfMemoryError:
        return Outcome(job, f"there is not enough memory for it ({model.device})")


def _enhance(model: Model, job: Job, journal: Journal, shown: bool) -> list[str]:
    before = stamp_of(job.source)
    source = FileSource(job.source)
    found = survey(source)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _progress(job.source.name, found.total / SAMPLE_RATE, shown) as progress,
        replacing(job.target) as temporary,
    ):
        written = Writer(
            temporary, source.rate, source.channels, source.encoding, source.description
        )
        with written:
            network = model.trained.network
            for block in enhanced(network, source, found, model.windows, progress):
                written.write(block)
        entry = journal.entry(job, made_by(model), temporary)
        if entry.stamp != before:
            raise AudioError("it changed while it was read")
        journal.note(entry)
    notes = found.notes(source.channels)
    if written.beyond:
        notes.append(
            f"{written.beyond} samples of the result were beyond full scale and are clipped"
        )
    return notes


@contextmanager
def _progress(name: str, seconds: float, shown: bool) -> Iterator[Callable[[float], object]]:
    """What is told the seconds that are done of a recording; with a bar, if it is long."""
    if not shown or seconds < _LONG:
        # Not a hidden bar: each makes a lock that a worker which is interrupted leaves behind.
        yield lambda more: None
        return
    with tqdm(total=round(seconds), desc=name, unit="s", leave=False, disable=None) as bar:
        yield bar.update
