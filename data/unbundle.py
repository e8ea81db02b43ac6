"""Bundles of `data.bundle`, on the machine that they were carried to. Free of torch."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from data.audio import SAMPLE_RATE
from data.corpus import load_recordings
from data.errors import DataError, FailedError
from data.files import remove_partials, replacing, sha256_of
from data.manifest import make_recordings
from data.pack import pack
from data.text import some

CLEAN, NOISE = "clean", "noise"  # folders in every archive
SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")  # as sha256sum writes it
_LISTED = 5


def unpack(parts: Sequence[Path], into: Path) -> Iterator[str]:
    """Verify archives, unpack them, and pack all that is there by then; yields a line a folder.

    Files that are there already are left alone, others of their names are replaced, so that the
    same command repairs what was interrupted or damaged. Manifests are made anew, from the files:
    what came with other parts, before or later, is in them, and so in the packs.

    Raises:
        DataError: an archive is not what its sums say, or not one of a bundle; nothing was
            unpacked then. Or the recordings cannot be used.
        FailedError: something cannot be written.
    """
    for part in parts:
        _verify(part)
    if not hasattr(tarfile, "data_filter"):
        raise FailedError("Python's tarfile is too old to unpack safely: 3.11.4 or newer is needed")
    for part in parts:
        _check(part, into)
    try:
        for part in parts:
            _extract(part, into)
    except tarfile.FilterError as error:  # the folder has changed since
        raise DataError(f"{into}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise FailedError(f"{error.filename or into} cannot be written ({reason})") from None
    for side in (CLEAN, NOISE):
        yield _packed(into / side)


def _verify(part: Path) -> None:
    """Compare an archive with the sums that lie beside it."""
    sums = part.parent / SUMS
    try:
        lines = map(_LINE.fullmatch, sums.read_text("utf-8").splitlines())
        wanted = {line[2]: line[1] for line in lines if line}
    except FileNotFoundError:
        raise DataError(f"{sums} is missing, which tells whether {part} is intact") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{sums} cannot be read ({error})") from None
    if part.name not in wanted:
        raise DataError(f"{sums} does not know {part.name}: they are of different bundles")
    try:
        found = sha256_of(part)
    except OSError as error:
        raise DataError(f"{part} cannot be read ({error.strerror})") from None
    if found != wanted[part.name]:
        raise DataError(f"{part} is damaged, or of another bundle than {sums}; carry it again")


def _members(part: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    try:
        # Names are as `data.bundle` writes them, whatever the system's are.
        with tarfile.open(part, "r:", encoding="utf-8") as archive:
            for member in archive:
                yield archive, member
    except tarfile.TarError as error:
        raise DataError(f"{part} is no archive of a bundle ({error})") from None


def _check(part: Path, into: Path) -> None:
    """Refuse an archive with anything but files that go into one of the folders."""
    bad = []
    for _, member in _members(part):
        path = PurePosixPath(member.name)
        try:
            if not member.isreg() or member.issparse():
                bad.append(f"{member.name!r} is no plain file")
            elif len(path.parts) < 2 or path.parts[0] not in (CLEAN, NOISE):
                bad.append(f"{member.name!r} is in none of its folders")
            elif ".." in path.parts:
                bad.append(f"{member.name!r} leads out of them")
            else:
                tarfile.data_filter(member, str(into))
        except tarfile.FilterError as error:  # a link on the disk that leads elsewhere, say
            bad.append(str(error))
    if bad:
        raise DataError(f"{part} is not to be trusted: {some(bad, _LISTED, '; ')}")


def _extract(part: Path, into: Path) -> None:
    """Write its files, each whole or not at all."""
    tidied: set[Path] = set()
    for archive, member in tqdm(
        _members(part), f"unpacking {part.name}", unit="file", disable=None
    ):
        safe = tarfile.data_filter(member, str(into))
        path = into / safe.name
        if path.parent not in tidied:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_partials(path.parent, older_than=3600)
            tidied.add(path.parent)
        source = archive.extractfile(member)
        content = source.read() if source else b""
        if _is_there(path, content):
            continue
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def _is_there(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _packed(folder: Path) -> str:
    """Make a folder's manifest from its files, pack what is not yet, and say what there is.

    In 16 bits: what Opus decodes to has noise far above their rounding, and takes half the room.
    """
    make_recordings(folder)
    (packed,) = pack(folder, rounded=True)
    found = load_recordings(folder, None, speech=False)
    minutes = sum(each.info.frames for each in found) / SAMPLE_RATE / 60
    files = sum(each.path.stat().st_size for each in found) / 1e6
    return (
        f"{folder}: {len(found):,} files, {minutes:,.1f} minutes, {files:,.1f} MB; packed "
        f"{len(packed):,} files, {packed.path.stat().st_size / 1e6:,.1f} MB"
    )
