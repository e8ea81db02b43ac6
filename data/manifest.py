"""Makes a corpus' manifests: which files make pairs, whose, how long, how noisy, with checksums.

    python -m data.manifest ROOT... [--valid SPEAKER...]

ROOT is a corpus of pairs (`data.listing`) and gets ROOT/manifests/{train,valid,test}.jsonl, or a
folder of single recordings, speech or noise, and gets ROOT/manifests/recordings.jsonl. Where a
corpus has no validation pairs of its own, those of two speakers are held out of its training
pairs. Whatever loads pairs goes by their manifests from then on; that of recordings is for
`data.pack`. Free of torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data.audio import SAMPLE_RATE
from data.benchmark import HELD_OUT
from data.console import carry_out, show
from data.corpus import load_recordings, pairs_of
from data.entry import RECORDINGS, SPLITS, Entry, path_of, to_text
from data.errors import DataError, FailedError
from data.files import sha256_of, write_text
from data.listing import folder_splits, half_of_pairs, in_folders, pair_folders
from data.noise_log import FOLDER as LOG_FOLDER
from data.noise_log import LOGS, read_log
from data.workers import stop_by_signals, usable_cores


def make(root: Path, held_out: Sequence[str] = HELD_OUT) -> dict[str, int]:
    """Write the manifests of a corpus of pairs, from its folders; returns their lengths by split.

    held_out: the speakers of "valid", where there are no folders of that name. Where the usual
    ones are not all there, there is no such manifest, and training holds some out by itself.

    Raises:
        DataError: there are no pairs, or a file cannot be used, or a speaker asked for is missing.
        FailedError: a manifest cannot be written.
    """
    _see_to_both_sides(root)
    splits = folder_splits(root)
    if not splits:
        raise DataError(f"{root}: no pairs, as in train/clean and train/noisy below it")
    entries = {split: _pairs(root, split) for split in splits}
    speakers = {entry.speaker for entry in entries.get("train", ())}
    if "valid" not in entries and set(held_out) < speakers:
        entries["valid"] = [e for e in entries["train"] if e.speaker in held_out]
        entries["train"] = [e for e in entries["train"] if e.speaker not in held_out]
    elif tuple(held_out) != HELD_OUT:
        missing = ", ".join(sorted(set(held_out) - speakers)) or "others, which remain to train on"
        raise DataError(f"{root}: --valid {' '.join(held_out)}: its training pairs lack {missing}")
    for split in (*SPLITS, RECORDINGS):
        _write(root, split, entries.get(split))
    return {split: len(found) for split, found in entries.items()}


def make_recordings(folder: Path) -> int:
    """Write the manifest of a folder of single recordings; returns its length. Raises as `make`."""
    _see_to_both_sides(folder)
    found = load_recordings(folder, skip_bad=None, speech=False)
    digests = _digests(recording.path for recording in found)
    entries = [
        Entry(
            recording.name,
            {"audio": _relative(folder, recording.path)},
            {"audio": digests[recording.path]},
            recording.speaker,
            recording.info.frames / SAMPLE_RATE,
        )
        for recording in found
    ]
    for split in (*SPLITS, RECORDINGS):
        _write(folder, split, entries if split == RECORDINGS else None)
    return len(entries)


def _see_to_both_sides(root: Path) -> None:
    if half := half_of_pairs(root):
        raise DataError(f"{half}: there is no folder of its other side; is that called otherwise?")


def _pairs(root: Path, split: str) -> list[Entry]:
    listing = in_folders(root, split)
    if listing is None:
        raise DataError(f"{root}: no {split} pairs")
    pairs = pairs_of(listing, root, split)
    digests = _digests(path for pair in pairs for path in (pair.clean, pair.noisy))
    noises = _noises(root, split)
    entries = []
    for pair in pairs:
        sides = {"clean": pair.clean, "noisy": pair.noisy}
        noise, snr = noises.get(Path(pair.name).name, (None, None))
        entries.append(
            Entry(
                pair.name,
                {side: _relative(root, path) for side, path in sides.items()},
                {side: digests[path] for side, path in sides.items()},
                pair.speaker,
                pair.frames / SAMPLE_RATE,
                snr,
                noise,
            )
        )
    return entries


def _noises(root: Path, split: str) -> dict[str, tuple[str, float]]:
    """Return noise and SNR by name, from the corpus' log."""
    found: dict[str, tuple[str, float]] = {}
    for name in LOGS.get(split, ()):
        for place in (root, root / LOG_FOLDER):
            found |= read_log(place / name)
    return found


def _digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Each file's checksum. Raises DataError."""
    distinct = list(dict.fromkeys(paths))
    bar = partial(tqdm, total=len(distinct), desc="checksums", unit="file", disable=None)
    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            return dict(zip(distinct, bar(pool.map(sha256_of, distinct)), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path.absolute())


def _write(root: Path, split: str, entries: Sequence[Entry] | None) -> None:
    """Write a manifest, or see that there is none of this split."""
    path = path_of(root, split)
    try:
        if entries is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(exist_ok=True)
            write_text(path, to_text(entries))
    except OSError as error:
        raise FailedError(f"{path} cannot be written ({error.strerror})") from None


def describe(root: Path, held_out: Sequence[str] = HELD_OUT) -> str:
    """Make the manifests of pairs, or else of recordings, and say how long they are.

    Raises:
        DataError, FailedError: see `make`.
    """
    if any(pair_folders(root, split) for split in SPLITS):
        return ", ".join(f"{n:,} {split}" for split, n in make(root, held_out).items()) + " pairs"
    return f"{make_recordings(root):,} recordings"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0; 1 or 2 after a message; 130, interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m data.manifest",
        description="Write the manifests of corpora of pairs, or of folders of recordings.",
        allow_abbrev=False,
    )
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT")
    parser.add_argument(
        "--valid",
        nargs="+",
        metavar="SPEAKER",
        default=list(HELD_OUT),
        help=f"held out for validation (default: {' '.join(HELD_OUT)}, if they are there)",
    )
    options = parser.parse_args(arguments)

    def work() -> int:
        for root in options.roots:
            show(f"{root}: {describe(root, options.valid)}\n")
        return 0

    return carry_out("manifest", work)


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
