"""What has been enhanced into a folder, so that it is not done again and nobody's file is replaced.

A line of JSON for each file that was made: what from, by what, and how the file is known again. It
is written just before the file comes into its place.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from data.utils import DAMAGE, DataError, stamp_of
from enhancement.targets import JOURNAL, Job


@dataclass(frozen=True)
class Entry:
    """A file that was made.

    Attributes:
        file: its place in the folder.
        source, stamp: the recording's path, and its size and time of change then.
        by: the model and its code.
        made: the file's own size and time of change.
    """

    file: str
    source: str
    stamp: list[int]
    by: str
    made: list[int]


class Journal:
    """The journal of an output folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, list[Entry]] | None = None  # not read yet

    def is_done(self, job: Job, by: str) -> bool:
        """Whether the file is there, made by the same of the same recording."""
        return self.entry(job, by, job.target) in self._entries(job)

    def is_own(self, job: Job) -> bool:
        """Whether the file that is in the job's place was made here and is as it was made."""
        if self._made(job):
            return True
        self._known = None  # another process may have made it since
        return self._made(job)

    def entry(self, job: Job, by: str, made: Path) -> Entry:
        """What is to be noted of a file. made: where it is now."""
        source = os.path.realpath(job.source)
        return Entry(self._place(job), source, stamp_of(job.source), by, stamp_of(made))

    def note(self, entry: Entry) -> None:
        """Add a line.

        Raises:
            DataError: there is something else in the journal's place.
            OSError: it cannot be written.
        """
        # It may follow a line that was cut off, whose end it must not become.
        line = b"\n" + json.dumps(asdict(entry)).encode() + b"\n"
        with (self._folder / JOURNAL).open("ab", buffering=0) as file:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder / JOURNAL))

    def _made(self, job: Job) -> bool:
        made = stamp_of(job.target)
        return any(entry.made == made for entry in self._entries(job))

    def _entries(self, job: Job) -> list[Entry]:
        """All that was noted of the job's place: the last line may be of a file that never came."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(self._place(job), [])

    def _place(self, job: Job) -> str:
        return job.target.relative_to(self._folder).as_posix()

    def _read(self) -> dict[str, list[Entry]]:
        entries: dict[str, list[Entry]] = {}
        path = self._folder / JOURNAL
        if os.path.lexists(path) and not path.is_file():  # a named pipe would wait for ever
            raise DataError(f"{path} is not a file: what is done cannot be noted in it")
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            return {}
        for line in filter(None, lines):
            try:
                entry = Entry(**json.loads(line))
                entries.setdefault(entry.file, []).append(entry)
            except DAMAGE:  # one that was cut off
                continue
        return entries
