"""The state of a run in files of a limited size, to go on with it on another machine.

A run folder's checkpoints, log and description as one archive, cut into parts; what can be made
again (TensorBoard's events, samples, the checkpoint before the last) stays behind.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data.errors import DataError
from data.files import DAMAGE, sha256_of, write_text
from data.lock import Lock
from training.checkpoint import BEST, GOOD, LAST, PREVIOUS, CheckpointError, read, unpack
from training.config import Config
from training.history import CONFIG, METRICS
from training.settings import PLACES, diff
from training.trained import config_of

MIB = 2**20
LARGEST = 16 * MIB  # of a part, in bytes
_SUFFIX = ".state.json"
# The last checkpoint comes last: what is joined but halfway is not gone on from.
_KEPT = (CONFIG, METRICS, GOOD, BEST, LAST)


@dataclass(frozen=True)
class Progress:
    """How far a run has come, by which settings, and whether what it has come to is validated."""

    step: int
    validated: bool
    config: Config


def progress(run: Path) -> Progress | None:
    """That of a run's last whole checkpoint; None where there is none."""
    for name in (LAST, PREVIOUS):
        try:
            state = unpack(read(run / name), run / name)
            values = state["values"]
            validated = values.get("validated", 0) >= values["epochs"]
            return Progress(int(values["step"]), validated, config_of(state, run / name))
        except (CheckpointError, LookupError, TypeError, ValueError):
            continue
    return None


def step_of(run: Path) -> int:
    """The steps of a run's last whole checkpoint; 0 where there is none."""
    return reached(run)[0]


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
        digest = _digest(whole)
        parts: list[Path] = []
        while piece := whole.read(largest):
            part = out / f"{run.name}-{digest[:8]}.{len(parts):03d}"
            part.write_bytes(piece)
            parts.append(part)
    listed = [{"name": part.name, "sha256": sha256_of(part)} for part in parts]
    step, validated = reached(run)
    content = {"run": run.name, "step": step, "validated": validated}
    content |= {"sha256": digest, "parts": listed}
    listing = out / f"{run.name}{_SUFFIX}"
    write_text(listing, json.dumps(content, indent=1) + "\n")
    for old in out.glob(f"{glob.escape(run.name)}-{'[0-9a-f]' * 8}.{'[0-9]' * 3}"):
        if old not in parts:
            old.unlink()
    return [*parts, listing]


def reached(run: Path) -> tuple[int, bool]:
    """The steps of a run's last whole checkpoint (0: there is none), and if they are validated."""
    found = progress(run)
    return (found.step, found.validated) if found else (0, False)


def carried(folder: Path, name: str) -> tuple[int, bool]:
    """What `reached` was of the state of a run of that name in a folder of parts.

    Raises:
        DataError: the list of its parts is damaged.
    """
    listing = folder / f"{name}{_SUFFIX}"
    if not listing.is_file():
        return 0, False
    content = _read(listing)
    return content["step"], content["validated"]


def join(folder: Path, run: Path) -> bool:
    """Put a run's state back from a folder of parts, unless the run has come as far by itself.

    Returns:
        Whether it has been put back.

    Raises:
        DataError: a part is missing or damaged, or another process trains in the run folder, or
            what is there was trained with other settings.
        OSError: something cannot be read or written.
    """
    if carried(folder, run.name) <= reached(run):
        return False
    listing = folder / f"{run.name}{_SUFFIX}"
    content = _read(listing)
    run.mkdir(parents=True, exist_ok=True)
    lock = Lock(run, "join its state later")
    try:
        with (
            tempfile.TemporaryDirectory(dir=run, prefix=".joining-") as name,
            tempfile.TemporaryFile(dir=folder) as whole,
        ):
            fresh = Path(name)
            _put_together(whole, folder, content, listing)
            with tarfile.open(fileobj=whole) as archive:
                archive.extractall(fresh, filter="data")
            _check_same_run(fresh, run, listing)
            for name in _KEPT:
                if (fresh / name).is_file():
                    os.replace(fresh / name, run / name)
    except tarfile.TarError as error:
        raise DataError(f"{listing}: what its parts hold is not a run's state ({error})") from None
    finally:
        lock.release()
    return True


def _check_same_run(fresh: Path, run: Path, listing: Path) -> None:
    there, here = progress(fresh), progress(run)
    if there is None:
        raise DataError(f"{listing}: what its parts hold is not a run's state")
    if here is None:
        return
    changes = [
        name
        for name in diff(there.config, here.config)
        if name not in PLACES and not name.startswith("run.")
    ]
    if changes:
        raise DataError(
            f"{listing} is of another run than {run}: they differ in {', '.join(changes)}. Take "
            "another folder for one of the two"
        )


def _read(listing: Path) -> dict[str, Any]:
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        parts = [(str(part["name"]), str(part["sha256"])) for part in content["parts"]]
        found = {"step": int(content["step"]), "sha256": str(content["sha256"]), "parts": parts}
        found["validated"] = content.get("validated") is True  # earlier lists do not say
    except DAMAGE:
        raise DataError(f"{listing} is damaged; copy it again") from None
    if any(Path(name).name != name for name, _ in parts):
        raise DataError(f"{listing} names parts outside its folder")
    return found


def _put_together(whole: IO[bytes], folder: Path, content: dict[str, Any], listing: Path) -> None:
    """Write the archive that the parts make, each of which is what it was."""
    for name, digest in content["parts"]:
        part = folder / name
        if not part.is_file():
            raise DataError(f"{part} is missing: {listing.name} lists it. Copy it as well")
        if sha256_of(part) != digest:
            raise DataError(f"{part} is not what {listing.name} says; copy both again")
        with part.open("rb") as file:
            shutil.copyfileobj(file, whole)
    if _digest(whole) != content["sha256"]:
        raise DataError(f"{listing}: its parts do not make up what was cut; copy all again")


def _digest(file: IO[bytes]) -> str:
    """Of the whole file, which is then at its beginning."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest
