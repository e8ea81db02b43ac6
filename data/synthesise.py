"""The embedded corpus: synthetic speech in synthetic noise, made on the user's machine in seconds.

It lets everything be trained, tested and shown without a download; scores on it say nothing about
real speech. Its protocol is that of VoiceBank-DEMAND (Valentini-Botinhao et al., "Investigating
RNN-based speech enhancement methods for noise-robust text-to-speech", SSW 2016): speakers, noise
recordings and SNRs of the test differ from those of the training, two of the test's five kinds of
noise never occur in training, and the SNR refers to the active speech level of ITU-T P.56.

    python -m data.synthesise [--out DIR] [--seed N] [--train N] [--valid N] [--test N]
                              [--workers N] [--force]

`plan` draws every parameter into rows, kept as DIR/corpus.csv; `render` makes
DIR/{train,valid,test}/{clean,noisy}/NAME.wav (16 kHz, one channel, 16 bit) of nothing but that
file. A row gives the same bytes in any order, in any process.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import sys
import typing
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import islice, product
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.fft import irfft, rfft, rfftfreq
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter
from tqdm import tqdm

from data.espeak import EspeakError, Voice, speak
from data.noises import NOISES, Signal, ambience, babble, reverberate, unit_rms
from data.sentences import sentence
from data.workers import process_pool, usable_cores

RATE = 16000
RECIPE = 1  # counts changes of this file and its ingredients that change the sound of a row
SIZES = {"train": 120, "valid": 24, "test": 40}  # 8.3, 1.7 and 2.8 minutes
FOLDER = Path(__file__).resolve().parent / "synthetic"

_SNRS = {
    "train": (0.0, 5.0, 10.0, 15.0),
    "valid": (0.0, 5.0, 10.0, 15.0),
    "test": (2.5, 7.5, 12.5, 17.5),
}
_SEEN = ("babble", "traffic", "hum", "keyboard", "coloured")
_NOISES = {
    "train": _SEEN,
    "valid": _SEEN,
    "test": ("babble", "traffic", "keyboard", "wind", "music"),
}
_CAST = {"train": (8, 10), "valid": (2, 2), "test": (3, 3)}  # women and men

# Name, language, variant, words a minute, pitch and its range. No two share a variant.
_SPEAKERS = """
f01 en-us            f1         165 52 55    m01 en-us            m1         160 50 50
f02 en-us            f2         175 48 45    m02 en-us            m2         172 42 55
f03 en               f3         160 45 60    m03 en               m3         165 58 60
f04 en-gb-scotland   f4         170 58 50    m04 en-gb-scotland   m4         178 45 45
f05 en-gb-x-rp       f5         158 50 55    m05 en-gb-x-rp       m6         155 52 60
f06 en-us            Annie      168 40 50    m06 en-us-nyc        m7         170 55 50
f07 en-029           belinda    172 42 60    m07 en-us            Mike       162 48 65
f08 en-gb-x-gbclan   linda      165 38 55    m08 en-gb-x-gbclan   Mario      175 60 55
f09 en-gb-x-gbcwmd   aunty      160 50 70    m09 en-gb-x-gbcwmd   boris      168 44 60
f10 en               grandma    150 46 55    m10 en-029           robert     160 62 55
f11 en-us-nyc        shelby     178 55 60    m11 en-us            pablo      174 56 45
f12 en-us            Andrea     140 36 50    m12 en               grandpa    150 40 55
f13 en-gb-x-rp       zac        160 18 45    m13 en-029           travis     166 46 50
                                             m14 en-us            victor     180 60 60
                                             m15 en-gb-scotland   kaukovalta 158 66 50
