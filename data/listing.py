"""Which files of a corpus make a split: by a manifest, a table of pairs, or folders of them.

Nothing is looked into. Free of torch.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.audio import EXTENSIONS, SAMPLE_RATE, AudioError, find_audio
from data.entry import SPLITS, path_of, read_entries
from data.errors import DataError
from data.pair_table import is_table, read_table
from data.speakers import is_test_speaker, speaker_by_name, speakers_of, vctk_numbers

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
# As Microsoft's DNS challenge names what its synthesizer makes: clean_fileid_7 belongs to
# book_00000_..._reader_06709_..._snr15_tl-24_fileid_7, whatever comes before.
_CLEAN_ID = re.compile(r"(?:.*/)?clean_fileid_(\d+)")
_NOISY_ID = re.compile(r"(?:.*_)?fileid_(\d+)")
_READER = re.compile(r"reader_\d+")


@dataclass(frozen=True)
class Listing:
    """The files of a split, not looked into.

    Attributes:
        folders: that of the clean and that of the noisy files.
        clean, noisy: paths by utterance. One that only one of the two has makes no pair.
        speakers: by utterance, of every clean file.
        frames: by utterance, lengths at 16 kHz that a manifest has.
        nested: clean files in a folder that lies in one of its own name: an archive in itself.
    """

    folders: tuple[Path, Path]
    clean: Mapping[str, Path]
    noisy: Mapping[str, Path]
    speakers: Mapping[str, str]
    frames: Mapping[str, int] = field(default_factory=dict)
    nested: tuple[str, ...] = ()


def list_pairs(root: Path, split: str) -> Listing:
    """What a corpus has of a split ("train", "valid", "test").

    `root` is a folder with manifests (`data.manifest`) or with folders of clean and noisy files
    of the same names or of the DNS challenge's (`pair_up`), or a table `*.csv` of pairs.

    Raises:
        DataError: there is no such split, or a manifest or table cannot be used, or a folder has
            no audio.
    """
    if is_table(root):
        table = read_table(root, split)
        if not table.clean:
            raise DataError(f"{root} has no {split} pairs")
        return Listing((root.parent, root.parent), table.clean, table.noisy, table.speakers)
    listing = _in_manifest(root, split)
    if listing is None and split == "train" and os.path.isfile(path_of(root, "valid")):
        raise DataError(
            f"{path_of(root, split)} is missing beside {path_of(root, 'valid').name}: "
            f"python -m data.manifest {root} makes both anew"
        )
    if listing is None and (other := _claimed(root, split)):
        raise DataError(
            f"{root}: no {split} pairs. What is there is for {other}, says {path_of(root, other)}; "
            "remove that, if it is to serve for both."
        )
    listing = listing or in_folders(root, split)
    if listing is None:
        known = ", ".join(f"{clean} + {noisy}" for clean, noisy in _LAYOUTS[split])
        raise DataError(f"{root}: no {split} pairs. Known folders below it: {known}.")
    return listing


def has_split(root: Path, split: str) -> bool:
    """Whether there seems to be such a split.

    Raises:
        DataError: a table cannot be used.
    """
    if is_table(root):
        return bool(read_table(root, split).clean)
    if os.path.lexists(path_of(root, split)):
        return True
    return pair_folders(root, split) is not None and not _claimed(root, split)


def _claimed(root: Path, split: str) -> str:
    """Another split that a manifest has put the files of this one's folders into, or ""."""
    folders = pair_folders(root, split)
    others = (x for x in SPLITS if x != split and os.path.isfile(path_of(root, x)))
    return next((x for x in others if folders and pair_folders(root, x) == folders), "")


def splits_in(root: Path) -> tuple[str, ...]:
    """The splits that a corpus has on the disk, whatever manifests say; each pair is in one.

    Raises:
        DataError: a table cannot be used, or see `folder_splits`.
    """
    if is_table(root):
        splits = [split for split in SPLITS if read_table(root, split).clean]
        # Without splits its pairs serve for training and for a test; here once is enough.
        same = read_table(root, "train").noisy == read_table(root, "test").noisy
        return tuple(split for split in splits if not (same and split == "test"))
    return folder_splits(root) or tuple(x for x in SPLITS if os.path.lexists(path_of(root, x)))


def folder_splits(root: Path) -> tuple[str, ...]:
    """The splits that a corpus has folders of, such that no pair is in two of them.

    The folders clean and noisy by themselves are "test" if all in them are the benchmark's test
    speakers, else "train", although they serve as both.

    Raises:
        DataError: they hold no audio.
    """
    splits = tuple(split for split in SPLITS if pair_folders(root, split))
    if pair_folders(root, "train") != pair_folders(root, "test"):
        return splits
    listing = in_folders(root, "test")
    tested = listing is not None and all(map(is_test_speaker, listing.speakers.values()))
    return tuple(split for split in splits if split != ("train" if tested else "test"))


