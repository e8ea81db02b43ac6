"""Packed corpora: all samples of a manifest in one memory-mapped file, so that nothing is decoded.

A pack is two files in ROOT/packed, written by `data.pack`: NAME-DIGEST.pcm, 16-bit samples one
after the other, and NAME-DIGEST.json, which says where each file begins. DIGEST is that of the
manifest: a pack of another one, and so of other recordings, is not taken. Free of torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.audio import Signal
from data.entry import RECORDINGS, path_of
from data.errors import DataError
from data.files import DAMAGE, sha256_of, stamp_of

log = logging.getLogger("data")

FOLDER = "packed"  # below a corpus
VERSION = 1
FULL_SCALE = 32768
Stamp = list[int]
_DIGITS = 16  # of a manifest's digest, in a name


class Pack:
    """One packed manifest. Its index is kept in memory, its samples stay in the file.

    A recording that has been changed since, by its size or time, counts as not packed: see
    `changed`.

    Args:
        index: the `.json` file.
        root: of the corpus.

    Attributes:
        rounded: whether all samples are 16 bits, also of files that hold more.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, index: Path, root: Path) -> None:
        self.path = index.with_suffix(".pcm")
        try:
            content: dict[str, Any] = json.loads(index.read_text("utf-8"))
            if content.pop("checksum") != checksum(content):
                raise ValueError("its checksum is another one")
            if not index.stem.endswith(f"-{content['manifest'][:_DIGITS]}"):
                raise ValueError("of another manifest")
            if content["version"] != VERSION or content["bytes"] != self.path.stat().st_size:
                raise ValueError("of another version, or its samples of another length")
        except DAMAGE as error:
            raise DataError(f"{index} is damaged ({error}): {remedy(root)}") from None
        self.sha256: str = content["sha256"]
        self.rounded: bool = content.get("rounded", False)
        self.changed: list[Path] = []
        self._places: dict[Path, tuple[int, int, bool]] = {}
        for name, (first, frames, is_float, stamp) in content["files"].items():
            if stamp_of(root / name) == stamp:
                self._places[root / name] = first, frames, is_float
            else:
                self.changed.append(root / name)
        self._samples: NDArray[np.int16] | None = None

    def __contains__(self, path: Path) -> bool:
        return path in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, path: Path, start: int = 0, frames: int | None = None) -> Signal:
        """The same samples as `data.audio.read` gives, unless the pack is rounded.

        Raises OSError if it is gone.
        """
        first, length, is_float = self._places[path]
        start = min(start, length)
        end = length if frames is None else min(start + frames, length)
        width = 2 if is_float else 1  # in units of 16 bits
        piece = self._map()[first + start * width : first + end * width]
        if is_float:
            return np.array(piece).view("<f4").astype(np.float32, copy=False)
        return piece.astype(np.float32) * np.float32(1 / FULL_SCALE)

    def check(self) -> None:
        """Read all of it. Raises DataError if it is not what was written."""
        try:
            intact = sha256_of(self.path) == self.sha256
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror})") from None
        if not intact:
            raise DataError(f"{self.path} is damaged: remove it, and pack again")

    def _map(self) -> NDArray[np.int16]:
        if self._samples is None:
            self._samples = np.memmap(self.path, "<i2", "r")
        return self._samples

    def __getstate__(self) -> dict[str, Any]:
        # Each process maps the file by itself; pickled, it would be copied.
        return {**self.__dict__, "_samples": None}


def checksum(content: dict[str, Any]) -> str:
    """Of an index, that its places are those that were written."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def find_packs(root: Path) -> list[Pack]:
    """The packs of a corpus' present manifests. A damaged one is left out, with a warning."""
    packs = []
    for name, manifest in manifests(root):
        index = index_of(root, name, sha256_of(manifest))
        if index.is_file():
            try:
                pack = Pack(index, root)
            except DataError as error:
                log.warning("%s; its files are read instead", error)
                continue
            packs.append(pack)
            if pack.changed:
                log.warning(
                    "%d files have changed since they were packed, %s among them, and are read "
                    "by themselves: %s",
                    len(pack.changed),
                    pack.changed[0],
                    remedy(root),
                )
        elif any(index.parent.glob(f"{name}-*.json")):
            log.warning("%s has changed since it was packed: %s", manifest, remedy(root))
    return packs


def manifests(root: Path) -> Iterator[tuple[str, Path]]:
    """The manifests of a corpus that training goes by, with their names: never that of the test."""
    for name in ("train", "valid", RECORDINGS):
        if os.path.isfile(path_of(root, name)):
            yield name, path_of(root, name)


def index_of(root: Path, name: str, digest: str) -> Path:
    """The index of a pack of the manifest that has this digest."""
    return root / FOLDER / f"{name}-{digest[:_DIGITS]}.json"


def remedy(root: Path) -> str:
    """What to do about a pack that is of no use."""
    return f"python -m data.pack {root} makes it anew"
