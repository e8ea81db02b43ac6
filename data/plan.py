"""The plan of the embedded corpus: every parameter of every pair, drawn before any is rendered.

Its protocol is that of VoiceBank-DEMAND (Valentini-Botinhao et al., "Investigating RNN-based speech
enhancement methods for noise-robust text-to-speech", SSW 2016): the test has other speakers, texts
and SNRs, and five kinds of noise that never occur among the ten of the training.
"""

from __future__ import annotations

import csv
import io
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice, product

import numpy as np

from data.noises import TALKERS
from data.sentences import sentence
from data.utils import DataError
from data.voices import CAST, speakers

# Counts the changes, here and in what renders a row, after which a row sounds different.
RECIPE = 2
_MOST = 100_000  # pairs of a split: a week of speech
SIZES = {"train": 300, "valid": 24, "test": 40}  # 21, 1.5 and 2.9 minutes

_SNRS = {
    "train": (0.0, 5.0, 10.0, 15.0),
    "valid": (0.0, 5.0, 10.0, 15.0),
    "test": (2.5, 7.5, 12.5, 17.5),
}
_TRAINED = (
    *("speech_shaped", "babble", "kitchen", "meeting", "cafeteria", "restaurant", "station"),
    *("car", "metro", "traffic"),
)
_NOISES = {
    "train": _TRAINED,
    "valid": _TRAINED,
    "test": ("living", "office", "bus", "cafe", "square"),
}


@dataclass(frozen=True)
class Row:
    """One pair: all that `render_row` needs to know."""

    recipe: int
    split: str
    name: str
    speaker: str
    voice: str  # see `Speaker.parse`
    text: str
    before: float  # s of silence before the words
    after: float  # s after them
    tilt: float  # dB an octave: the microphone's colour
    low_cut: float  # Hz: what it leaves out below
    high_cut: float  # Hz: and above
    presence: float  # dB at 3 kHz
    length: float  # m: the room
    width: float
    height: float
    decay: float  # s: its reverberation time
    distance: float  # m: from the mouth to the microphone
    floor_db: float  # the recording's own noise against the active speech level
    level_dbfs: float  # active speech level, before any reduction that prevents clipping
    noise: str
    noise_seed: int
    talkers: str  # who is heard in the noise, separated by spaces
    snr_db: float


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
    if max(sizes.values()) > _MOST:
        raise DataError(f"a split of {max(sizes.values()):,} pairs is too large, {_MOST:,} at most")
    rng = np.random.default_rng(seed)
    women, men = (
        iter(rng.permutation([name for name in speakers() if name[0] == letter]).tolist())
        for letter in "fm"
    )
    rows: list[Row] = []
    for index, (split, (n_women, n_men)) in enumerate(CAST.items()):
        cast = [*islice(women, n_women), *islice(men, n_men)]
        # A generator a split: the size of one does not change the rows of the others.
        rows += _plan_split(np.random.default_rng([seed, index]), split, sizes[split], cast)
    return rows


def _plan_split(rng: np.random.Generator, split: str, size: int, cast: list[str]) -> Iterator[Row]:
    people = speakers()
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
        low, high = TALKERS.get(noise, (0, 0))
        others = [name for name in cast if name != speaker]
        talkers = rng.choice(others, rng.integers(low, high + 1))
        yield Row(
            recipe=RECIPE,
            split=split,
            name=f"{speaker}_{index + 1:03d}",
            speaker=speaker,
            voice=str(people[speaker].varied(rng)),
            text=text,
            before=round(rng.uniform(0.1, 0.6), 2),
            after=round(rng.uniform(0.1, 0.6), 2),
            tilt=round(rng.uniform(-2, 1), 2),
            low_cut=round(rng.uniform(30, 110), 1),
            high_cut=round(rng.uniform(6500, 9000), 1),
            presence=round(rng.uniform(-4, 4), 1),
            length=round(rng.uniform(2.5, 8), 2),
            width=round(rng.uniform(2, 5), 2),
            height=round(rng.uniform(2.3, 3.2), 2),
            decay=round(rng.uniform(0.12, 0.4), 3),
            distance=round(float(np.exp(rng.uniform(np.log(0.08), np.log(0.5)))), 2),
            floor_db=round(rng.uniform(-40, -26), 1),
            level_dbfs=round(rng.uniform(-29, -18), 1),
            noise=noise,
            noise_seed=int(rng.integers(2**31)),
            talkers=" ".join(str(people[name].stranger(rng)) for name in talkers),
            snr_db=snr,
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
