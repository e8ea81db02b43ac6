"""What scores are broken down by: input SNR, noise and speaker of each utterance."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from data.benchmark import LOG_FOLDER, TEST_LOG, read_log
from data.corpus import is_table, list_pairs

SNR, NOISE, SPEAKER = "input SNR (dB)", "noise", "speaker"
MEASURED, NAMES = "measured", "the files' names"

_MOST_VALUES = 10  # nominal SNRs of more values go into bins, as measured ones do
_MOST_GROUPS = 40  # a table of more columns is none
_EDGES = (-math.inf, -5, 0, 5, 10, 15, 20, math.inf)  # dB; a bin holds its lower edge
_PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"(?P<speaker>[a-z]\d{1,3})_\d{3}(_mic\d)?",  # VCTK, VoiceBank-DEMAND
        r"(?P<speaker>\d+)-\d+-\d{4}",  # LibriSpeech
        r".*_snr(?P<snr>-?\d+(\.\d+)?)(_tl-?\d+(\.\d+)?)?_fileid_\d+",  # DNS challenge
    )
]


@dataclass(frozen=True)
class Breakdown:
    """The utterances of a test in groups.

    axis: SNR, NOISE or SPEAKER. source: where that is from, as a phrase. groups: the utterances by
    their group's label, in order; each in one group at most, few in none.
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
    name, log = _table(root) if root else ("", {})
    keys = {u: u if u in log else PurePosixPath(u).name for u in utterances}
    logged = {u: log[key] for u, key in keys.items() if key in log}
    named = {u: _by_name(u) for u in utterances}
    sources: list[tuple[str, str, dict[str, Any]]] = [
        (SNR, name, {u: x["snr"] for u, x in logged.items() if not math.isnan(x["snr"])}),
        (SNR, NAMES, {u: float(x["snr"]) for u, x in named.items() if "snr" in x}),
        (SNR, MEASURED, {u: x for u, x in snr.items() if not math.isnan(x)}),
        (NOISE, name, {u: x["noise"] for u, x in logged.items() if x["noise"]}),
        (SPEAKER, name, {u: x["speaker"] for u, x in logged.items() if x.get("speaker")}),
        (SPEAKER, NAMES, {u: x["speaker"] for u, x in named.items() if "speaker" in x}),
    ]
    found: dict[str, Breakdown] = {}
    for axis, source, values in sources:
        if axis not in found and values and 10 * len(values) >= 9 * len(utterances):
            binned = source == MEASURED or len(set(values.values())) > _MOST_VALUES
            groups = _bins(values) if axis == SNR and binned else _equal(values)
            found[axis] = Breakdown(axis, source, groups)
    return [each for each in found.values() if 1 < len(each.groups) <= _MOST_GROUPS]


def _table(root: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the name of the corpus' table, and what it says of each utterance."""
    if is_table(root):
        listing = list_pairs(root, "test")
        told = {
            name: {"noise": noise, "snr": snr, "speaker": listing.speakers[name]}
            for name, (noise, snr) in listing.noises.items()
        }
        return root.name, told
    log: dict[str, tuple[str, float]] = {}
    for place in (root, *root.absolute().parents[:2]):
        for path in (place / TEST_LOG, place / LOG_FOLDER / TEST_LOG):
            log = log or read_log(path)
    return TEST_LOG, {name: {"noise": noise, "snr": snr} for name, (noise, snr) in log.items()}


def _by_name(utterance: str) -> dict[str, str]:
    name = PurePosixPath(utterance).name
    matches = (pattern.fullmatch(name) for pattern in _PATTERNS)
    return next((match.groupdict() for match in matches if match), {})


def _equal(values: Mapping[str, Any]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name, value in sorted(values.items(), key=lambda each: each[1]):
        groups[value if isinstance(value, str) else f"{value:g}"].append(name)
    return dict(groups)


def _bins(values: Mapping[str, float]) -> dict[str, list[str]]:
    """Return the utterances by bins of their SNR, from low to high, without the empty ones."""
    groups = {}
    for low, high in pairwise(_EDGES):
        names = [x for x, snr in values.items() if low <= snr < high or snr == high == math.inf]
        label = f"below {high}" if low == -math.inf else f"{low} to {high}"
        if names:
            groups[f"{low} and above" if high == math.inf else label] = names
    return groups
