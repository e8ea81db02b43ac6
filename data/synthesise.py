"""The embedded corpus: synthetic speech in synthetic noise, made on the user's machine in seconds.

It lets everything be trained, tested and shown without a download; scores on it say nothing about
real speech.

    python -m data.synthesise [--out DIR] [--seed N] [--train N] [--valid N] [--test N]
                              [--workers N] [--force]

`data.plan` draws every parameter into rows, kept as DIR/corpus.csv; `render` makes
DIR/{train,valid,test}/{clean,noisy}/NAME.wav (16 kHz, one channel, 16 bit) of nothing but that
file. A row gives the same bytes in any order, in any process.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from data.audio import SAMPLE_RATE
from data.levels import active_level
from data.noises import NOISES
from data.plan import SIZES, Row, from_csv, plan, to_csv
from data.rooms import Room, reverberate
from data.sentences import sentence
from data.sound import Signal, ambience, filtered
from data.speech import overheard, utter
from data.utils import DataError, FailedError, carry_out
from data.voices import Speaker
from data.workers import mapped, stop_by_signals, usable_cores

_MADE = re.compile(r"corpus\.csv|log_testset\.txt|(train|valid|test)/(clean|noisy)/[^/]+\.wav")
_A_DAY = 86_400.0  # s
FOLDER = Path(__file__).resolve().parent / "synthetic"


def render_row(row: Row) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The pair of a row: clean and noisy, each (s,) at 16 kHz.

    The clean side has the room, the microphone and the faint noise of a recording. If either side
    exceeded 0.95 of full scale, both are reduced by the same factor, so that `level_dbfs` may be
    missed but never `snr_db`.

    Raises:
        EspeakError: see `speak`.
    """
    rng = np.random.default_rng([row.noise_seed, 0])
    silence = [int(seconds * SAMPLE_RATE) for seconds in (row.before, row.after)]
    clean = np.pad(utter(rng, row.text, Speaker.parse(row.voice)), silence)
    room = Room(row.length, row.width, row.height, row.decay, row.distance)
    clean = filtered(reverberate(rng, clean, room), SAMPLE_RATE, partial(_microphone, row))
    clean /= 10 ** (active_level(clean) / 20)  # now at 0 dB, as is all noise
    clean += 10 ** (row.floor_db / 20) * ambience(rng, len(clean), SAMPLE_RATE)

    rng = np.random.default_rng([row.noise_seed, 1])
    talk = [
        overheard(f"{sentence(rng)} {sentence(rng)}", Speaker.parse(talker))
        for talker in row.talkers.split()
    ]
    noise = NOISES[row.noise](rng, len(clean), SAMPLE_RATE, talk)
    noisy = clean + 10 ** (-row.snr_db / 20) * noise

    gain = 10 ** (row.level_dbfs / 20)
    gain = min(gain, 0.95 / max(np.abs(clean).max(), np.abs(noisy).max()))
    first, second = (np.round(32768 * gain * side).astype(np.int16) for side in (clean, noisy))
    return first, second


def _microphone(row: Row, frequency: Signal) -> Signal:
    """The gain of the row's microphone at frequencies in Hz."""
    octaves = np.log2(frequency / 1000)
    decibels = row.tilt * np.maximum(octaves, -3)
    decibels += row.presence * np.exp(-0.5 * (octaves - np.log2(3)) ** 2)
    low, high = (row.low_cut / frequency) ** 4, (frequency / row.high_cut) ** 8
    return 10 ** (decibels / 20) / np.sqrt((1 + low) * (1 + high))


def render(rows: Sequence[Row], folder: Path, workers: int = 1) -> None:
    """Write the pairs of `rows` into `folder`, in `workers` processes."""
    for split, side in product(sorted({row.split for row in rows}), ("clean", "noisy")):
        (folder / split / side).mkdir(parents=True, exist_ok=True)
    write = partial(_write_row, folder)
    with mapped(write, rows, workers, at_once=4) as written:
        for _ in tqdm(written, total=len(rows), desc="rendering", unit="pair", disable=None):
            pass


def _write_row(folder: Path, row: Row) -> None:
    for side, samples in zip(("clean", "noisy"), render_row(row), strict=True):
        soundfile.write(
            folder / row.split / side / f"{row.name}.wav", samples, SAMPLE_RATE, "PCM_16"
        )


