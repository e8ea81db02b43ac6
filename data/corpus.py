"""What a folder of recordings holds: layouts, speakers, bad files, and who is held out.

Free of torch.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from data.audio import SAMPLE_RATE, AudioError, Info, find_audio, inspect
from data.errors import DataError
from data.workers import usable_cores

log = logging.getLogger("data")

ROOT = Path(__file__).resolve().parents[1]
# Looking a file over means decoding all of it; what was found is kept between runs.
_INDEX = ROOT / ".cache" / "audio-index.json"
_INFO_FIELDS = [field.name for field in fields(Info)]

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
# The speakers of VoiceBank-DEMAND's test set. Trained on, they would spoil that test.
_TEST_SPEAKERS = {"p232", "p257", "vctk:p232", "vctk:p257"}
_PAIR_TOLERANCE = SAMPLE_RATE // 10


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
        if (root / clean).is_dir() and (root / noisy).is_dir():
            return root / clean, root / noisy
    return None


def load_pairs(root: Path, split: str, skip_bad: bool = False) -> list[Pair]:
    """All pairs of a split of a corpus, looked over.

    Raises:
        DataError: there is no such split, or files are bad and `skip_bad` is not set.
    """
    folders = pair_folders(root, split)
    if folders is None:
        known = ", ".join(f"{clean} + {noisy}" for clean, noisy in _LAYOUTS[split])
        raise DataError(f"{root}: no {split} pairs. Known folders below it: {known}.")
    clean, noisy = (find_recordings(folder) for folder in folders)
    bad = {folders[1] / name: "has no clean file of that name" for name in noisy.keys() - clean}
    bad |= {folders[0] / name: "has no noisy file of that name" for name in clean.keys() - noisy}
    names = sorted(clean.keys() & noisy.keys())
    found = look_over([side[name] for name in names for side in (clean, noisy)])
    speaker_of = _speakers(folders[0])
    pairs = []
    for name in names:
        infos = [found[side[name]] for side in (clean, noisy)]
        speaker = speaker_of(clean[name])
        if split == "train" and speaker in _TEST_SPEAKERS:
            bad[clean[name]] = f"{speaker} is a test speaker of VoiceBank-DEMAND"
            continue
        reasons = {
            side[name]: info
            for side, info in zip((clean, noisy), infos, strict=True)
            if isinstance(info, str)
        }
        frames = [info.frames for info in infos if isinstance(info, Info)]
        if not reasons and abs(frames[0] - frames[1]) > _PAIR_TOLERANCE:
            seconds = [f"{n / SAMPLE_RATE:.2f} s" for n in frames]
            reasons = {noisy[name]: f"lasts {seconds[1]}, its clean file {seconds[0]}"}
        bad |= reasons
        if not reasons:
            pairs.append(Pair(name, clean[name], noisy[name], speaker, min(frames)))
    _report(root, found, bad, len(pairs), skip_bad)
    return pairs


def load_recordings(folder: Path, skip_bad: bool = False, speech: bool = True) -> list[Recording]:
    """All recordings below a folder, looked over. speech: refuse the benchmark's test speakers.

    Raises:
        DataError: the folder is missing, or files are bad and `skip_bad` is not set.
    """
    files = find_recordings(folder)
    found = look_over(list(files.values()))
    speaker_of = _speakers(folder)
    recordings, bad = [], {}
    for name, path in files.items():
        info, speaker = found[path], speaker_of(path)
        if isinstance(info, str):
            bad[path] = info
        elif speech and speaker in _TEST_SPEAKERS:
            bad[path] = f"{speaker} is a test speaker of VoiceBank-DEMAND"
        else:
            recordings.append(Recording(name, path, speaker, info))
    _report(folder, found, bad, len(recordings), skip_bad)
    return recordings


def look_over(paths: Sequence[Path]) -> dict[Path, Info | str]:
    """`inspect` for many files, remembered between runs: what each is, or why it is unusable."""
    index = _read_index()
    result: dict[Path, Info | str] = {}
    stamps = {path: _stamp(path) for path in paths}
    for path, stamp in stamps.items():
        known = index.get(stamp)
        if known is not None:
            result[path] = known if isinstance(known, str) else Info(**known)
    new = [path for path in paths if path not in result]
    if new:
        with ThreadPoolExecutor(usable_cores()) as pool:
            progress = tqdm(
                pool.map(_inspect_or_reason, new),
                total=len(new),
                desc="checking audio",
                leave=False,
            )
            result |= dict(zip(new, progress, strict=True))
        for path in new:
            info = result[path]
            index[stamps[path]] = info if isinstance(info, str) else asdict(info)
        _write_index(index)
    return result


def hold_out(names: Iterable[str], wanted: Sequence[str], share: float, seed: int) -> set[str]:
    """Which of `names` (speakers, or noise files) are kept for validation.

    The `wanted` ones if they are all there; else `share` of them, at least one and never all,
    drawn by a hash, so that a name's fate does not depend on how many others there are.
    """
    distinct = set(names)
    if wanted and distinct > set(wanted):
        return set(wanted)
    ranked = sorted(distinct, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    count = max(1, round(share * len(ranked)))
    return set(ranked[: min(count, len(ranked) - 1)])


def find_recordings(folder: Path) -> dict[str, Path]:
    """`data.audio.find_audio`, where finding nothing is a DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    try:
        files = find_audio(folder)
    except AudioError as error:
        raise DataError(f"{folder}: {error}") from None
    if not files:
        raise DataError(f"{folder}: no audio in it (wav, flac, ogg or opus)")
    return files


