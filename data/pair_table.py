"""A table of pairs, a CSV file: any folders, any names. Free of torch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
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
    return root.suffix.lower() == ".csv" and not os.path.isdir(root)


def read_table(path: Path, split: str) -> Table:
    """The pairs of a split ("train", "valid", "test") of a table.

    Columns, in small letters or capitals: clean and noisy, files as seen from the table's folder;
    and if wanted split, name of the utterance (else the clean file as the table has it, without
    extension), and speaker (else as `speakers_of` finds it, below the folder that all clean files
    lie in). Pairs without a split are in "train" as well as in "test", as those in folders called
    clean and noisy are.

    Raises:
        DataError: the table cannot be read, or is none of pairs.
    """
    rows = list(_rows(path))
    if any(row["split"] for _, row in rows):
        for number, row in rows:
            if not row["split"]:
                raise DataError(f"{path}: line {number} has no split, where others have one")
    speakers = _speakers([(path.parent / row["clean"], row["speaker"]) for _, row in rows])
    table = Table()
    for (number, row), speaker in zip(rows, speakers, strict=True):
        if row["split"] not in ("", *SPLITS):
            raise DataError(f"{path}: line {number}: split {row['split']!a} is not one of {SPLITS}")
        if split not in ((row["split"],) if row["split"] else ("train", "test")):
            continue
        name = row["name"] or _name_of(row["clean"])
        if not is_below(name):
            raise DataError(
                f"{path}: line {number}: the name {name!a} leads out of a folder, or is not plain"
            )
        if name in table.clean:
            raise DataError(f"{path}: line {number}: a second pair is called {name}")
        table.clean[name] = path.parent / row["clean"]
        table.noisy[name] = path.parent / row["noisy"]
        table.speakers[name] = speaker
    return table


def _speakers(rows: Sequence[tuple[Path, str]]) -> list[str]:
    """Of each clean file, with what its row says: that, or as `speakers_of` does.

    Of all splits at once, so that a speaker has one name in all of them; and a clean file that is
    in several rows has one speaker.
    """
    files = [Path(os.path.abspath(file)) for file, _ in rows]
    if not files:
        return []
    above = Path(os.path.commonpath([file.parent for file in files]))
    told = speakers_of(above, files)
    by_file: dict[Path, str] = {}
    for file, (_, speaker) in zip(files, rows, strict=True):
        by_file.setdefault(file, speaker or told[file])
    return [by_file[file] for file in files]


def _name_of(file: str) -> str:
    """A file's path without extension, and without what leads to other folders than the table's."""
    parts = PurePosixPath(file).with_suffix("").parts
    return "/".join(part for part in parts if part not in ("/", "//", ".."))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a table with their numbers; "" is a cell that is missing."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is not a file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = [(x or "").strip().lower() for x in reader.fieldnames or ()]
            if not {"clean", "noisy"} <= set(reader.fieldnames):
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