def ensure(
    out: Path = FOLDER,
    seed: int = 0,
    train: int = SIZES["train"],
    valid: int = SIZES["valid"],
    test: int = SIZES["test"],
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Make the corpus in `out`, unless it is there; returns `out`.

    The corpus is made beside `out` and renamed at the end, so that `out` is complete or absent
    whatever interrupts this, and several processes may call it at once. (A process that is killed
    leaves a hidden folder `.NAME-*.partial` there, which may be deleted.)

    Args:
        out: the corpus folder; absent, empty, or a corpus made by this function.
        seed: of the plan.
        train: pairs to train on; `valid` and `test` likewise.
        workers: processes; every usable core by default.
        force: replace another corpus found in `out`.

    Raises:
        DataError: `out` holds another corpus (unless `force`), or other files, or cannot be
            written; or eSpeak NG is missing or lacks a voice.
    """
    target = out.resolve()
    text = to_csv(plan(seed, train, valid, test))
    try:
        difference = _difference(target, text)
        if difference == "":
            print(f"{out}: the corpus is there already")
            return out
        if difference and not force:
            raise DataError(
                f"{out} holds another corpus ({difference}): python -m data.synthesise --out {out} "
                "--force makes it anew"
            )
        if difference and (stranger := _stranger(target, text)):
            raise DataError(f"{out} also holds {stranger}; move it elsewhere first")
        _make(target, text, workers or usable_cores())
    except BrokenProcessPool:
        raise DataError("a rendering process was killed (out of memory?)") from None
    except (OSError, soundfile.LibsndfileError, FailedError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot write the corpus to {out}: {reason}") from None
    print(f"{out}: {train} training, {valid} validation and {test} test pairs")
    return out


def _make(target: Path, text: str, workers: int) -> None:
    """Render the plan `text` and put it in the place of `target`, which stays if that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(f".{target.name}-*.partial"):  # of processes that were killed
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _A_DAY:
                shutil.rmtree(old, ignore_errors=True)
    unfinished = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}.partial")
    replaced = unfinished.with_suffix(".replaced")
    try:
        unfinished.mkdir()
        (unfinished / "corpus.csv").write_text(text, "utf-8", newline="")
        render(from_csv(text), unfinished, workers)
        tests = [row for row in from_csv(text) if row.split == "test"]
        lines = (f"{row.name} {row.noise} {row.snr_db}\n" for row in tests)
        (unfinished / "log_testset.txt").write_text("".join(lines), "utf-8")
        if _difference(target, text) == "":
            return  # another process was faster
        if target.exists():
            target.rename(replaced)
        unfinished.rename(target)
    finally:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _difference(target: Path, text: str) -> str | None:
    """How the corpus in `target` differs from the plan `text`: "" not at all; None: there is none.

    Raises:
        DataError: `target` is something other than a corpus.
    """
    if not target.exists() or (target.is_dir() and not os.listdir(target)):
        return None
    found = target / "corpus.csv"
    if not found.is_file():
        raise DataError(f"{target} holds something other than a corpus; choose another folder")
    lines, wanted = found.read_text("utf-8", "replace").splitlines(), text.splitlines()
    if len(lines) != len(wanted):
        return f"{len(lines) - 1} pairs instead of {len(wanted) - 1}"
    for number, (line, want) in enumerate(zip(lines, wanted, strict=True)):
        if line != want:
            return f"line {number + 1} of its corpus.csv differs"
    missing = sum(
        not (target / row.split / side / f"{row.name}.wav").is_file()
        for row, side in product(from_csv(text), ("clean", "noisy"))
    )
    return f"{missing} files are missing" if missing else ""


def _stranger(target: Path, text: str) -> str:
    """The name of something in a corpus folder that this program has not made; "" for none."""
    # Plans of all versions begin alike, whatever they say of a pair beyond that.
    begin = ",".join(text.partition("\n")[0].split(",")[:4]) + ","
    if not (target / "corpus.csv").read_text("utf-8", "replace").startswith(begin):
        return "another corpus.csv"
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_file() and not _MADE.fullmatch(name):
            return name
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 after a message of one line."""
    parser = argparse.ArgumentParser(
        prog="python -m data.synthesise",
        description="Make the embedded corpus: synthetic speech in synthetic noise.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another corpus")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, help="number of pairs")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes")
    parser.add_argument("--force", action="store_true", help="replace another corpus in --out")
    options = vars(parser.parse_args(arguments))

    def work() -> int:
        ensure(**options)
        return 0

    return carry_out("synthesise", work)


if __name__ == "__main__":
    # Worker processes find `_write_row` by the name of its module, which must not be `__main__`.
    from data.synthesise import main as imported_main

    stop_by_signals()
    sys.exit(imported_main())
