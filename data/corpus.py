"""What a folder of recordings holds: pairs or single files, looked over, each with its speaker.

Free of torch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.audio import SAMPLE_RATE, Info
from data.errors import DataError
from data.index import look_over
from data.listing import Listing, find_recordings, list_pairs
from data.speakers import is_test_speaker, speakers_of
from data.text import some, some_lines

log = logging.getLogger("data")

_LISTED = 20  # files, before "and N more"
_ANOTHER = "is another file than the corpus' manifest says (python -m data.verify tells more)"
PAIR_TOLERANCE = SAMPLE_RATE // 10
EXTRACTED_TWICE = "the archive was extracted twice, into itself: remove the inner folder"
_TEST_SPEAKER = (
    "{} is a test speaker of VoiceBank-DEMAND (if this is somebody else, say so in speakers.csv)"
)


@dataclass(frozen=True)
class Recording:
    """One usable file. name: its path below its folder, without extension."""

    name: str
    path: Path
    speaker: str
    info: Info


@dataclass(frozen=True)
class Pair:
    """A clean and a noisy recording of one utterance. frames: their common length at 16 kHz."""

    name: str
    clean: Path
    noisy: Path
    speaker: str
    frames: int


def load_pairs(root: Path, split: str, skip_bad: bool = False) -> list[Pair]:
    """All pairs of a split of a corpus, looked over.

    What a corpus may be: see `data.listing.list_pairs`. Of two lengths that differ by at most
    0.1 s the common part counts. The benchmark's test speakers are refused but in "test".

    Raises:
        DataError: there is no such split, nothing of it is usable, or a file is bad and `skip_bad`
            is not set.
    """
    return pairs_of(list_pairs(root, split), root, split, skip_bad)


def pairs_of(listing: Listing, root: Path, split: str, skip_bad: bool | None = None) -> list[Pair]:
    """The pairs of what has been listed: see `load_pairs`. None: there is no going on without."""
    clean, noisy = listing.clean, listing.noisy
    if listing.nested:
        folder = listing.folders[0] / listing.folders[0].name
        raise DataError(f"{folder}: {EXTRACTED_TWICE}")
    bad = _alone(noisy, clean, "clean") | _alone(clean, noisy, "noisy")
    names = sorted(clean.keys() & noisy.keys())
    found = look_over([side[name] for name in names for side in (clean, noisy)])
    pairs = []
    for name in names:
        speaker = listing.speakers[name]
        one, other = found[clean[name]], found[noisy[name]]
        if isinstance(one, str) or isinstance(other, str):
            sides = ((clean[name], one), (noisy[name], other))
            bad |= {path: reason for path, reason in sides if isinstance(reason, str)}
        elif split != "test" and is_test_speaker(speaker):
            bad[clean[name]] = _TEST_SPEAKER.format(speaker)
        elif abs(one.frames - other.frames) > PAIR_TOLERANCE:
            seconds = (info.frames / SAMPLE_RATE for info in (other, one))
            bad[noisy[name]] = "lasts {:.2f} s, its clean file {:.2f} s".format(*seconds)
        else:
            frames = min(one.frames, other.frames)
            if frames != listing.frames.get(name, frames):
                bad[noisy[name]] = f"{_ANOTHER}: it was {listing.frames[name]} samples long"
                continue
            pairs.append(Pair(name, clean[name], noisy[name], speaker, frames))
    _report(root, found, bad, len(pairs), skip_bad)
    return pairs


def _alone(own: Mapping[str, Path], others: Mapping[str, Path], side: str) -> dict[Path, str]:
    """Why files make no pair. Names that differ in capital letters are not taken for the same."""
    alike = {name.casefold(): path for name, path in others.items() if name not in own}
    reasons = {}
    for name in own.keys() - others:
        reasons[own[name]] = f"has no {side} file of that name"
        if name.casefold() in alike:
            reasons[own[name]] += f", only {alike[name.casefold()].name}"
    return reasons


def load_recordings(
    folder: Path, skip_bad: bool | None = False, speech: bool = True
) -> list[Recording]:
    """All recordings below a folder, looked over. speech: refuse the benchmark's test speakers.

    Raises:
        DataError: the folder is missing, nothing in it is usable, or a file is bad and `skip_bad`
            is not set.
    """
    files = find_recordings(folder)
    found = look_over(list(files.values()))
    speakers = speakers_of(folder, files.values())
    recordings, bad = [], {}
    for name, path in files.items():
        info, speaker = found[path], speakers[path]
        if isinstance(info, str):
            bad[path] = info
        elif speech and is_test_speaker(speaker):
            bad[path] = _TEST_SPEAKER.format(speaker)
        else:
            recordings.append(Recording(name, path, speaker, info))
    _report(folder, found, bad, len(recordings), skip_bad)
    return recordings


def _report(
    where: Path,
    found: dict[Path, Info | str],
    bad: dict[Path, str],
    usable: int,
    skip_bad: bool | None,
) -> None:
    converted = [p for p, i in found.items() if isinstance(i, Info) and i.rate != SAMPLE_RATE]
    mixed = [p for p, i in found.items() if isinstance(i, Info) and i.channels != 1]
    for files, what in ((converted, "resampled to 16 kHz"), (mixed, "mixed down to mono")):
        if files:
            named = some([_below(where, path) for path in files], _LISTED)
            log.info("%s: %d files are %s: %s", where, len(files), what, named)
    if not bad and usable:
        return
    lines = some_lines([f"{path}: {reason}" for path, reason in sorted(bad.items())], _LISTED)
    listing = f"{where}: {len(bad)} files cannot be used:\n{lines}"
    if not usable:
        raise DataError(f"{listing}\nNothing is left.")
    if not skip_bad:
        without = ", or go on without them: --skip-bad" if skip_bad is not None else ""
        raise DataError(f"{listing}\nRepair or remove them{without}.")
    log.warning("%s", listing)


def _below(where: Path, path: Path) -> str:
    return str(path.relative_to(where) if path.is_relative_to(where) else path)
