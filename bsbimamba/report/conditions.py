"""Group the utterances of a test by input SNR, noise and speaker."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from bsbimamba.data.benchmark import LOG_FOLDER, TEST_LOG, read_log
from bsbimamba.data.corpus import is_table, list_pairs

SNR, NOISE, SPEAKER = "input SNR (dB)", "noise", "speaker"
MEASURED, NAMES = "measured", "the files' names"

_MOST_VALUES = 10  # nominal SNRs of more values go into bins, as measured ones do
_MOST_GROUPS = 40  # more columns than this are no table
_EDGES = (-math.inf, -5, 0, 5, 10, 15, 20, math.inf)  # dB; a bin holds its lower edge
_BINS = ("below -5", "-5 to 0", "0 to 5", "5 to 10", "10 to 15", "15 to 20", "20 and above")
_PATTERNS = (
    r"(?P<speaker>[a-z]\d{1,3})_\d{3}(_mic\d)?",  # VCTK, VoiceBank-DEMAND
    r"(?P<speaker>\d+)-\d+-\d{4}",  # LibriSpeech
    r".*_snr(?P<snr>-?\d+(\.\d+)?)(_tl-?\d+(\.\d+)?)?_fileid_\d+",  # DNS challenge
)


@dataclass(frozen=True)
class Breakdown:
    """The utterances of a test in groups.

    axis: SNR, NOISE or SPEAKER. source: where that is from, as a phrase. groups: the utterances by
    their group's label, in order.
    """

    axis: str
    source: str
    groups: dict[str, list[str]]


def find_breakdowns(
    utterances: Sequence[str], snr: Mapping[str, float], root: Path | None
) -> list[Breakdown]:
    """Return what these utterances can be broken down by: up to three breakdowns.

    Each axis comes from the first source that knows it for nine tenths of the files: the table of
    pairs or VoiceBank's log of the test set beside the corpus, the files' names, the measured SNR.
    An axis with one group only, or with more than a table can show, is left out.

    Args:
        utterances: names of files, below the folder of clean ones and without extension.
        snr: measured, in dB, as far as there is one.
        root: of the corpus, the folder of its clean files, or a table of pairs.
    """
    table, known = _table(root) if root else ("", {})
    names = {u: PurePosixPath(u).name for u in utterances}
    listed = {u: known.get(u, known.get(name, {})) for u, name in names.items()}
    named = {
        u: match.groupdict()
        for u, name in names.items()
        for pattern in _PATTERNS
        if (match := re.fullmatch(pattern, name))
    }
    found: dict[str, Breakdown] = {}
    for axis, key in ((SNR, "snr"), (NOISE, "noise"), (SPEAKER, "speaker")):
        sources = {
            table: {u: facts.get(key) for u, facts in listed.items()},
            NAMES: {u: facts.get(key) for u, facts in named.items()},
            MEASURED: snr if axis == SNR else {},
        }
        for source, values in sources.items():
            column = pd.Series(values, utterances, object).replace("", None).dropna()
            if len(column) >= 0.9 * len(utterances) and axis not in found:
                found[axis] = Breakdown(axis, source, _groups(axis, source, column))
    return [each for each in found.values() if 1 < len(each.groups) <= _MOST_GROUPS]


def _table(root: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the name of the corpus' table or log, and what it says of each utterance."""
    if is_table(root):
        listing = list_pairs(root, "test")
        return root.name, {
            name: {"noise": noise, "snr": snr, "speaker": listing.speakers[name]}
            for name, (noise, snr) in listing.noises.items()
        }
    log: dict[str, tuple[str, float]] = {}
    for place in (root, *root.absolute().parents[:2]):
        log = log or read_log(place / TEST_LOG) or read_log(place / LOG_FOLDER / TEST_LOG)
    return TEST_LOG, {name: {"noise": noise, "snr": snr} for name, (noise, snr) in log.items()}


def _groups(axis: str, source: str, column: pd.Series) -> dict[str, list[str]]:
    """Return the utterances by label, in order: of SNRs from low to high, else by the alphabet."""
    if axis == SNR:
        column = column.astype(float)
        if source == MEASURED or column.nunique() > _MOST_VALUES:
            finite = column.clip(upper=1e6)  # a clean recording has an infinite SNR
            column = pd.cut(finite, _EDGES, right=False, labels=_BINS)
    grouped = column.groupby(column, observed=True)
    return {
        f"{label:g}" if isinstance(label, float) else str(label): list(group.index)
        for label, group in grouped
    }