"""


class CorpusError(ValueError):
    """The corpus cannot be made or used; the message says why in one line."""


@dataclass(frozen=True)
class Row:
    """One pair: all that `render_row` needs to know."""

    recipe: int
    split: str
    name: str
    speaker: str
    voice: str
    variant: str
    rate: int
    pitch: int
    pitch_range: int
    text: str
    tilt: float  # dB an octave: the microphone's colour
    decay: float  # s: the room's reverberation time
    reverb_db: float  # reverberation against direct sound
    floor_db: float  # the recording's own noise against the active speech level
    level_dbfs: float  # active speech level, before any reduction that prevents clipping
    noise: str
    noise_seed: int
    babble: str  # the talkers' voices, separated by spaces
    snr_db: float


def speakers() -> dict[str, Voice]:
    """The 28 speakers: 13 women (f01 ...) and 15 men (m01 ...)."""
    words = iter(_SPEAKERS.split())
    return {
        name: Voice(language, variant, int(rate), int(pitch), int(width))
        for name, language, variant, rate, pitch, width in zip(*[words] * 6, strict=True)
    }


def plan(
    seed: int = 0,
    train: int = SIZES["train"],
    valid: int = SIZES["valid"],
    test: int = SIZES["test"],
) -> list[Row]:
    """Draw a corpus of so many pairs a split; speakers are shared by no two splits.

    Raises:
        CorpusError: a size is negative, or all are 0.
    """
    sizes = {"train": train, "valid": valid, "test": test}
    if min(sizes.values()) < 0 or not any(sizes.values()) or seed < 0:
        raise CorpusError("sizes and seed must not be negative, nor all sizes 0")
    rng = np.random.default_rng(seed)
    women, men = (
        iter(rng.permutation([name for name in speakers() if name[0] == letter]).tolist())
        for letter in "fm"
    )
    rows: list[Row] = []
    for index, (split, (n_women, n_men)) in enumerate(_CAST.items()):
        cast = [*islice(women, n_women), *islice(men, n_men)]
        # A generator a split: the size of one does not change the rows of the others.
        rows += _plan_split(np.random.default_rng([seed, index]), split, sizes[split], cast)
    return rows


def _plan_split(rng: np.random.Generator, split: str, size: int, cast: list[str]) -> Iterator[Row]:
    voices = speakers()
    texts: set[str] = set()
    conditions: list[tuple[str, float]] = []
    turns: list[str] = []
    for index in range(size):
        # Rounds in random order: noises, SNRs and speakers are evenly used.
        if not conditions:
            conditions = list(product(_NOISES[split], _SNRS[split]))
            rng.shuffle(conditions)
        if not turns:
            turns = rng.permutation(cast).tolist()
        noise, snr = conditions.pop()
        speaker = turns.pop()
        while (text := sentence(rng)) in texts:
            pass
        texts.add(text)
        voice = _varied(rng, voices[speaker])
        others = [name for name in cast if name != speaker]
        talkers: list[str] = []
        if noise == "babble":
            talkers = rng.choice(others, rng.integers(5, 9)).tolist()
        yield Row(
            recipe=RECIPE,
            split=split,
            name=f"{speaker}_{index + 1:03d}",
            speaker=speaker,
            voice=voice.language,
            variant=voice.variant,
            rate=voice.rate,
            pitch=voice.pitch,
            pitch_range=voice.pitch_range,
            text=text,
            tilt=round(rng.uniform(-3, 0), 2),
            decay=round(rng.uniform(0.1, 0.35), 3),
            reverb_db=round(rng.uniform(-20, -10), 1),
            floor_db=round(rng.uniform(-50, -35), 1),
            level_dbfs=round(rng.uniform(-30, -20), 1),
            noise=noise,
            noise_seed=int(rng.integers(2**31)),
            babble=" ".join(str(_varied(rng, voices[name])) for name in talkers),
            snr_db=snr,
        )


def _varied(rng: np.random.Generator, voice: Voice) -> Voice:
    """The same person on another occasion: a little faster or slower, higher or lower."""
    return replace(
        voice,
        rate=voice.rate + int(rng.integers(-8, 9)),
        pitch=voice.pitch + int(rng.integers(-4, 5)),
        pitch_range=voice.pitch_range + int(rng.integers(-8, 9)),
    )


def to_csv(rows: Sequence[Row]) -> str:
    """The text of corpus.csv: a header and a line a row, in the order given."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The inverse of `to_csv`. Raises CorpusError if `text` is not of this form."""
    types = typing.get_type_hints(Row)
    try:
        return [
            Row(**{name: types[name](value) for name, value in record.items()})
            for record in csv.DictReader(io.StringIO(text))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"corpus.csv is not a plan of this program ({error})") from None


