"""What a folder of recordings holds: pairs or single files, looked over, each with its speaker.

Free of torch.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from data.audio import SAMPLE_RATE, AudioError, Info, find_audio
from data.errors import DataError
from data.index import look_over
from data.speakers import is_test_speaker, speakers_of

log = logging.getLogger("data")

# Folders of clean and noisy files below a corpus, by split, most specific first.
_LAYOUTS = {
    "train": (
        ("train/clean", "train/noisy"),
        ("clean_trainset_28spk_wav", "noisy_trainset_28spk_wav"),
        ("clean_trainset_56spk_wav", "noisy_trainset_56spk_wav"),
        ("clean", "noisy"),
    ),
    "valid": (("valid/clean", "valid/noisy"),),
    "test": (
        ("test/clean", "test/noisy"),
        ("clean_testset_wav", "noisy_testset_wav"),
        ("clean", "noisy"),
    ),
}
_LISTED = 20  # files, before "and N more"
PAIR_TOLERANCE = SAMPLE_RATE // 10
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


def pair_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """The clean and the noisy folder of a split ("train", "valid", "test"), or None."""
    for clean, noisy in _LAYOUTS[split]:
        # A folder that may not be looked into is none, as os.path sees it.
        if os.path.isdir(root / clean) and os.path.isdir(root / noisy):
            return root / clean, root / noisy
    return None


def load_pairs(root: Path, split: str, skip_bad: bool = False) -> list[Pair]:
    """All pairs of a split of a corpus, looked over.

    Of two lengths that differ by at most 0.1 s the common part counts. The benchmark's test
    speakers are refused but in "test".

    Raises:
        DataError: there is no such split, nothing of it is usable, or a file is bad and `skip_bad`
            is not set.
    """
    folders, clean, noisy = find_pairs(root, split)
    bad = {noisy[name]: "has no clean file of that name" for name in noisy.keys() - clean}
    bad |= {clean[name]: "has no noisy file of that name" for name in clean.keys() - noisy}
    names = sorted(clean.keys() & noisy.keys())
    found = look_over([side[name] for name in names for side in (clean, noisy)])
    speakers = speakers_of(folders[0], [clean[name] for name in names])
    pairs = []
    for name in names:
        speaker = speakers[clean[name]]
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
            pairs.append(Pair(name, clean[name], noisy[name], speaker, frames))
    _report(root, found, bad, len(pairs), skip_bad)
    return pairs


def find_pairs(
    root: Path, split: str
) -> tuple[tuple[Path, Path], dict[str, Path], dict[str, Path]]:
    """The clean and the noisy folder of a split, and the files in each by name, not looked into.

    Raises:
        DataError: there is no such split, or a folder has no audio.
    """
    folders = pair_folders(root, split)
    if folders is None:
        known = ", ".join(f"{clean} + {noisy}" for clean, noisy in _LAYOUTS[split])
        raise DataError(f"{root}: no {split} pairs. Known folders below it: {known}.")
    clean, noisy = (find_recordings(folder) for folder in folders)
    return folders, clean, noisy


def load_recordings(folder: Path, skip_bad: bool = False, speech: bool = True) -> list[Recording]:
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


def find_recordings(folder: Path) -> dict[str, Path]:
    """`data.audio.find_audio`, where finding nothing is a DataError."""
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder, or one that may not be looked into")
    try:
        files = find_audio(folder)
    except AudioError as error:
        raise DataError(f"{folder}: {error}") from None
    if not files:
        raise DataError(f"{folder}: no audio in it (wav, flac, ogg or opus)")
    return files


def _report(
    where: Path,
    found: dict[Path, Info | str],
    bad: dict[Path, str],
    usable: int,
    skip_bad: bool,
) -> None:
    converted = [p for p, i in found.items() if isinstance(i, Info) and i.rate != SAMPLE_RATE]
    mixed = [p for p, i in found.items() if isinstance(i, Info) and i.channels != 1]
    for files, what in ((converted, "resampled to 16 kHz"), (mixed, "mixed down to mono")):
        if files:
            named = ", ".join(str(path.relative_to(where)) for path in files[:_LISTED])
            more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
            log.info("%s: %d files are %s: %s%s", where, len(files), what, named, more)
    if not bad and usable:
        return
    lines = [f"  {path}: {reason}" for path, reason in sorted(bad.items())]
    if len(lines) > _LISTED:
        lines = [*lines[:_LISTED], f"  and {len(lines) - _LISTED} more"]
    listing = "\n".join([f"{where}: {len(bad)} files cannot be used:", *lines])
    if not usable:
        raise DataError(f"{listing}\nNothing is left.")
    if not skip_bad:
        raise DataError(f"{listing}\nRepair or remove them, or go on without them: --skip-bad.")
    log.warning("%s", listing)
