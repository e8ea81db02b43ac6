"""From an upload and some models to files that can be heard, seen and downloaded."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.audio import AudioError
from enhancement.files import FileSource, Writer
from enhancement.model import Model
from enhancement.windows import Block, Survey, enhanced, survey
from page.pictures import drawn, powers
from page.upload import Upload


@dataclass(frozen=True)
class Version:
    """One version of a recording: a wav file, its spectrogram, and what it is called."""

    title: str
    sound: Path
    picture: Path


@dataclass(frozen=True)
class Outcome:
    """What one model made of it.

    seconds: that it took. clipped: samples that the file's encoding could not hold.
    """

    model: Model
    label: str
    enhanced: Version
    removed: Version
    seconds: float
    clipped: int


@dataclass(frozen=True)
class Result:
    """All versions of a recording, in a folder of their own."""

    upload: Upload
    found: Survey
    noisy: Version
    outcomes: list[Outcome]

    @property
    def seconds(self) -> float:
        """How long the recording is."""
        return self.found.frames / self.upload.rate


@dataclass(frozen=True)
class Progress:
    """What is being done, for whom it waits."""

    text: str
    share: float


def work(
    upload: Upload, models: Sequence[tuple[str, Model]], out: Path
) -> Iterator[Progress | Result]:
    """Enhance a recording by each model; what is being done, in steps of seconds, then the result.

    Args:
        models: with their labels.
        out: the folder to make; where the work is given up, it is removed.

    Raises:
        AudioError: the recording cannot be enhanced.
        OSError: a file cannot be written.
    """
    out.mkdir()
    done = False
    try:
        yield Progress("Reading the recording", 0.0)
        found = survey(upload)
        noisy = Version("Noisy", out / "noisy.wav", out / "noisy.png")
        with _wav(noisy.sound, upload) as file:
            for block in upload.blocks():
                file.write(block)
        outcomes = []
        for number, (label, model) in enumerate(models):
            outcome = yield from _enhanced_by(model, label, number, len(models), upload, found, out)
            outcomes.append(outcome)
        yield Progress("Drawing the spectrograms", 1.0)
        versions = [noisy, *(v for each in outcomes for v in (each.enhanced, each.removed))]
        images = {
            version.picture.name: powers(FileSource(version.sound), found.frames)
            for version in versions
        }
        for name, content in drawn(images).items():
            (out / name).write_bytes(content)
        done = True
        yield Result(upload, found, noisy, outcomes)
    finally:
        if not done:
            shutil.rmtree(out, ignore_errors=True)


def _enhanced_by(
    model: Model,
    label: str,
    number: int,
    count: int,
    upload: Upload,
    found: Survey,
    out: Path,
) -> Generator[Progress, None, Outcome]:
    clean, removed = (
        Version(title, out / f"{number}-{name}.wav", out / f"{number}-{name}.png")
        for title, name in (("Enhanced", "enhanced"), ("Removed noise", "removed"))
    )
    started, frames = time.perf_counter(), 0
    with ExitStack() as stack:
        clean_file = stack.enter_context(_wav(clean.sound, upload))
        removed_file = stack.enter_context(_wav(removed.sound, upload))
        noisy = _Pieces(upload.blocks())
        for block in enhanced(model.trained.network, upload, found, model.windows):
            clean_file.write(block)
            removed_file.write(noisy.next(block.shape[1]) - block)
            frames += block.shape[1]
            share = (number + frames / found.frames) / count
            yield Progress(f"Enhancing by {label}", share)
    taken = time.perf_counter() - started
    return Outcome(model, label, clean, removed, taken, clean_file.beyond)


class _Pieces:
    """Blocks (c, n) of a signal, cut anew."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks, self._held = blocks, next(blocks)

    def next(self, frames: int) -> Block:
        """The next samples (c, frames). Raises: AudioError: there are not so many."""
        parts = [self._held]
        missing = frames - self._held.shape[1]
        while missing > 0:
            block = next(self._blocks, None)
            if block is None:
                raise AudioError("it changed while it was read")
            parts.append(block)
            missing -= block.shape[1]
        whole = np.concatenate(parts, axis=1)
        self._held = whole[:, frames:]
        return whole[:, :frames]


def _wav(path: Path, like: Upload) -> Writer:
    """A wav file at the rate and with the channels of an upload."""
    kind = "WAV" if like.channels <= 2 else "WAVEX"
    return Writer(path, like.rate, like.channels, (kind, like.subtype, "FILE"))