def _speakers(folder: Path) -> Callable[[Path], str]:
    """From a file below `folder` to its speaker.

    What `speakers.csv` in the folder says (columns file, speaker), else the stem before the first
    "-" or "_", qualified by the folder that the file lies in.
    """
    table: dict[str, str] = {}
    path = folder / "speakers.csv"
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if rows and not {"file", "speaker"} <= rows[0].keys():
            raise DataError(f"{path}: expected the columns file and speaker")
        table = {row["file"]: row["speaker"] for row in rows}

    def speaker_of(file: Path) -> str:
        relative = file.relative_to(folder)
        known = table.get(relative.as_posix())
        if known is not None:
            return known
        name = re.split("[-_]", relative.stem, maxsplit=1)[0]
        return name if len(relative.parts) == 1 else f"{relative.parent.as_posix()}:{name}"

    return speaker_of


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
            log.info("%s: %d files are %s, %s among them", where, len(files), what, files[0].name)
    if not bad and usable:
        return
    lines = [f"  {path}: {reason}" for path, reason in sorted(bad.items())]
    if len(lines) > 20:
        lines = [*lines[:20], f"  and {len(lines) - 20} more"]
    listing = "\n".join([f"{where}: {len(bad)} files cannot be used:", *lines])
    if not usable:
        raise DataError(f"{listing}\nNothing is left.")
    if not skip_bad:
        raise DataError(f"{listing}\nRepair or remove them, or go on without them: --skip-bad.")
    log.warning("%s", listing)


def _inspect_or_reason(path: Path) -> Info | str:
    try:
        return inspect(path)
    except AudioError as error:
        return str(error)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def _read_index() -> dict[str, dict | str]:
    try:
        index = json.loads(_INDEX.read_text(encoding="utf-8"))
        return index["files"] if index["fields"] == _INFO_FIELDS else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_index(files: dict[str, dict | str]) -> None:
    temporary = _INDEX.with_suffix(f".{os.getpid()}")
    try:
        _INDEX.parent.mkdir(exist_ok=True)
        index = {"fields": _INFO_FIELDS, "files": files}
        temporary.write_text(json.dumps(index), encoding="utf-8")
        temporary.replace(_INDEX)
    except OSError as error:
        log.info("the list of checked files is not kept (%s)", error)