def render_row(row: Row) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The pair of a row: clean and noisy, each (s,) at 16 kHz.

    Speech is trimmed to 0.2 s before and 0.3 s after the words. The clean side has the room, the
    colour and the faint noise of a recording. If either side exceeded 0.95 of full scale, both
    are reduced by the same factor, so that `level_dbfs` may be missed but never `snr_db`.

    Raises:
        EspeakError: see `speak`.
    """
    voice = Voice(row.voice, row.variant, row.rate, row.pitch, row.pitch_range)
    rng = np.random.default_rng([row.noise_seed, 0])
    clean = np.pad(_spoken(row.text, voice), (int(0.2 * RATE), int(0.3 * RATE)))
    clean = reverberate(rng, _tilted(clean, row.tilt), RATE, row.decay, row.reverb_db)
    clean /= 10 ** (active_level(clean) / 20)  # now at 0 dB, as is all noise
    clean += 10 ** (row.floor_db / 20) * ambience(rng, len(clean), RATE)

    rng = np.random.default_rng([row.noise_seed, 1])
    if row.noise == "babble":
        talkers = [
            _spoken(f"{sentence(rng)} {sentence(rng)}", Voice.parse(talker))
            for talker in row.babble.split()
        ]
        noise = babble(rng, len(clean), RATE, speech=talkers)
    else:
        noise = NOISES[row.noise](rng, len(clean), RATE)
    noisy = clean + 10 ** (-row.snr_db / 20) * noise

    gain = 10 ** (row.level_dbfs / 20)
    gain = min(gain, 0.95 / max(np.abs(clean).max(), np.abs(noisy).max()))
    first, second = (np.round(32768 * gain * side).astype(np.int16) for side in (clean, noisy))
    return first, second


def _spoken(text: str, voice: Voice) -> Signal:
    """Speech at 16 kHz without the silence around it, (s,)."""
    samples, rate = speak(text, voice)
    speech = soxr.resample(samples / 32768, rate, RATE)
    (loud,) = np.nonzero(np.abs(speech) > 0.003 * np.abs(speech).max())  # 50 dB below the peak
    return speech[loud[0] : loud[-1] + 1]


def _tilted(signal: Signal, slope: float) -> Signal:
    """`signal` with its spectrum tilted around 1 kHz by `slope` dB an octave."""
    frequency = np.clip(rfftfreq(len(signal), 1 / RATE), 100, None)
    gain = 10 ** (slope * np.log2(frequency / 1000) / 20)
    return irfft(rfft(signal) * gain, len(signal))


def active_level(signal: Signal, rate: int = RATE) -> float:
    """The active speech level of ITU-T P.56 (method B) in dB: 0 is a mean square of 1.

    The envelope is |x| smoothed twice with a time constant of 0.03 s. A sample is active if the
    envelope reached a threshold during the last 0.2 s; the level is the energy over the active
    samples for that threshold which lies 15.9 dB below the level itself. Thresholds are 0.5 dB
    apart and relative to the signal (P.56: 6 dB, absolute), which makes the measure independent
    of its gain.

    Args:
        signal: (s,), any scale.
        rate: sampling rate in Hz.

    Raises:
        ValueError: the signal is silent.
    """
    pole = np.exp(-1 / (0.03 * rate))
    envelope = np.abs(unit_rms(signal))
    for _ in range(2):
        envelope = lfilter([1 - pole], [1, -pole], envelope)
    held = int(0.2 * rate)
    envelope = maximum_filter1d(envelope, held, mode="constant", origin=(held - 1) // 2)
    thresholds = np.arange(-60, 20, 0.5)
    active = len(signal) - np.searchsorted(np.sort(envelope), 10 ** (thresholds / 20))
    levels = 10 * np.log10(len(signal) / np.maximum(active, 1))
    crossing = int(np.argmax(levels - thresholds <= 15.9))
    return float(10 * np.log10(np.mean(signal**2)) + levels[crossing])


def render(rows: Sequence[Row], folder: Path, workers: int = 1) -> None:
    """Write the pairs of `rows` into `folder`, in `workers` processes."""
    for split, side in product(sorted({row.split for row in rows}), ("clean", "noisy")):
        (folder / split / side).mkdir(parents=True, exist_ok=True)
    write = partial(_write_row, folder)
    bar = partial(tqdm, total=len(rows), desc="rendering", unit="pair", disable=None)
    if workers <= 1:
        for _ in bar(map(write, rows)):
            pass
        return
    pool = process_pool(min(workers, len(rows)))
    try:
        for _ in bar(pool.map(write, rows, chunksize=4)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _write_row(folder: Path, row: Row) -> None:
    for side, samples in zip(("clean", "noisy"), render_row(row), strict=True):
        soundfile.write(folder / row.split / side / f"{row.name}.wav", samples, RATE, "PCM_16")


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
        CorpusError: `out` holds another corpus (unless `force`), or other files, or cannot be
            written.
        EspeakError: espeakng-loader is missing or lacks a voice.
    """
    target = out.resolve()
    text = to_csv(plan(seed, train, valid, test))
    try:
        difference = _difference(target, text)
        if difference == "":
            print(f"{out}: the corpus is there already")
            return out
        if difference and not force:
            raise CorpusError(f"{out} holds another corpus ({difference}); --force re-makes it")
        strangers = {path.name for path in target.glob("*")} - {"corpus.csv", *SIZES}
        if strangers:
            raise CorpusError(f"{out} also holds {min(strangers)}; move it elsewhere first")
        _make(target, text, workers or usable_cores())
    except BrokenProcessPool:
        raise CorpusError("a rendering process was killed (out of memory?)") from None
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"cannot write the corpus to {out}: {reason}") from None
    print(f"{out}: {train} training, {valid} validation and {test} test pairs")
    return out


def _make(target: Path, text: str, workers: int) -> None:
    """Render the plan `text` and put it in the place of `target`, which stays if that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}.partial")
    replaced = unfinished.with_suffix(".replaced")
    try:
        unfinished.mkdir()
        (unfinished / "corpus.csv").write_text(text, "utf-8", newline="")
        render(from_csv(text), unfinished, workers)
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
        CorpusError: `target` is something other than a corpus.
    """
    if not target.exists() or (target.is_dir() and not os.listdir(target)):
        return None
    found = target / "corpus.csv"
    if not found.is_file():
        raise CorpusError(f"{target} holds something other than a corpus; choose another folder")
    lines, wanted = found.read_text("utf-8").splitlines(), text.splitlines()
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
    try:
        ensure(**vars(parser.parse_args(arguments)))
    except (CorpusError, EspeakError) as error:
        print(f"synthesise: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("synthesise: interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # Worker processes find `_write_row` by the name of its module, which must not be `__main__`.
    from data.synthesise import main as imported_main

    sys.exit(imported_main())
