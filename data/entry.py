"""A manifest's lines: what is known of each recording of a corpus, one JSON object a line.

    {"name": "p226_001", "files": {"clean": "clean_trainset_28spk_wav/p226_001.wav", "noisy": …},
     "sha256": {"clean": …, "noisy": …}, "speaker": "p226", "seconds": 2.125,
     "snr_db": 5.0, "noise": "babble"}

Free of torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data.errors import DataError

FOLDER = "manifests"  # below a corpus
SPLITS = ("train", "valid", "test")
RECORDINGS = "recordings"


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: of the utterance, its path below the folder of clean files without extension.
        files: paths by their role, "clean" and "noisy", or "audio" of a single recording; below
            the corpus where they are relative.
        sha256: of each file's bytes, hexadecimal.
        speaker: who speaks; of noise, the file itself.
        seconds: length, of a pair the common one; exact at 16 kHz.
        snr_db, noise: as the corpus says; None where it does not.
    """

    name: str
    files: Mapping[str, str]
    sha256: Mapping[str, str]
    speaker: str
    seconds: float
    snr_db: float | None = None
    noise: str | None = None

    def __post_init__(self) -> None:
        texts = (self.name, self.speaker, *self.files.values(), *self.sha256.values())
        if not all(map(_is_text, texts)):
            raise ValueError("name, speaker, files and sha256 must be texts, and none empty")
        if not is_below(self.name):
            raise ValueError(f"the name {self.name!a} leads out of a folder, or is not plain")
        if not self.files or self.files.keys() != self.sha256.keys():
            raise ValueError("files and sha256 must name the same roles")
        if not (_is_number(self.seconds) and self.seconds > 0):
            raise ValueError("seconds must be a number above 0")
        if not (self.snr_db is None or _is_number(self.snr_db)):
            raise ValueError("snr_db must be a number or null")
        if not (self.noise is None or isinstance(self.noise, str)):
            raise ValueError("noise must be a text or null")


def is_below(name: str) -> bool:
    """Whether files of this name lie below the folder that they are put into, and nowhere else.

    Of several ways to write such a path only the plain one will do: a//b would be a/b's file.
    """
    path = PurePosixPath(name)
    plain = bool(path.parts) and path.as_posix() == name
    return plain and not path.is_absolute() and ".." not in path.parts


def path_of(root: Path, split: str = RECORDINGS) -> Path:
    """Where the manifest of a split lies, or of a folder of single recordings."""
    return root / FOLDER / f"{split}.jsonl"


def to_text(entries: Sequence[Entry]) -> str:
    """The text of a manifest. Names that are no valid text keep their bytes by escapes."""
    return "".join(f"{json.dumps(asdict(entry))}\n" for entry in entries)


def read_entries(path: Path) -> list[Entry]:
    """The entries of a manifest, in its order; other keys than those above are left alone.

    Raises:
        DataError: it cannot be read, is empty, or a line is not an entry, or a name occurs twice.
    """
    if os.path.lexists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is not a file. Remove it")
    try:
        # Not splitlines: JSON may hold characters that end a line elsewhere.
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise DataError(f"{path} cannot be read ({reason}). {_REMEDY}") from None
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = _from_json(line)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is no entry ({error}). {_REMEDY}") from None
        if entry.name in entries:
            raise DataError(f"{path}: line {number} names {entry.name} once more. {_REMEDY}")
        entries[entry.name] = entry
    if not entries:
        raise DataError(f"{path} has no entry. {_REMEDY}")
    return list(entries.values())


_REMEDY = "Remove it, or make it anew: python -m data.manifest ROOT"
_LARGEST = 1e9
_KEYS = Entry.__dataclass_fields__.keys()


def _from_json(line: str) -> Entry:
    record: Any = json.loads(line)
    if not isinstance(record, dict):
        raise TypeError("not an object")
    for key in ("files", "sha256"):
        if not isinstance(record.get(key), dict):
            raise TypeError(f"{key} is missing or no object")
    missing = {"name", "speaker", "seconds"} - record.keys()
    if missing:
        raise KeyError(f"without {', '.join(sorted(missing))}")
    return Entry(**{key: value for key, value in record.items() if key in _KEYS})


def _is_number(value: object) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def _is_text(value: object) -> bool:
    """Whether it is a text that may be a file's name."""
    try:
        return isinstance(value, str) and bool(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False
