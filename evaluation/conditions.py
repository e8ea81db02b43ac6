"""Under which conditions each utterance of a test was recorded: what scores are broken down by.

Input SNR, noise and speaker, each from the first that knows it: tables that came with the corpus,
the files' names, measured SNRs. Free of torch.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from data.benchmark import LOG_FOLDER, TEST_LOG, read_log
from data.corpus import find_recordings, is_table, list_pairs, pair_folders
from data.speakers import speakers_of
from data.utils import DataError

log = logging.getLogger("evaluation")

SNR, NOISE, SPEAKER = "input SNR (dB)", "noise", "speaker"
SPEAKERS = "speakers.csv"

# Nominal SNRs of more values than this go into bins, as measured ones do.
_MOST_VALUES = 10
_MOST_GROUPS = 40  # a table of more columns is none
_EDGES = (-5, 0, 5, 10, 15, 20)  # dB; a bin holds its lower edge

_NAMES = [
    re.compile(pattern)
    for pattern in (
        # VCTK and what is made of it, as VoiceBank-DEMAND: p232_001.
        r"(?P<speaker>[a-z]\d{1,3})_\d{3}(_mic\d)?",
        # LibriSpeech: speaker, chapter, utterance.
        r"(?P<speaker>\d+)-\d+-\d{4}",
        # The DNS challenge's synthesizer; its names begin with the speech's and the noise's own.
        r".*_snr(?P<snr>-?\d+(\.\d+)?)(_tl-?\d+(\.\d+)?)?_fileid_\d+",
        # NOIZEUS: sentence, noise, SNR.
        r"sp\d\d_(?P<noise>[a-z]+)_sn(?P<snr>-?\d+)",
    )
]


@dataclass(frozen=True)
class Conditions:
    """Those of one utterance, as far as they are known. snr: in dB."""

    snr: float | None = None
    noise: str | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Breakdown:
    """The utterances of a test in groups.

    axis: SNR, NOISE or SPEAKER. source: where that is from, as a phrase. groups: the utterances by
    their group's label, numbers from low to high, words in alphabetical order; each in one group
    at most, few in none.
    """

    axis: str
    source: str
    groups: dict[str, list[str]]

    @property
    def labels(self) -> dict[str, str]:
        """The group's label of each utterance that has one."""
        return {name: label for label, names in self.groups.items() for name in names}


def find_conditions(
    utterances: Sequence[str], snr: Mapping[str, float], root: Path | None
) -> list[Breakdown]:
    """What these utterances can be broken down by: nothing, or up to three breakdowns.

    A breakdown is left out whose source does not know more than a tenth of the files, or which
    has one group only, or more than a table can show. A table that cannot be read is one of
    nothing, with a warning.

    Args:
        utterances: names of files, below the folder of clean ones and without extension.
        snr: measured, in dB, as far as there is one; what nothing else says is taken from here.
        root: of the corpus, or the folder of its clean files, or a table of pairs; the tables
            lie there, in `logfiles` below it, or beside the folders of clean and noisy files.
    """
    nominal = [
        *(_tables(root) if root else ()),
        ("the files' names", {name: _by_name(name) for name in utterances}),
    ]
    breakdowns = []
    for axis, key in ((SNR, "snr"), (NOISE, "noise"), (SPEAKER, "speaker")):
        sources = [
            (source, {name: getattr(_look_up(table, name), key) for name in utterances})
            for source, table in nominal
        ]
        if axis == SNR:
            sources.append(("measured", {name: snr.get(name) for name in utterances}))
        for source, values in sources:
            known = {name: value for name, value in values.items() if _is_known(value)}
            if not known or 10 * (len(values) - len(known)) > len(values):
                continue
            groups = _by_snr(known, source == "measured") if axis == SNR else _by_word(known)
            if 1 < len(groups) <= _MOST_GROUPS:
                breakdowns.append(Breakdown(axis, source, groups))
            break
    return breakdowns


def _is_known(value: float | str | None) -> bool:
    return bool(value) if isinstance(value, str) else value is not None and not math.isnan(value)


def _by_word(values: Mapping[str, str]) -> dict[str, list[str]]:
    labels = sorted(set(values.values()))
    return {label: [name for name in values if values[name] == label] for label in labels}


def _by_snr(values: Mapping[str, float], measured: bool) -> dict[str, list[str]]:
    """Groups of equal SNR; bins where it is measured or has many values, without the empty ones."""
    distinct = sorted(set(values.values()))
    if not measured and len(distinct) <= _MOST_VALUES:
        labels = dict.fromkeys(f"{snr:g}" for snr in distinct)
        return {label: [n for n, snr in values.items() if f"{snr:g}" == label] for label in labels}
    return snr_bins(values)


def snr_bins(values: Mapping[str, float]) -> dict[str, list[str]]:
    """Utterances by bins of their measured SNR in dB, from low to high, without the empty ones."""
    groups = {}
    for low, high in pairwise((-math.inf, *_EDGES, math.inf)):
        # The outermost bins are open: what is infinite is in them.
        names = [x for x, snr in values.items() if low <= snr < high or snr == high == math.inf]
        if names:
            groups[_bin_label(low, high)] = names
    return groups


def _bin_label(low: float, high: float) -> str:
    if low == -math.inf:
        return f"below {high}"
    return f"{low} and above" if high == math.inf else f"{low} to {high}"


def _look_up(table: Mapping[str, Conditions], utterance: str) -> Conditions:
    """A table names files by their path, or without the folders."""
    found = table.get(utterance) or table.get(PurePosixPath(utterance).name)
    return found or Conditions()


def _by_name(utterance: str) -> Conditions:
    for pattern in _NAMES:
        if match := pattern.fullmatch(PurePosixPath(utterance).name):
            found = match.groupdict()
            snr = float(found["snr"]) if "snr" in found else None
            return Conditions(snr, found.get("noise"), found.get("speaker"))
    return Conditions()


def _tables(root: Path) -> Iterator[tuple[str, dict[str, Conditions]]]:
    """The tables of a corpus, each with its file's name."""
    root = root.absolute()
    if is_table(root):
        listing = list_pairs(root, "test")
        yield (
            root.name,
            {
                name: Conditions(snr, noise or None, listing.speakers[name])
                for name, (noise, snr) in listing.noises.items()
            },
        )
        return
    folders = pair_folders(root, "test")
    clean = folders[0] if folders else root
    # A folder of clean files may be the corpus's own, or one of a split's (test/clean).
    places = (root, clean.parent) if folders else (root, root.parent, root.parent.parent)
    for place in dict.fromkeys(places):
        for path in (place / TEST_LOG, place / LOG_FOLDER / TEST_LOG):
            log_lines = read_log(path)
            yield (
                TEST_LOG,
                {name: Conditions(snr, noise) for name, (noise, snr) in log_lines.items()},
            )
    yield SPEAKERS, _read_speakers(clean)


def _read_speakers(clean: Path) -> dict[str, Conditions]:
    """What `speakers.csv` beside the clean files says."""
    if not os.path.isfile(clean / SPEAKERS):
        return {}
    try:
        files = find_recordings(clean)
        speakers = speakers_of(clean, files.values())
    except DataError as error:
        log.warning("%s is left out: %s", clean / SPEAKERS, error)
        return {}
    return {name: Conditions(speaker=speakers[path]) for name, path in files.items()}
