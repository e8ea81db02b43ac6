"""Zip archives from elsewhere, read with care: their members are checked before any is used."""

from __future__ import annotations

import re
import stat
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from data.errors import DataError
from data.text import some

# What zipfile raises where the bytes are not what they should be; ValueError includes names that
# are no UTF-8, RuntimeError and NotImplementedError what it cannot read.
_DAMAGE = (
    BadZipFile,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)
# Other separators, what some systems forbid, and the names that are devices there.
_ODD_NAME = re.compile(
    r"""[\\<>:"|?*\x00-\x1f\x7f]|(?:^|/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|/|$)""", re.IGNORECASE
)
_ADVICE = "Remove it and run again."
_LISTED = 5
_LONGEST_NAME = 200  # bytes; file systems allow 255, and something is put before and after it
_SMALL = 1 << 20  # what is below may be packed as tightly as it likes


@dataclass(frozen=True)
class Limits:
    """What is still believed of an archive.

    Attributes:
        member: bytes of a member, unpacked.
        total: bytes of all of them.
        ratio: unpacked to packed, of a member above 1 MiB. Speech has 1.2, silence 1000.
    """

    member: int = 64 << 20
    total: int = 16 << 30
    ratio: int = 200


LIMITS = Limits()


def open_archive(path: Path) -> ZipFile:
    """An archive, to be closed by the caller.

    Raises:
        DataError: it is none, or cut short.
    """
    try:
        return ZipFile(path)
    except _DAMAGE as error:
        raise DataError(
            f"{path} is no zip archive, or not all of one ({_text(error)}). {_ADVICE}"
        ) from None


def members(archive: ZipFile, suffix: str, limits: Limits = LIMITS) -> dict[str, ZipInfo]:
    """The members whose name ends in `suffix`, in any case, by the name of the file to be made.

    That is the last part of the member's path, in Unicode's composed form, with `suffix` as it is
    written here. Hidden files are left out, and with them what macOS adds; archives within the
    archive are never opened.

    Raises:
        DataError: a member, wanted or not, could harm: it would lie outside of the folder, is a
            link, is encrypted or of an absurd size; or two would become one file.
    """
    _check(archive, limits)
    found: dict[str, ZipInfo] = {}
    taken: dict[str, str] = {}
    bad = []
    for info in archive.infolist():
        name = unicodedata.normalize("NFC", PurePosixPath(info.filename).name)
        if info.is_dir() or name.startswith(".") or not name.casefold().endswith(suffix):
            continue
        name = name[: -len(suffix)] + suffix
        key = name.casefold()  # many file systems take names for the same that differ in case only
        if key in taken:
            bad.append(f"{info.filename!r} has the same name as {taken[key]!r}")
        taken[key] = info.filename
        found[name] = info
    _refuse(archive, bad)
    return found


def content(archive: ZipFile, name: str) -> bytes:
    """A member that `members` gave, by its name in the archive: unpacked, its checksum compared.

    Raises:
        DataError: it is damaged.
    """
    try:
        unpacked = archive.read(name)
        if len(unpacked) != archive.getinfo(name).file_size:
            raise EOFError
    except _DAMAGE as error:
        raise DataError(
            f"{archive.filename} has a damaged member, {name} ({_text(error)}). {_ADVICE}"
        ) from None
    return unpacked


def damage(path: Path, limits: Limits = LIMITS) -> str:
    """What is wrong with an archive, all of it read ("is no zip archive", say); "" for nothing."""
    try:
        with open_archive(path) as archive:
            _check(archive, limits)
            for info in archive.infolist():
                content(archive, info.filename)
    except DataError as error:
        return str(error).removeprefix(f"{path} ").removesuffix(f". {_ADVICE}")
    return ""


def _check(archive: ZipFile, limits: Limits) -> None:
    every = archive.infolist()
    bad = [f"{each.orig_filename!r} {why}" for each in every if (why := _danger(each, limits))]
    total = sum(each.file_size for each in every)
    if total > limits.total:
        bad.append(f"all together unpack to {total:,} bytes, more than {limits.total:,}")
    size = Path(str(archive.filename)).stat().st_size
    if not all(0 <= each.header_offset < size for each in every):
        bad.append("some lie outside of it")
    if sum(each.compress_size for each in every) > size:
        bad.append("some lie within one another")
    _refuse(archive, bad)


def _refuse(archive: ZipFile, bad: list[str]) -> None:
    if bad:
        raise DataError(
            f"{archive.filename} is not to be trusted: of its members, "
            f"{some(bad, _LISTED, '; ')}. {_ADVICE}"
        )


def _danger(info: ZipInfo, limits: Limits) -> str:
    """Why a member is not to be unpacked, or ""."""
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    dangers = {
        "has an absolute path": name.startswith("/") or re.match("[A-Za-z]:", name),
        "leads out of the folder": ".." in name.split("/"),
        "has a name that systems read differently": _ODD_NAME.search(name),
        "has too long a name": len(Path(name).name.encode("utf-8", "replace")) > _LONGEST_NAME,
        "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": info.flag_bits & 1,
        "is packed in an unusual way": info.compress_type not in (ZIP_STORED, ZIP_DEFLATED),
        "is too large": info.file_size > limits.member,
        "is packed too tightly": info.file_size > max(_SMALL, limits.ratio * info.compress_size),
    }
    return next((reason for reason, found in dangers.items() if found), "")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
