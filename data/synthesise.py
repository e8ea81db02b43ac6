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
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import product
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
from data.noises import NOISES, Signal, babble, coloured, reverberate, unit_rms
from data.sentences import sentence
from data.workers import process_pool, usable_cores

RATE = 16000
RECIPE = 1  # counts changes of this file and its ingredients that change the sound of a row
SIZES = {"train": 160, "valid": 24, "test": 40}
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


def plan(seed: int = 0, train: int = 160, valid: int = 24, test: int = 40) -> list[Row]:
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
    rows: dict[str, list[Row]] = {}
    texts: set[str] = set()
    for index, (split, (n_women, n_men)) in enumerate(_CAST.items()):
        cast = [next(women) for _ in range(n_women)] + [next(men) for _ in range(n_men)]
        # A generator a split: the size of one does not change the rows of the others.
        rows[split] = _plan_split(
            np.random.default_rng([seed, index]), split, sizes[split], cast, texts
        )
    return [row for split in rows.values() for row in split]
