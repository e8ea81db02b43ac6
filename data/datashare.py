"""VoiceBank-DEMAND as its publisher has it: which archives, where, and how each is verified.

Edinburgh DataShare, https://doi.org/10.7488/ds/2117. Of each archive the MD5 is known that the
publisher states; of one without, what came first is remembered, and compared from then on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from data.archives import damage
from data.download import Origin, Patience, Wanted, download
from data.errors import DataError
from data.files import DAMAGE, stamp_of, write_text

log = logging.getLogger("data")

RECORDS = "archives.json"
_SITE = "https://datashare.ed.ac.uk"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        name: of the file.
        addresses: where it is, the likeliest first.
        md5: as the publisher states it, hexadecimal; None where he states none.
        size: in bytes, roughly.
        required: whether nothing can be done without.
    """

    name: str
    addresses: tuple[str, ...]
    md5: str | None
    size: int
    required: bool = True

    @property
    def stem(self) -> str:
        return self.name.removesuffix(".zip")

    @property
    def recordings(self) -> bool:
        """Whether it holds recordings, one side of a split, rather than logs."""
        return self.stem.startswith(("clean_", "noisy_"))


def _published(name: str, md5: str, size: int, sequence: int, newer: str) -> Archive:
    """sequence, newer: how the older and the newer software of the site name the file."""
    older = f"{_SITE}/bitstream/handle/10283/2791/{name}?sequence={sequence}&isAllowed=y"
    return Archive(name, (older, f"{_SITE}/bitstreams/{newer}/download"), md5, size)


# Small ones first: what is wrong in general shows before gigabytes have come.
LOGS = Archive(
    "logfiles.zip",
    (f"{_SITE}/bitstream/handle/10283/2791/logfiles.zip",),
    "0d16f5b6afe12d64238d1e4a0e6ff6e8",
    200_000,
    required=False,
)
CLEAN_TEST = _published(
    "clean_testset_wav.zip",
    "34eb1c0ba7ef667e9b966866c542fc16",
    147_000_000,
    1,
    "dec213d3-bf57-4777-9663-c24bdce92d5e",
)
NOISY_TEST = _published(
    "noisy_testset_wav.zip",
    "fb1b86caa31e8ba5b506c0c64da9aab5",
    163_000_000,
    5,
    "13c1bfbf-14a6-41db-9b41-8f7310f01ad5",
)
CLEAN_TRAIN = _published(
    "clean_trainset_28spk_wav.zip",
    "d2d5a45ec32f8fcbf201bde0447e20ba",
    2_320_000_000,
    2,
    "245452b6-6235-44b6-a6f9-e7eb19797769",
)
NOISY_TRAIN = _published(
    "noisy_trainset_28spk_wav.zip",
    "1fca9e8bafb8cd069f6653c6d92f9e9c",
    2_640_000_000,
    6,
    "ecb5a102-bb00-46d3-8af5-40c79823b837",
)
PUBLISHED = (LOGS, CLEAN_TEST, NOISY_TEST, CLEAN_TRAIN, NOISY_TRAIN)


