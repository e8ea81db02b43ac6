"""Zip archives that are damaged, or made to do harm."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest

from data.archives import LIMITS, content, damage, members, open_archive
from data.errors import DataError

NOISE = np.random.default_rng(0).bytes(5000)


def zipped(path: Path, *files: tuple[str | ZipInfo, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, data in files:
            archive.writestr(name, data, ZIP_DEFLATED)
    return path


def names(path: Path, **limits: int) -> dict[str, str]:
    with open_archive(path) as archive:
        found = members(archive, ".wav", replace(LIMITS, **limits))
        return {name: info.filename for name, info in found.items()}


def refused(path: Path, **limits: int) -> str:
    with pytest.raises(DataError) as raised:
        names(path, **limits)
    message = str(raised.value)
    assert str(path) in message
    assert message.endswith(". Remove it and run again.")
    assert "\n" not in message
    return message


def test_wanted_members_by_the_names_of_their_files(tmp_path: Path):
    path = zipped(
        tmp_path / "a.zip",
        ("set/", b""),
        ("set/p1_001.wav", b"1"),
        ("set/deeper/p1 002.WAV", b"2"),
        ("set/p1_u\u0308.wav", b"3"),
        ("set/readme.txt", b"4"),
        ("set/.hidden.wav", b"5"),
        ("__MACOSX/set/._p1_001.wav", b"6"),
    )
    found = names(path)
    assert found == {
        "p1_001.wav": "set/p1_001.wav",
        "p1 002.wav": "set/deeper/p1 002.WAV",
        "p1_\u00fc.wav": "set/p1_u\u0308.wav",
    }
    with open_archive(path) as archive:
        assert [content(archive, name) for name in found.values()] == [b"1", b"2", b"3"]
    assert damage(path) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/x.wav", "has an absolute path"),
        ("C:/x.wav", "has an absolute path"),
        ("c:x.wav", "has an absolute path"),
        ("../x.wav", "leads out of the folder"),
        ("set/../../x.wav", "leads out of the folder"),
        ("set/..", "leads out of the folder"),
        ("set\\..\\x.wav", "has a name that systems read differently"),
        ("set/x\x07.wav", "has a name that systems read differently"),
        ("set/x:y.wav", "has a name that systems read differently"),
        ("set/CON.wav", "has a name that systems read differently"),
        ("set/" + 201 * "x", "has too long a name"),
    ],
)
def test_names_that_lead_elsewhere(name: str, reason: str, tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("set/good.wav", b""), (name, b""))
    assert f"{name!r} {reason}" in refused(path)


def test_dots_in_names_are_no_harm(tmp_path: Path):
    assert list(names(zipped(tmp_path / "a.zip", ("set/a..b.wav", b"")))) == ["a..b.wav"]


def test_a_name_that_ends_early(tmp_path: Path):
    """For zipfile, a name ends where it has a zero byte."""
    path = zipped(tmp_path / "a.zip", ("set/aXb.wav", b""))
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\0b"))
    assert r"'set/a\x00b.wav' has a name that systems" in refused(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(kind: int, tmp_path: Path):
    info = ZipInfo("set/x.wav")
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    assert "'set/x.wav' is a link or a device" in refused(
        zipped(tmp_path / "a.zip", (info, b"/etc/passwd"))
    )
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    assert names(zipped(tmp_path / "a.zip", (info, b"")))


def test_encrypted_members(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("set/x.wav", NOISE))
    edited(path, b"PK\x01\x02", 8, lambda flags: flags | 1)
    assert "'set/x.wav' is encrypted" in refused(path)


def edited(path: Path, mark: bytes, offset: int, change: Callable[[int], int]) -> None:
    """Change two bytes of each record of a kind."""
    whole = bytearray(path.read_bytes())
    start = 0
    while (start := whole.find(mark, start)) >= 0:
        (value,) = struct.unpack_from("<H", whole, start + offset)
        struct.pack_into("<H", whole, start + offset, change(value))
        start += 4
    path.write_bytes(whole)


@pytest.mark.parametrize("other", ["set/X.WAV", "other/x.wav", "set/x.wav"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_that_would_be_one_file(other: str, tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("set/x.wav", b"1"), (other, b"2"))
    assert f"{other!r} has the same name as 'set/x.wav'" in refused(path)


def test_sizes(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE), ("b.wav", NOISE))
    assert names(path, member=5000, total=10_000)
    assert "'a.wav' is too large; 'b.wav' is too large" in refused(path, member=4999)
    assert "unpack to 10,000 bytes, more than 9,999" in refused(path, total=9_999)
    bomb = zipped(tmp_path / "b.zip", ("silent.wav", bytes(1 << 20)))
    assert names(bomb)
    bomb = zipped(tmp_path / "b.zip", ("bomb.txt", bytes((1 << 20) + 1)))
    assert "'bomb.txt' is packed too tightly" in refused(bomb)


def test_members_that_share_their_bytes(tmp_path: Path):
    """As in archives that unpack to more than was ever packed."""
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE), ("b.wav", NOISE))
    with ZipFile(path, "a") as archive:
        first, second = archive.infolist()
        second.header_offset, second.compress_size = first.header_offset, first.compress_size + 900
        archive.infolist().append(second)
        archive._didModify = True
    assert "some lie within one another" in refused(path)


def test_an_archive_within_itself_is_not_opened(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("set/x.wav", b"1"))
    for _ in range(3):
        zipped(tmp_path / "b.zip", ("set/x.wav", b"1"), ("a.zip", path.read_bytes()))
        path.write_bytes((tmp_path / "b.zip").read_bytes())
    assert list(names(path)) == ["x.wav"]


def test_no_more_than_some_are_listed(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", *[(f"../{i}.wav", b"") for i in range(12)])
    message = refused(path)
    assert message.count("leads out") == 5
    assert "and 7 more" in message


@pytest.mark.parametrize("cut", [0, 1, 50, 3000, -1, -30])
def test_archives_that_are_cut_short(cut: int, tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE), ("b.wav", NOISE))
    path.write_bytes(path.read_bytes()[:cut])
    assert "is no zip archive, or not all of one" in refused(path)


def test_a_damaged_member(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE), ("b.wav", NOISE))
    whole = bytearray(path.read_bytes())
    whole[2000] ^= 1
    path.write_bytes(whole)
    with open_archive(path) as archive:
        assert list(members(archive, ".wav")) == ["a.wav", "b.wav"]
        with pytest.raises(DataError, match=r"a\.zip has a damaged member, a\.wav \(.*again\.$"):
            content(archive, "a.wav")
        assert content(archive, "b.wav") == NOISE
    assert damage(path).startswith("has a damaged member, a.wav (")


def test_whatever_byte_is_wrong_it_is_said_in_words(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE[:20]), ("b.wav", NOISE[:20]))
    whole = path.read_bytes()
    for place in range(len(whole)):
        for value in (0, 0xFF, whole[place] ^ 0x10):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert isinstance(damage(path), str)


def test_an_unknown_compression(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", ("a.wav", NOISE))
    edited(path, b"PK\x01\x02", 10, lambda method: 14)  # LZMA
    assert "'a.wav' is packed in an unusual way" in refused(path)
    assert damage(path).startswith("is not to be trusted: of its members, 'a.wav' is packed")


def test_a_missing_archive_is_the_callers_matter(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        open_archive(tmp_path / "none.zip")