def pair_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    """The clean and the noisy folder of a split ("train", "valid", "test"), or None."""
    for clean, noisy in _LAYOUTS[split]:
        # A folder that may not be looked into is none, as os.path sees it.
        if os.path.isdir(root / clean) and os.path.isdir(root / noisy):
            return _unpacked(root / clean), _unpacked(root / noisy)
    return None


def half_of_pairs(root: Path) -> Path | None:
    """A folder that would be one side of pairs, if there were the other."""
    for layouts in _LAYOUTS.values():
        for sides in layouts:
            there = [root / side for side in sides if os.path.isdir(root / side)]
            if len(there) == 1:
                return there[0]
    return None


def _unpacked(folder: Path) -> Path:
    """The folder, or the one of its name in it that is all there is, as some programs unpack."""
    inner = folder / folder.name
    try:
        alone = os.path.isdir(inner) and not any(
            each.suffix.lower() in EXTENSIONS for each in folder.iterdir() if each != inner
        )
    except OSError:
        return folder
    return inner if alone else folder


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


def pair_up(clean: Mapping[str, Path], noisy: Mapping[str, Path]) -> dict[str, Path]:
    """The clean files by the names of their noisy ones, and those that have none by their own.

    Names are the same on both sides, or end in the same `fileid_N` in the DNS challenge's way,
    where several noisy files may share a clean one.
    """
    by_id = {_place(name, m): name for name in clean if (m := _CLEAN_ID.fullmatch(name))}
    paired, used = {}, set()
    for name in noisy:
        match = _NOISY_ID.fullmatch(PurePosixPath(name).name)
        own = name if name in clean else by_id.get(_place(name, match)) if match else None
        if own is not None:
            paired[name] = clean[own]
            used.add(own)
    return paired | {name: path for name, path in clean.items() if name not in used}


def _place(name: str, match: re.Match[str]) -> tuple[PurePosixPath, int]:
    """Sub-folders may number their files each for itself."""
    return PurePosixPath(name).parent, int(match[1])


def in_folders(root: Path, split: str) -> Listing | None:
    """`list_pairs` of folders alone, whatever manifests say; None where there are none."""
    folders = pair_folders(root, split)
    if folders is None:
        return None
    by_name, noisy = (find_recordings(folder) for folder in folders)
    clean = pair_up(by_name, noisy)
    names = defaultdict(list)
    for name, path in clean.items():
        names[path.relative_to(folders[0]).as_posix()].append(name)
    by_path = speakers_of(folders[0], by_name.values(), lambda file: _speaker(file, names[file]))
    speakers = {name: by_path[path] for name, path in clean.items()}
    own = folders[0].name
    nested = tuple(name for name in clean if PurePosixPath(name).parts[0] == own)
    return Listing(folders, clean, noisy, speakers, nested=nested)


def _speaker(file: str, utterances: Sequence[str]) -> str:
    """Who speaks in a clean file that is in these utterances.

    Of the DNS challenge's, a reader or VCTK speaker that one of the noisy files is named after,
    else nobody known, and the file stands for itself.
    """
    own = PurePosixPath(file).with_suffix("").as_posix()
    if not _CLEAN_ID.fullmatch(own):
        return speaker_by_name(file)
    text = " ".join(sorted(utterances))
    found = [*vctk_numbers(text), *_READER.findall(text)]
    return found[0] if found else own


def _in_manifest(root: Path, split: str) -> Listing | None:
    path = path_of(root, split)
    if not os.path.lexists(path):
        return None
    entries = read_entries(path)
    for entry in entries:
        if entry.files.keys() != {"clean", "noisy"}:
            raise DataError(f"{path}: {entry.name} is no pair of a clean and a noisy file")
    clean, noisy = ({e.name: root / e.files[side] for e in entries} for side in ("clean", "noisy"))
    _warn_of_others(root, split)
    return Listing(
        pair_folders(root, split) or (root, root),
        clean,
        noisy,
        {e.name: e.speaker for e in entries},
        {e.name: round(e.seconds * SAMPLE_RATE) for e in entries},
    )


def _warn_of_others(root: Path, split: str) -> None:
    """Say so where a folder holds noisy files that no manifest knows of."""
    folders = pair_folders(root, split)
    if folders is None:
        return
    # Files of one folder may be in several manifests. That of a test in folders of its own is not
    # opened for training.
    sharing = {each for each in SPLITS if each == split or pair_folders(root, each) == folders}
    if split in ("train", "valid"):
        sharing |= {"train", "valid"}
    known = {
        os.path.normpath(root / entry.files["noisy"])
        for each in sharing
        if os.path.isfile(path_of(root, each))
        for entry in read_entries(path_of(root, each))
        if "noisy" in entry.files
    }
    others = [x for x in find_recordings(folders[1]).values() if os.path.normpath(x) not in known]
    if others:
        log.warning(
            "%s: %d files are in no manifest and left out, %s among them. To take them in: "
            "python -m data.manifest %s",
            folders[1],
            len(others),
            others[0].relative_to(folders[1]),
            root,
        )
