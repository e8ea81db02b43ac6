"""Who speaks in which file, and who is held out for validation."""

import hashlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import pandas as pd

from bsbimamba.data.benchmark import TEST_FILES
from bsbimamba.utils import DataError

log = logging.getLogger("data")

_VCTK = re.compile(r"(?i)(?<![a-z0-9])p(?:22[5-9]|2[3-9]\d|3[0-6]\d|37[0-6])(?![a-z0-9])")
_READER = re.compile(r"reader_\d+")  # of the DNS challenge
_MANY = 4  # times the mean number of files


def speakers_of(folder: Path, files: Iterable[Path]) -> dict[Path, str]:
    """Return the speaker of each of the `files` below `folder`.

    It is what `speakers.csv` in the folder says (columns file, speaker), else `speaker_by_name` of
    the file's path below it. Where that makes a speaker of every file, and all lie in several
    folders, some of them together, it is the file's folder. Raises DataError if `speakers.csv`
    cannot be used.
    """
    path = folder / "speakers.csv"
    rows = read_rows(path, ("file", "speaker")) if path.exists() else []
    table = {row["file"]: row["speaker"] for row in rows}
    if both := [row["file"] for row in rows if table[row["file"]] != row["speaker"]]:
        raise DataError(f"{path}: {both[0]} has two speakers")
    names = {file: file.relative_to(folder).as_posix() for file in files}
    unnamed = [name for name in names.values() if name not in table]
    if table and unnamed:
        text = "%s does not name %d files, %s among them: their speakers are taken from their names"
        log.warning(text, path, len(unnamed), unnamed[0])
    speakers = {file: table.get(name) or speaker_by_name(name) for file, name in names.items()}
    by_folder = {file: PurePath(name).parent.as_posix() for file, name in names.items()}
    each_its_own = not table and len(set(speakers.values())) == len(speakers)
    folders = set(by_folder.values())
    if each_its_own and "." not in folders and 1 < len(folders) < len(speakers):
        log.warning(
            "%s: the file names do not tell who speaks; each folder counts as one speaker. If "
            "this is wrong, name the speakers in speakers.csv there (columns file, speaker)",
            folder,
        )
        return by_folder
    return speakers


def speaker_by_name(file: str) -> str:
    """Return the stem before the first "-" or "_", qualified by the folder that the file lies in.

    Where one of the folders above has that name, as in LibriSpeech's SPEAKER/CHAPTER/, it is that
    folder. Where the stem is a mere number, it is the folder, too. The numbers of VCTK's speakers,
    p225 to p376, are the same person wherever they stand in a path (the benchmark's test speakers
    first), and so are the DNS challenge's readers.
    """
    path = PurePath(file)
    text = path.with_suffix("").as_posix()
    numbers = [number.lower() for number in _VCTK.findall(text)]
    numbers.sort(key=lambda number: number not in TEST_FILES)
    if named := numbers or _READER.findall(text):
        return named[0]
    if path.stem.isdecimal() and path.parent.parts:
        return path.parent.as_posix()
    name = re.split("[-_]", path.stem, maxsplit=1)[0] or path.stem
    folders = path.parent.parts
    if name in folders:
        folders = folders[: folders.index(name) + 1]
    return f"{'/'.join(folders)}:{name}" if folders else name


def is_test_speaker(speaker: str) -> bool:
    """Tell whether VoiceBank-DEMAND tests on a speaker, or the name holds the number of one."""
    return not TEST_FILES.keys().isdisjoint(re.split("[^a-z0-9]+", speaker.lower()))


def hold_out(
    names: Iterable[str],
    wanted: Sequence[str],
    share: float,
    seed: int,
    least: int = 1,
    items: int = 0,
) -> set[str]:
    """Return which of `names` (speakers, or noise files) are kept for validation.

    The `wanted` ones alone if they are all there, and others too; else `share` of the names, at
    least one and never all: those that come first by a hash, so that adding a name changes at most
    one other choice. Return an empty set for a single name.

    Args:
        names: of a speaker, as often as there are files of theirs.
        least: hold out as many, if that is not more than half.
        items: hold out more, up to a fifth, until they have so many files; of each name those
            beyond 1 / `least` of `items` do not count. Names with more than four times the mean
            number of files come last.
    """
    counts = Counter(names)
    if wanted and set(wanted) < counts.keys():
        return set(wanted)
    # What is held out beyond `items` is of no use: leave those with many files to training.
    many = _MANY * counts.total() / len(counts) if items else math.inf

    def place(name: str) -> tuple[bool, bytes]:
        digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
        return counts[name] > many, digest

    order = sorted(counts, key=place)
    count = max(1, round(share * len(order)))
    if least <= len(order) // 2:
        count = max(count, least)
    while count < len(order) // 5 and items > sum(
        min(counts[name], items // least) for name in order[:count]
    ):
        count += 1
    return set(order[: min(count, len(order) - 1)])


def read_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header; "" for empty cells.

    Raises DataError if it cannot be read, or a needed column or cell is missing.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors, too
        raise DataError(f"{path} cannot be read as a table in UTF-8 ({error})") from None
    table = table.rename(columns=lambda name: name.strip().lower())
    if not set(needed) <= set(table.columns):
        raise DataError(
            f"{path}: expected a first line with the columns {' and '.join(needed)}, "
            "separated by commas"
        )
    rows = table.reindex(columns=[*needed, *optional], fill_value="").map(str.strip)
    rows = rows[(rows != "").any(axis=1)]  # spreadsheets write empty ones at the end
    lacking = (rows[list(needed)] == "").any(axis=1)
    if lacking.any():
        row = ",".join(rows.loc[lacking, list(needed)].iloc[0])
        raise DataError(f"{path}: the row {row!a} lacks one of {', '.join(needed)}")
    return rows.to_dict("records")