@dataclass(frozen=True)
class Record:
    """What is known of an archive that was found to be right.

    Attributes:
        size: in bytes; changed: when the file was last written to (ns), which tells whether its
            checksums have to be computed again.
        md5, sha256: hexadecimal.
        origin: where it was downloaded from; None where it was there.
        recorded: when, in UTC.
    """

    size: int
    changed: int
    md5: str
    sha256: str
    origin: Origin | None = None
    recorded: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class Shelf:
    """The archives of one corpus folder, and what is remembered of them.

    Args:
        folder: where downloads and the records are kept.
        elsewhere: a folder in which archives are looked for first, and left as they are.
    """

    def __init__(self, folder: Path, elsewhere: Path | None, patience: Patience) -> None:
        self._folder, self._elsewhere, self._patience = folder, elsewhere, patience
        self.records = _read(folder / RECORDS)
        self._found: dict[str, tuple[str, str]] = {}  # the checksums that `_wrong` came to last

    def place(self, archive: Archive) -> Path:
        """Where an archive lies, or will."""
        if self._elsewhere and (self._elsewhere / archive.name).is_file():
            return self._elsewhere / archive.name
        return self._folder / archive.name

    def missing(self, archive: Archive) -> int:
        """How many bytes of an archive have still to come, roughly."""
        path = self.place(archive)
        part = path.with_name(f"{path.name}.part")
        if path.is_file():
            return 0
        known = self.records.get(archive.name)
        size = known.size if known else archive.size
        return max(0, size - (part.stat().st_size if part.is_file() else 0))

    def obtain(self, archive: Archive) -> Path:
        """An archive, verified; downloaded if it is not there.

        Raises:
            DataError: what is there is not the right file.
            FailedError: it cannot be downloaded.
        """
        path, known, origin = self.place(archive), self.records.get(archive.name), None
        if path.is_file():
            if known and stamp_of(path) == [known.size, known.changed]:
                return path
            if wrong := self._wrong(archive, path):
                raise DataError(f"{path} {wrong}. Remove it and run again.")
        else:
            wanted = Wanted(
                path,
                lambda part: self._wrong(archive, part),
                exact=bool(archive.md5 or known),
                start=b"PK",
                size=known.size if known else None,
                most=2 * archive.size + _BLOCK,
            )
            origin = download(wanted, archive.addresses, self._patience)
        origin = origin or (known.origin if known else None)
        size, changed = stamp_of(path)
        self.records[archive.name] = Record(size, changed, *self._found[archive.name], origin)
        records = {name: asdict(record) for name, record in self.records.items()}
        write_text(self._folder / RECORDS, json.dumps(records, indent=2) + "\n")
        return path

    def discard(self, archive: Archive) -> None:
        """Remove an archive that was downloaded; its record stays."""
        (self._folder / archive.name).unlink(missing_ok=True)

    def _wrong(self, archive: Archive, path: Path) -> str:
        """What is wrong with a file that should be an archive, or ""."""
        known = self.records.get(archive.name)
        md5, sha256 = self._found[archive.name] = _checksums(path)
        if archive.md5 and md5 != archive.md5:
            return f"has the MD5 {md5}, but its publisher states {archive.md5} (data/datashare.py)"
        if known and sha256 != known.sha256:
            return f"has the SHA-256 {sha256}, but had {known.sha256} before ({RECORDS})"
        # What is to be trusted from now on has to be sound at least.
        return "" if archive.md5 or known else damage(path)


def find_elsewhere(folder: Path, archives: Sequence[Archive]) -> None:
    """See that a folder named by the user has some of the archives.

    Raises:
        DataError: it has none.
    """
    if not folder.is_dir():
        raise DataError(f"--from {folder}: no such folder")
    missing = [each.name for each in archives if not (folder / each.name).is_file()]
    if len(missing) == len(archives):
        raise DataError(f"--from {folder}: it has none of {', '.join(missing)}")
    if missing:
        log.info("%s lacks %s: to be downloaded", folder, ", ".join(missing))


def _checksums(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file, hexadecimal."""
    both = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = path.stat().st_size
    bar = tqdm(total=size, desc=f"checking {path.name}", unit="B", unit_scale=True, disable=None)
    with bar, path.open("rb") as file:
        while block := file.read(_BLOCK):
            for each in both:
                each.update(block)
            bar.update(len(block))
    return both[0].hexdigest(), both[1].hexdigest()


def _read(path: Path) -> dict[str, Record]:
    """What is remembered; nothing where there is nothing that can be read."""
    try:
        records = json.loads(path.read_text("utf-8"))
        for each in records.values():
            each["origin"] = Origin(**each["origin"]) if each["origin"] else None
        return {name: Record(**each) for name, each in records.items()}
    except FileNotFoundError:
        return {}
    except DAMAGE:
        log.warning("%s cannot be read; checksums are recorded anew", path)
        return {}
