"""The plan of the embedded corpus: every parameter of every pair, drawn before any is rendered.

Its protocol is that of VoiceBank-DEMAND (Valentini-Botinhao et al., "Investigating RNN-based speech
enhancement methods for noise-robust text-to-speech", SSW 2016): speakers, noise recordings and SNRs
of the test differ from those of the training, and two of the test's five kinds of noise never occur
in training.
"""

from __future__ import annotations

import csv
import io
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, product

import numpy as np

from data.errors import DataError
from data.espeak import Voice
from data.sentences import sentence

# Counts the changes, here and in what renders a row, after which a row sounds different.
RECIPE = 1
SIZES = {"train": 160, "valid": 24, "test": 40}  # 11, 1.7 and 2.8 minutes

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
        DataError: a size is negative, or all are 0.
    """
    sizes = {"train": train, "valid": valid, "test": test}
    if min(sizes.values()) < 0 or not any(sizes.values()) or seed < 0:
        raise DataError("sizes and seed must not be negative, nor all sizes 0")
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
    """The inverse of `to_csv`. Raises DataError if `text` is not of this form."""
    types = typing.get_type_hints(Row)
    try:
        return [
            Row(**{name: types[name](value) for name, value in record.items()})
            for record in csv.DictReader(io.StringIO(text))
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"corpus.csv is not a plan of this program ({error})") from None
