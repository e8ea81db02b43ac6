"""Packs corpora for training: every sample of a manifest in one file that is memory-mapped.

    python -m data.pack ROOT... [--check] [--int16]

ROOT is a corpus of pairs or a folder of recordings; its manifests (`data.manifest`) are made where
there are none. Its training and validation recordings are decoded once, into ROOT/packed (see
`data.packed`); training finds them there by itself. Each file is compared with the manifest's
checksum as it is read. Nothing is lost: what 16 bits cannot hold, as what is decoded from Opus, is
packed as 32-bit floats, unless --int16 has it rounded, which takes half the space.
Free of torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from data.audio import SAMPLE_RATE, AudioError, Signal, read
from data.console import carry_out, show
from data.entry import Entry, read_entries
from data.errors import DataError, FailedError
from data.files import remove_partials, replacing, sha256_of, stamp_of, write_text
from data.manifest import describe
from data.packed import FULL_SCALE, VERSION, Pack, Stamp, checksum, index_of, manifests
from data.workers import stop_by_signals, usable_cores

_TOGETHER = 300.0  # s of sound that are in memory at once, in whole files


class Writer:
    """Writes the samples of a pack, and knows where each file's begin.

    rounded: to 16 bits, and clipped, rather than written as floats.
    """

    def __init__(self, file: BinaryIO, rounded: bool = False) -> None:
        self._file, self._hash, self._words, self._rounded = file, hashlib.sha256(), 0, rounded
        self.places: dict[str, tuple[int, int, bool, Stamp]] = {}

    def add(self, name: str, x: Signal, stamp: Stamp) -> None:
        """Append a file's samples (s,): as 16 bits if they are such, else as floats."""
        scaled = x * np.float32(FULL_SCALE)
        whole = np.round(scaled)
        if self._rounded:
            scaled = whole = whole.clip(-FULL_SCALE, FULL_SCALE - 1)
        fits = np.array_equal(whole, scaled) and np.all(np.abs(whole + 0.5) < FULL_SCALE)
        content = whole.astype("<i2").tobytes() if fits else x.astype("<f4").tobytes()
        self._file.write(content)
        self._hash.update(content)
        self.places[name] = self._words, len(x), not fits, stamp
        self._words += len(content) // 2

    def index(self, manifest: str) -> dict[str, Any]:
        """The index of what has been written, of a manifest with this digest."""
        content: dict[str, Any] = {
            "version": VERSION,
            "manifest": manifest,
            "sha256": self._hash.hexdigest(),
            "bytes": 2 * self._words,
            "rounded": self._rounded,
            "files": self.places,
        }
        return {**content, "checksum": checksum(content)}


def pack(root: Path, rounded: bool = False) -> list[Pack]:
    """Pack what a corpus has for training and validation, where that has not been done.

    rounded: to 16 bits, also what does not fit into them.

    Raises:
        DataError: a file is missing, not decodable or not what the manifest says.
        FailedError: the pack cannot be written.
    """
    if not any(manifests(root)):
        describe(root)
    if not any(manifests(root)):
        raise DataError(f"{root} has nothing to train on: tests are not packed")
    packs = []
    for name, manifest in manifests(root):
        digest = sha256_of(manifest)
        index = index_of(root, name, digest)
        found = _usable(index, root, rounded)
        if found is None:
            try:
                _write(root, read_entries(manifest), digest, index, rounded)
            except OSError as error:
                where = error.filename or index.parent
                raise FailedError(f"{where} cannot be written ({error.strerror})") from None
            found = Pack(index, root)
        packs.append(found)
    return packs


def _usable(index: Path, root: Path, rounded: bool) -> Pack | None:
    """The pack that is there; none where it is damaged, or files have been written again since.

    Nor where it is to be rounded and is not, or the other way round.
    """
    try:
        found = Pack(index, root)
    except DataError:
        return None
    return None if found.changed or found.rounded != rounded else found


def _write(root: Path, entries: Sequence[Entry], digest: str, index: Path, rounded: bool) -> None:
    """Write one pack, samples first, and remove those of earlier manifests."""
    index.parent.mkdir(exist_ok=True)
    remove_partials(index.parent, older_than=3600)
    seconds = sum(entry.seconds * len(entry.files) for entry in entries)
    needed, free = seconds * SAMPLE_RATE * 2, shutil.disk_usage(index.parent).free
    if needed > free:
        raise FailedError(
            f"{index.parent}: a pack takes {needed / 1e6:,.0f} MB at least, {free / 1e6:,.0f} MB "
            "are free. Make room and run again"
        )
    with replacing(index.with_suffix(".pcm")) as temporary, temporary.open("wb") as file:
        writer = Writer(file, rounded)
        _fill(writer, root, entries)
    write_text(index, json.dumps(writer.index(digest)))
    for other in index.parent.glob(f"{index.stem.rpartition('-')[0]}-*"):
        if other.stem != index.stem:
            with suppress(OSError):  # on some systems not while somebody reads from it
                other.unlink()


def _fill(writer: Writer, root: Path, entries: Sequence[Entry]) -> None:
    """Write the samples of all files of a manifest, in its order, each once."""
    files: dict[str, tuple[str, float]] = {}
    for entry in entries:
        for role, name in entry.files.items():
            files.setdefault(name, (entry.sha256[role], entry.seconds))
    bar = tqdm(total=len(files), desc=f"packing {root.name}", unit="file", disable=None)
    with bar, ThreadPoolExecutor(usable_cores()) as pool:
        for several in _together(files):
            digests = [files[name][0] for name in several]
            reading = pool.map(partial(_checked, root), several, digests)
            for name, (x, stamp) in zip(several, reading, strict=True):
                writer.add(name, x, stamp)
                bar.update()


def _together(files: Mapping[str, tuple[str, float]]) -> Iterator[list[str]]:
    """The files in portions that memory has room for: some minutes of sound, or one file."""
    portion: list[str] = []
    seconds = 0.0
    for name, (_, length) in files.items():
        if portion and seconds + length > _TOGETHER:
            yield portion
            portion, seconds = [], 0.0
        portion.append(name)
        seconds += length
    if portion:
        yield portion


def _checked(root: Path, name: str, wanted: str) -> tuple[Signal, Stamp]:
    """The samples of a file (s,), which is the manifest's, and its stamp. Raises DataError."""
    path = root / name
    try:
        stamp = stamp_of(path)
        same = sha256_of(path) == wanted
        x = read(path) if same else None
    except (AudioError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: {reason}. Put it back, or let python -m data.manifest {root} leave it out"
        ) from None
    if x is None:
        raise DataError(
            f"{path} is not the file that the manifest has; python -m data.verify {root} tells "
            f"more, python -m data.manifest {root} takes it in as it is"
        )
    return x, stamp


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0; 1 or 2 after a message; 130, interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m data.pack",
        description="Pack corpora, so that training decodes nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT")
    parser.add_argument("--check", action="store_true", help="read packs that are there again")
    parser.add_argument("--int16", action="store_true", help="round to 16 bits what holds more")
    options = parser.parse_args(arguments)

    def work() -> int:
        for root in options.roots:
            packs = pack(root, options.int16)
            for each in packs:
                if options.check:
                    each.check()
                size = each.path.stat().st_size
                show(f"{each.path}: {len(each):,} files, {size / 1e6:,.1f} MB\n")
        return 0

    return carry_out("pack", work)


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
