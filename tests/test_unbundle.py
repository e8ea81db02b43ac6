"""Bundles on the machine that they were carried to: verified, unpacked, packed for training."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import carried, make, put_corpus, sums_of, unpacked

from data.corpus import load_recordings
from data.files import replacing
from data.packed import FOLDER, find_packs
from data.unbundle import SUMS
from training.config import BASE, Data
from training.sources import make_datasets

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return put_corpus(tmp_path / "corpus")


def test_all_arrives_as_it_was(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    parts = make(corpus, tmp_path / "out")
    assert len(parts) > 2
    into = tmp_path / "into"
    assert unpacked([*parts, tmp_path / "out" / "quick.tar"], into) == 0
    assert carried(into) == carried(corpus)
    assert len(carried(corpus)) == 24 + 9 + 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{into / 'clean'}: 24 files, 0.2 minutes, ")
    assert "packed 24 files, " in lines[0]
    assert lines[1].startswith(f"{into / 'noise'}: 9 files, 0.1 minutes, ")


def test_every_part_is_enough_by_itself(corpus: Path, tmp_path: Path):
    parts = make(corpus, tmp_path / "out")
    sizes = [part.stat().st_size for part in parts]
    assert max(sizes) - min(sizes) <= 40_000
    for part in [*parts, tmp_path / "out" / "quick.tar"]:
        into = tmp_path / part.stem
        assert unpacked([part], into) == 0
        clean = load_recordings(into / "clean")
        noise = load_recordings(into / "noise", speech=False)
        assert {each.speaker for each in clean} <= {f"s{n}" for n in range(6)}
        assert len({each.speaker for each in clean}) > 1
        assert len(noise) > 1
        assert (into / "clean" / "LICENCE").read_text() == "public domain"
        assert not list(into.rglob("*.partial"))
        config = replace(
            BASE, data=Data(source="mix", clean=str(into / "clean"), noise=str(into / "noise"))
        )
        train, valid = make_datasets(config, skip_bad=False)
        assert len(train) > 0
        assert len(valid) > 0


def test_parts_that_come_later_are_taken_in(corpus: Path, tmp_path: Path):
    first, *others = make(corpus, tmp_path / "out")
    into = tmp_path / "into"
    assert unpacked([first], into) == 0
    assert len(load_recordings(into / "clean")) < 24
    assert unpacked(others, into) == 0
    for side, count in (("clean", 24), ("noise", 9)):
        (one,) = find_packs(into / side)
        recordings = load_recordings(into / side, speech=side == "clean")
        assert len(recordings) == len(one) == count
        assert all(each.path in one for each in recordings)
        assert len(list((into / side / FOLDER).iterdir())) == 2


def test_again_it_does_nothing_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = make(corpus, tmp_path / "out")
    into = tmp_path / "into"
    assert unpacked(parts, into) == 0
    before = {
        path: path.stat().st_mtime_ns for path in into.rglob("*.*") if "manifests" not in path.parts
    }
    monkeypatch.setattr("data.pack.read", lambda path: pytest.fail("packed again"))
    assert unpacked(parts, into) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_was_interrupted_or_damaged_is_repaired(corpus: Path, tmp_path: Path):
    parts = make(corpus, tmp_path / "out")
    into = tmp_path / "into"
    assert unpacked(parts, into) == 0
    gone, torn = sorted((into / "clean").rglob("*.wav"))[:2]
    gone.unlink()
    torn.write_bytes(torn.read_bytes()[:-1000])
    assert unpacked(parts, into) == 0
    assert carried(into) == carried(corpus)
    (one,) = find_packs(into / "clean")
    assert len(one) == 24
    assert not one.changed


def test_unpacking_that_is_interrupted_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parts = make(corpus, tmp_path / "out")
    into, left = tmp_path / "into", [7]

    @contextmanager
    def interrupted(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            yield temporary
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data.unbundle.replacing", interrupted)
        assert unpacked(parts, into) == 130
    there = carried(into)
    assert len(there) == 6
    assert there.items() <= carried(corpus).items()
    assert not list(into.rglob(".*"))
    assert unpacked(parts, into) == 0
    assert carried(into) == carried(corpus)


def test_a_damaged_part_is_told_before_anything_is_unpacked(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    parts = make(corpus, tmp_path / "out")
    whole = bytearray(parts[1].read_bytes())
    whole[3000] ^= 1
    parts[1].write_bytes(whole)
    assert unpacked(parts, tmp_path / "into") == 2
    assert f"bundle: {parts[1]} is damaged" in capsys.readouterr().err
    assert not (tmp_path / "into").exists()


def test_sums_that_are_missing_or_of_others(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    out = tmp_path / "out"
    parts = make(corpus, out)
    (out / "other.tar").write_bytes(parts[0].read_bytes())
    assert unpacked([out / "other.tar"], tmp_path / "into") == 2
    assert f"{out / SUMS} does not know other.tar" in capsys.readouterr().err
    parts[0].unlink()
    assert unpacked(parts[:1], tmp_path / "into") == 2
    assert f"{parts[0]} cannot be read (No such file" in capsys.readouterr().err
    (out / SUMS).unlink()
    assert unpacked(parts[1:], tmp_path / "into") == 2
    assert f"{out / SUMS} is missing" in capsys.readouterr().err


def _link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (tarfile.TarInfo("clean/../../escaped.wav"), "leads out of them"),
        (tarfile.TarInfo("../escaped.wav"), "is in none of its folders"),
        (tarfile.TarInfo("/clean/escaped.wav"), "is in none of its folders"),
        (_link("clean/link.wav"), "is no plain file"),
        (tarfile.TarInfo("linked/escaped.wav"), "is in none of its folders"),
        (tarfile.TarInfo("noise/linked/escaped.wav"), "outside the destination"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_archive_whose_files_would_lie_elsewhere_is_refused(
    member: tarfile.TarInfo, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    into = tmp_path / "a" / "into"
    (into / "noise").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (into / "noise" / "linked").symlink_to(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / "part-1.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("clean/before.wav"), io.BytesIO())
        archive.addfile(member, io.BytesIO())
    sums_of(tmp_path)
    assert unpacked([tmp_path / "part-1.tar"], into) == 2
    message = capsys.readouterr().err
    assert "part-1.tar is not to be trusted: " in message
    assert reason in message
    assert not list(tmp_path.rglob("escaped.wav"))
    assert not (into / "clean").exists()


def test_what_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "part-1.tar").write_bytes(b"no archive" * 100)
    sums_of(tmp_path)
    assert unpacked([tmp_path / "part-1.tar"], tmp_path / "into") == 2
    assert "is no archive of a bundle" in capsys.readouterr().err
