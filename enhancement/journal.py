"""What has been enhanced into a folder, so that it is not done again and nobody's file is replaced.

A line of JSON for each file that was made: what from, by what, and how the file is known again. It
is written just before the file comes into its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data.files import DAMAGE, stamp_of
from enhancement.targets import Job

NAME = ".enhanced.jsonl"


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
        self._entries = self._read()

    def is_done(self, job: Job, by: str) -> bool:
        """Whether the file is there, made by the same of the same recording."""
        entry = self._entries.get(self._place(job))
        return entry is not None and entry == self.entry(job, by, job.target)

    def is_own(self, job: Job) -> bool:
        """Whether the file that is in the job's place was made here and is as it was made."""
        if self._known(job):
            return True
        self._entries = self._read()  # another process may have made it since
        return self._known(job)

    def entry(self, job: Job, by: str, made: Path) -> Entry:
        """What is to be noted of a file. made: where it is now."""
        source = os.path.realpath(job.source)
        return Entry(self._place(job), source, stamp_of(job.source), by, stamp_of(made))

    def note(self, entry: Entry) -> None:
        """Add a line.

        Raises:
            OSError: it cannot be written.
        """
        line = json.dumps(asdict(entry)).encode() + b"\n"
        with (self._folder / NAME).open("ab", buffering=0) as file:
            file.write(line)

    def _known(self, job: Job) -> bool:
        entry = self._entries.get(self._place(job))
        return entry is not None and entry.made == stamp_of(job.target)

    def _place(self, job: Job) -> str:
        return job.target.relative_to(self._folder).as_posix()

    def _read(self) -> Mapping[str, Entry]:
        entries = {}
        try:
            lines = (self._folder / NAME).read_bytes().splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                entry = Entry(**json.loads(line))
            except DAMAGE:  # the end of one that was cut off
                continue
            entries[entry.file] = entry
        return entries
