"""A table of pairs, a CSV file: any folders, any names. Free of torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data.entry import SPLITS, is_below
from data.errors import DataError
from data.speakers import speakers_of


@dataclass(frozen=True)
class Table:
    """The pairs of a split by utterance."""

    clean: dict[str, Path] = field(default_factory=dict)
    noisy: dict[str, Path] = field(default_factory=dict)
    speakers: dict[str, str] = field(default_factory=dict)


def is_table(root: Path) -> bool:
    """Whether a corpus is a table rather than a folder."""
    return root.suffix.lower() == ".csv" and not root.is_dir()


def read_table(path: Path, split: str) -> Table:
    """The pairs of a split ("train", "valid", "test") of a table.

    Columns: clean and noisy, files as seen from the table's folder; and if wanted split, name of
    the utterance (else the clean file as the table has it, without extension), and speaker (else
    as `speakers_of` finds it below that folder; each folder elsewhere is one speaker's). Pairs
    without a split are in "train" as well as in "test", as those in folders called clean and
    noisy are.

    Raises:
        DataError: the table cannot be read, or is none of pairs.
    """
    table = Table()
    for number, row in _rows(path):
        if row["split"] not in ("", *SPLITS):
            raise DataError(f"{path}: line {number}: split {row['split']!a} is not one of {SPLITS}")
        if split not in ((row["split"],) if row["split"] else ("train", "test")):
            continue
        name = row["name"] or _name_of(row["clean"])
        if not is_below(name):
            raise DataError(f"{path}: line {number}: the name {name!a} leads out of a folder")
        if name in table.clean:
            raise DataError(f"{path}: line {number}: a second pair is called {name}")
        table.clean[name] = path.parent / row["clean"]
        table.noisy[name] = path.parent / row["noisy"]
        if row["speaker"]:
            table.speakers[name] = row["speaker"]
    files = table.clean.values()
    below = [x for x in files if x.is_relative_to(path.parent) and ".." not in x.parts]
    found = speakers_of(path.parent, below)
    for name, file in table.clean.items():
        table.speakers.setdefault(name, found.get(file) or os.path.normpath(file.parent))
    return table


def _name_of(file: str) -> str:
    """A file's path without extension, and without what leads to other folders than the table's."""
    parts = PurePosixPath(file).with_suffix("").parts
    return "/".join(part for part in parts if part not in ("/", ".."))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a table with their numbers; "" is a cell that is missing."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"clean", "noisy"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{path}: expected a first line with the columns clean and noisy, and perhaps "
                    "split, name and speaker, separated by commas"
                )
            for row in reader:
                columns = ("clean", "noisy", "split", "name", "speaker")
                cells = {key: (row.get(key) or "").strip() for key in columns}
                if "\0" in "".join(cells.values()):
                    raise DataError(f"{path}: line {reader.line_num} is no text")
                if not (cells["clean"] and cells["noisy"]):
                    raise DataError(f"{path}: line {reader.line_num} lacks a clean or a noisy file")
                yield reader.line_num, cells
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error})") from None
