"""Which recordings are to be enhanced, and where to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.audio import walk
from data.utils import DataError, is_within
from enhancement.audio_file import EXTENSIONS, KINDS

JOURNAL = ".enhanced.jsonl"  # of the output folder (`enhancement.journal`)


@dataclass(frozen=True)
class Job:
    """One recording, and the file that it becomes."""

    source: Path
    target: Path


def jobs_of(inputs: Sequence[Path], out: Path) -> list[Job]:
    """The recordings in files and folders, and their places below `out`.

    A file keeps its name; a folder keeps its structure, and of several folders each its name. What
    lies in `out` itself is no recording.

    Raises:
        DataError: there is nothing of that name, or no audio in it, or a file would take the place
            of an input or of another's.
    """
    folders = [path for path in inputs if os.path.isdir(path)]
    jobs: dict[str, Job] = {}
    for path in inputs:
        for source, place in _found(path, out, named=len(folders) > 1):
            if place.name == JOURNAL:
                raise DataError(f"{source}: {JOURNAL} is the name of the journal; rename it")
            job = Job(source, out / place)
            other = jobs.setdefault(os.path.normcase(job.target), job)
            if not _same(other.source, source):
                raise DataError(
                    f"{other.source} and {source} would both become {job.target}; enhance one of "
                    "them into another folder"
                )
    sources = {identity for job in jobs.values() if (identity := _identity(job.source))}
    for job in jobs.values():
        if _identity(job.target) in sources:
            raise DataError(
                f"{job.target} is a recording that is to be enhanced: -o has to name another folder"
            )
    return list(jobs.values())


def _found(path: Path, out: Path, named: bool) -> Iterator[tuple[Path, Path]]:
    """The recordings at a path, with their places below the output folder."""
    if not os.path.isdir(path):
        if not os.path.lexists(path):
            raise DataError(f"{path}: no such file or folder")
        yield path, Path(path.name)
        return
    if is_within(path, out):
        raise DataError(f"{path} lies in the output folder {out}: -o has to name another one")
    try:
        files = sorted(each for each in walk(path, EXTENSIONS) if not is_within(each, out))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be listed ({error.strerror})") from None
    except RecursionError:
        raise DataError(f"{path}: its folders are nested too deeply") from None
    if not files:
        raise DataError(f"{path}: no audio in it ({KINDS})")
    # Of "." and "x/.." the name is that of the folder they are.
    top = Path(path.resolve().name) if named else Path()
    for each in files:
        yield each, top / each.relative_to(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """By which a file is known under all its names; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _same(one: Path, other: Path) -> bool:
    return one == other or (_identity(one) is not None and _identity(one) == _identity(other))
