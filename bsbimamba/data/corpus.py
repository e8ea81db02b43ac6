"""Which files of a corpus make pairs, who speaks in them, and whether they can be used.

A corpus of pairs is a folder that has folders of clean and of noisy files, or a table (CSV).
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bsbimamba.data.audio import Info, look_over, recordings
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.speakers import is_test_speaker, read_rows, speakers_of
from bsbimamba.utils import DataError, some

log = logging.getLogger("data")

SPLITS = ("train", "valid", "test")
# Folders of clean and noisy files below a corpus, by split, most specific first.
LAYOUTS = {
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
_TEST_SPEAKER = (
    "{} is a test speaker of VoiceBank-DEMAND (if this is somebody else, say so in speakers.csv)"
)
_LISTED = 20  # files, before "and N more"
_PAIR_TOLERANCE = SAMPLE_RATE // 10


@dataclass(frozen=True)
class Recording:
    """One usable file. name: its path below its folder, without extension."""

    name: str
    path: Path
    speaker: str
    info: Info

    @property
    def frames(self) -> int:
        """Return the length in samples at 16 kHz."""
        return self.info.frames


@dataclass(frozen=True)
class Pair:
    """A clean and a noisy recording of one utterance. frames: their common length at 16 kHz."""

    name: str
    clean: Path
    noisy: Path
    speaker: str
    frames: int


@dataclass(frozen=True)
class Listing:
    """The files of a split, unopened.

    Attributes:
        clean, noisy: paths by utterance. One that only one of the two has makes no pair.
        speakers: by utterance, of every clean file.
        noises: noise and SNR in dB by utterance, where a table names them (else "" and NaN).
    """

    clean: dict[str, Path] = field(default_factory=dict)
    noisy: dict[str, Path] = field(default_factory=dict)
    speakers: dict[str, str] = field(default_factory=dict)
    noises: dict[str, tuple[str, float]] = field(default_factory=dict)


def load_pairs(root: Path, split: str, skip_bad: bool = False) -> list[Pair]:
    """Return all pairs of a split of a corpus (`list_pairs`), sorted by name; check every file.

    Where two lengths differ by at most 0.1 s, the common part is used. The benchmark's test
    speakers are refused except in "test".

    Raises DataError if there is no such split, nothing of it is usable, or a file is bad and
    `skip_bad` is not set.
    """
    pairs, bad = check_pairs(list_pairs(root, split), split)
    _report(root, bad, len(pairs), skip_bad)
    return pairs


def check_pairs(listing: Listing, split: str) -> tuple[list[Pair], dict[Path, str]]:
    """Return the usable pairs of a split, sorted by name, and why files cannot be used."""
    clean, noisy = listing.clean, listing.noisy
    bad = {noisy[name]: "has no clean file of that name" for name in noisy.keys() - clean}
    bad |= {clean[name]: "has no noisy file of that name" for name in clean.keys() - noisy}
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
        elif abs(one.frames - other.frames) > _PAIR_TOLERANCE:
            seconds = (info.frames / SAMPLE_RATE for info in (other, one))
            bad[noisy[name]] = "lasts {:.2f} s, its clean file {:.2f} s".format(*seconds)
        else:
            frames = min(one.frames, other.frames)
            pairs.append(Pair(name, clean[name], noisy[name], speaker, frames))
    return pairs, bad


def load_recordings(folder: Path, skip_bad: bool = False, speech: bool = True) -> list[Recording]:
    """Return all recordings below a folder, sorted by name; check every file.

    speech: refuse the benchmark's test speakers. Raises as `load_pairs` does.
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
    _report(folder, bad, len(recordings), skip_bad)
    return recordings


def _report(where: Path, bad: dict[Path, str], usable: int, skip_bad: bool) -> None:
    """Raise DataError about bad files, or warn of them."""
    if not bad and usable:
        return
    lines = some([f"{path}: {reason}" for path, reason in sorted(bad.items())], _LISTED, "\n  ")
    listing = f"{where}: {len(bad)} files cannot be used:\n  {lines}"
    if not usable:
        raise DataError(f"{listing}\nNothing is left.")
    if not skip_bad:
        raise DataError(f"{listing}\nRepair or remove them, or go on without them: --skip-bad.")
    log.warning("%s", listing)


def list_pairs(root: Path, split: str) -> Listing:
    """Return which files of a corpus make a split ("train", "valid", "test").

    Names are the same on both sides. Raises DataError if there is no such split, a table cannot be
    used, or a folder has no audio.
    """
    if not has_split(root, split):
        known = ", ".join(f"{clean} + {noisy}" for clean, noisy in LAYOUTS[split])
        where = "" if is_table(root) else f". Known folders below it: {known}."
        raise DataError(f"{root}: no {split} pairs{where}")
    if is_table(root):
        return _in_table(root, split)
    folder, other = pair_folders(root, split)
    clean, noisy = find_recordings(folder), find_recordings(other)
    by_path = speakers_of(folder, clean.values())
    return Listing(clean, noisy, {name: by_path[path] for name, path in clean.items()})


def has_split(root: Path, split: str) -> bool:
    """Tell whether there is such a split. Raise DataError if a table cannot be used."""
    return bool(_in_table(root, split).clean if is_table(root) else pair_folders(root, split))


def is_table(root: Path) -> bool:
    """Tell whether a corpus is a table rather than a folder."""
    return root.suffix.lower() == ".csv" and not root.is_dir()


def pair_folders(root: Path, split: str) -> tuple[Path, ...]:
    """Return the clean and the noisy folder of a split ("train", "valid", "test"), or nothing."""
    for names in LAYOUTS[split]:
        clean, noisy = (root / name for name in names)
        if clean.is_dir() and noisy.is_dir():
            return _unpacked(clean), _unpacked(noisy)
    return ()


def _unpacked(folder: Path) -> Path:
    """Return the folder, or the only one in it if that has its name, as archives are unpacked."""
    inner = folder / folder.name
    return inner if os.listdir(folder) == [folder.name] and os.path.isdir(inner) else folder


def find_recordings(folder: Path) -> dict[str, Path]:
    """Return the audio files below a folder by relative path without extension, sorted.

    Raises DataError if there are none, or if two differ in their extension only.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in recordings(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if found.setdefault(name, path) != path:
            raise DataError(f"both {found[name]} and {path} are there; remove one")
    if not found:
        raise DataError(f"{folder}: no audio in it")
    return found


def _in_table(path: Path, split: str) -> Listing:
    """Return the pairs of a split of a table.

    Its columns are clean and noisy, files as seen from the table's folder. It may have split, name
    of the utterance (else the clean file as the table has it, without extension), speaker (else as
    `speakers_of` finds it), noise and snr_db. Pairs without a split are in "train" and "test".
    """
    rows = read_rows(path, ("clean", "noisy"), ("split", "name", "speaker", "noise", "snr_db"))
    # Speakers are found for all splits at once, so that each has one name in all of them.
    files = [Path(os.path.abspath(path.parent / row["clean"])) for row in rows]
    above = Path(os.path.commonpath([file.parent for file in files] or [path.parent]))
    found = speakers_of(above, files)
    splits = SPLITS if any(row["split"] for row in rows) else ("",)
    listing = Listing()
    for row, file in zip(rows, files, strict=True):
        if row["split"] not in splits:
            raise DataError(f"{path}: the split {row['split']!a} is not one of {SPLITS}")
        if split not in ((row["split"],) if row["split"] else ("train", "test")):
            continue
        parts = PurePosixPath(row["clean"]).with_suffix("").parts
        name = row["name"] or "/".join(part for part in parts if part not in ("/", "//", ".."))
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path}: the name {name!a} leads out of the folder of results")
        if name in listing.clean:
            raise DataError(f"{path}: two pairs are called {name}")
        try:
            listing.noises[name] = row["noise"], float(row["snr_db"] or "nan")
        except ValueError:
            raise DataError(f"{path}: snr_db {row['snr_db']!a} is not a number") from None
        listing.clean[name] = path.parent / row["clean"]
        listing.noisy[name] = path.parent / row["noisy"]
        listing.speakers[name] = row["speaker"] or found[file]
    return listing
