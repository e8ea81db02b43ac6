"""The state of a run in files of a limited size, to go on with it on another machine.

A run folder's checkpoints, log and description as one archive, cut into parts; what can be made
again (TensorBoard's events, samples, the checkpoint before the last) stays behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.files import DAMAGE, sha256_of, write_text
from data.lock import Lock
from training.checkpoint import BEST, GOOD, LAST, CheckpointError, read, unpack
from training.history import CONFIG, METRICS

MIB = 2**20
LARGEST = 16 * MIB  # of a part, in bytes
_SUFFIX = ".state.json"
# The last checkpoint comes last: what is joined but halfway is not gone on from.
_KEPT = (CONFIG, METRICS, GOOD, BEST, LAST)


def split(run: Path, out: Path, largest: int = LARGEST) -> list[Path]:
    """Write a run's state into a folder: parts of at most `largest` bytes, and a list of them.

    Those of the same run's earlier state are removed once the new ones are all there.

    Returns:
        The files, the list last.

    Raises:
        DataError: the folder holds no run.
        OSError: something cannot be read or written.
    """
    if not (run / LAST).is_file():
        raise DataError(f"{run} holds no {LAST}: nothing has been trained there")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out) as whole:
        # Two names of one file, as `good.pt` may be of `last.pt`, are stored once.
        with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in _KEPT:
                if (run / name).is_file():
                    archive.add(run / name, name)
        whole.seek(0)
        digest = hashlib.file_digest(whole, "sha256").hexdigest()
        whole.seek(0)
        parts: list[Path] = []
        while piece := whole.read(largest):
            part = out / f"{run.name}-{digest[:8]}.{len(parts):03d}"
            part.write_bytes(piece)
            parts.append(part)
    listed = [{"name": part.name, "sha256": sha256_of(part)} for part in parts]
    content = {"run": run.name, "step": step_of(run), "sha256": digest, "parts": listed}
    listing = out / f"{run.name}{_SUFFIX}"
    write_text(listing, json.dumps(content, indent=1) + "\n")
    for old in out.glob(f"{run.name}-????????.???"):
        if old not in parts:
            old.unlink()
    return [*parts, listing]


def join(folder: Path, run: Path) -> bool:
    """Put a run's state back from a folder of parts, unless the run has come as far by itself.

    Returns:
        Whether it has been put back.

    Raises:
        DataError: a part is missing or damaged, or another process trains in the run folder.
        OSError: something cannot be read or written.
    """
    listing = folder / f"{run.name}{_SUFFIX}"
    if not listing.is_file():
        return False
    content = _read(listing)
    if step_of(run) >= content["step"]:
        return False
    run.mkdir(parents=True, exist_ok=True)
    lock = Lock(run, "wait until it has ended")
    try:
        with _archive(folder, content, listing) as archive, _beside(run) as fresh:
            archive.extractall(fresh, filter="data")
            for name in _KEPT:
                if (fresh / name).is_file():
                    os.replace(fresh / name, run / name)
    except tarfile.TarError as error:
        raise DataError(f"{listing}: what its parts make is not a run's state ({error})") from None
    finally:
        lock.release()
    return True


def step_of(run: Path) -> int:
    """The steps of a run's last checkpoint; 0 where there is none that can be read."""
    return int(_values(run).get("step", 0))


def is_done(run: Path, steps: int) -> bool:
    """Whether a run has done so many steps, and what it has come to has been validated."""
    values = _values(run)
    return values.get("step", 0) >= steps and values["validated"] >= values["epochs"]


def _values(run: Path) -> dict[str, Any]:
    try:
        return unpack(read(run / LAST), run / LAST)["values"]
    except CheckpointError:
        return {}


def _read(listing: Path) -> dict[str, Any]:
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        parts = [(str(part["name"]), str(part["sha256"])) for part in content["parts"]]
        found = {"step": int(content["step"]), "sha256": str(content["sha256"]), "parts": parts}
    except DAMAGE:
        raise DataError(f"{listing} is damaged; copy it again") from None
    if any(Path(name).name != name for name, _ in parts):
        raise DataError(f"{listing} names parts outside its folder")
    return found


@contextmanager
def _archive(folder: Path, content: dict[str, Any], listing: Path) -> Iterator[tarfile.TarFile]:
    """The archive that the parts make, each of which is what it was."""
    with tempfile.TemporaryFile(dir=folder) as whole:
        for name, digest in content["parts"]:
            part = folder / name
            if not part.is_file():
                raise DataError(f"{part} is missing: {listing.name} lists it. Copy it as well")
            if sha256_of(part) != digest:
                raise DataError(f"{part} is not what {listing.name} says; copy both again")
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
        whole.seek(0)
        with tarfile.open(fileobj=whole) as archive:
            yield archive


@contextmanager
def _beside(run: Path) -> Iterator[Path]:
    """A temporary folder on the run folder's disk."""
    with tempfile.TemporaryDirectory(dir=run, prefix=".joining-") as name:
        yield Path(name)
