"""Bundles: a corpus in archives of a limited size, the same bytes each time."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import content, items, make, put_corpus, sums_of
from recordings import put

from data import bundle as bundling
from data.bundle import bundle, main
from data.errors import DataError, FailedError
from data.shares import Item, archive_size, deal, quick
from data.unbundle import SUMS

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return put_corpus(tmp_path / "corpus")


def test_archives_are_as_long_as_was_reckoned_and_never_longer(corpus: Path, tmp_path: Path):
    out = tmp_path / "out"
    for kib in (110, 150, 230, 1000):
        named = bundle(corpus / "clean", corpus / "noise", out, kib / 1024, 0.1)
        for name, inside in named.items():
            assert (out / name).stat().st_size == archive_size(inside) <= kib * 1024


def test_names_that_take_a_header_of_their_own_are_reckoned_in(tmp_path: Path):
    for name in ("a" * 150, "ü" * 60, "b" * 90 + "/" + "c" * 90):
        path = put(tmp_path / "x.wav", 0.1)
        one = Item(f"clean/{name}.wav", path, path.stat().st_size)
        bundling._write(tmp_path / "one.tar", [one])
        assert (tmp_path / "one.tar").stat().st_size == archive_size([one])


def test_archives_that_just_fill_a_record_are_reckoned_right(tmp_path: Path):
    for blocks in range(15, 25):
        path = tmp_path / "x.wav"
        path.write_bytes(b"x" * (512 * blocks - 7))
        one = Item("clean/x.wav", path, path.stat().st_size)
        bundling._write(tmp_path / "one.tar", [one])
        assert (tmp_path / "one.tar").stat().st_size == archive_size([one])


def test_a_limit_is_kept_to_the_byte():
    clean, noise = items("clean", [20_000] * 12), items("noise", [20_000] * 6)
    (whole,) = deal(clean, noise, [], 10**7)
    assert len(whole) == 18
    size = archive_size(whole)
    assert len(deal(clean, noise, [], size)) == 1
    assert len(deal(clean, noise, [], size - 1)) == 2


def test_the_same_corpus_gives_the_same_bytes(corpus: Path, tmp_path: Path):
    make(corpus, tmp_path / "one")
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    for path in copy.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700)
    make(copy, tmp_path / "two")
    assert (tmp_path / "one" / SUMS).read_text() == (tmp_path / "two" / SUMS).read_text()
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    with tarfile.open(tmp_path / "two" / "part-1.tar") as archive:
        for each in archive:
            assert (each.mtime, each.uid, each.gid, each.mode) == (0, 0, 0, 0o644)


def test_sums_are_those_that_other_programs_read(corpus: Path, tmp_path: Path):
    make(corpus, tmp_path)
    before = (tmp_path / SUMS).read_text()
    sums_of(tmp_path)
    assert before == (tmp_path / SUMS).read_text()


def test_long_noises_that_are_too_few_are_in_several_parts():
    clean, noise = items("clean", [50_000] * 40), items("noise", [60_000] * 3)
    parts = deal(clean, noise, [], 500_000)
    assert len(parts) > 3
    for part in parts:
        assert len({each.name for each in part if each.name.startswith("noise/")}) >= 2
    assert {each.name for part in parts for each in part} == {e.name for e in (*clean, *noise)}


def test_the_quick_one_has_its_minutes_in_proportion_and_many_speakers():
    rng = np.random.default_rng(0)
    clean = items("clean", [*rng.integers(2000, 9000, 900)], 100)
    noise = items("noise", [*rng.integers(3000, 60_000, 60)], 5)
    chosen = quick(clean, noise, [], 10**8, 600)
    seconds = {
        side: sum(each.seconds for each in chosen if each.name.startswith(side))
        for side in ("clean", "noise")
    }
    both = sum(each.seconds for each in clean), sum(each.seconds for each in noise)
    assert sum(seconds.values()) == pytest.approx(600, rel=0.05)
    assert seconds["clean"] / seconds["noise"] == pytest.approx(both[0] / both[1], rel=0.1)
    assert len({each.kind for each in chosen if each.name.startswith("clean")}) == 100
    assert len({each.kind for each in chosen if each.name.startswith("noise")}) == 5
    assert len(quick(clean, noise, [], 10**8, 10**6)) == 960
    smaller = quick(clean, noise, [], 400_000, 600)
    assert 300_000 < archive_size(smaller) <= 400_000


def test_the_quick_one_of_a_corpus_lasts_as_long_as_was_asked(corpus: Path, tmp_path: Path):
    named = bundle(corpus / "clean", corpus / "noise", tmp_path / "out", 1, 0.15)
    assert sum(each.seconds for each in named["quick.tar"]) == pytest.approx(9, abs=1.2)


def test_a_file_that_is_larger_than_a_part(corpus: Path, tmp_path: Path):
    large = put(corpus / "noise" / "long.wav", 10)
    with pytest.raises(DataError, match=rf"{large}: 320,044 bytes, more than fits .* --mib 1 at"):
        make(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_that_are_too_small_for_some_of_everything(corpus: Path, tmp_path: Path):
    with pytest.raises(DataError, match="parts of 40,960 bytes are too small for this corpus"):
        make(corpus, tmp_path / "out", 40 / 1024)


def test_folders_that_cannot_be_used(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    clean, noise, empty = corpus / "clean", corpus / "noise", tmp_path / "empty"
    empty.mkdir()
    for folders, out, reason in (
        ((clean, noise), clean / "set 0" / "out", "which is to be carried"),
        ((clean, noise), noise, "which is to be carried"),
        ((clean, clean / "set 0"), tmp_path / "out", "one is in the other"),
        ((clean, tmp_path / "none"), tmp_path / "out", "none: no such folder"),
        ((empty, noise), tmp_path / "out", "empty: no audio in it"),
    ):
        assert main([*map(str, folders), "--out", str(out)]) == 2
        assert reason in capsys.readouterr().err
    (clean / "clean").mkdir()
    assert main([str(clean), str(noise), "--out", str(tmp_path / "out")]) == 2
    assert "call it otherwise" in capsys.readouterr().err
    (clean / "clean").rmdir()
    (clean / "set 0" / "torn.wav").write_bytes(b"RIFF")
    assert main([str(clean), str(noise), "--out", str(tmp_path / "out")]) == 2
    assert "torn.wav: cannot be decoded" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_writing_that_is_interrupted_leaves_what_was_there(
    error: BaseException,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    out = tmp_path / "out"
    make(corpus, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    inner: Callable[..., None] = bundling._write

    def write(path: Path, inside: list[Item]) -> None:
        inner(path, inside)
        if path.stat().st_size and len(list(out.glob(".*.partial"))) > 2:
            raise error

    monkeypatch.setattr(bundling, "_write", write)
    options = [str(corpus / "clean"), str(corpus / "noise"), "--out", str(out), "--mib", "0.15"]
    assert main(options) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "interrupted" in (message := capsys.readouterr().err) or "Nothing was" in message
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_that_changes_meanwhile(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    inner = bundling.deal

    def deal_and_change(*arguments: object) -> object:
        put(corpus / "noise" / "a" / "lärm 0.wav", 0.7)
        return inner(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bundling, "deal", deal_and_change)
    with pytest.raises(FailedError, match=r"lärm 0.wav has changed meanwhile"):
        make(corpus, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_without_room(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil._ntuple_diskusage(10**6, 10**6, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(FailedError, match="Make room and run again"):
        make(corpus, tmp_path / "out")


def test_parts_of_an_earlier_time_go_and_nothing_else(corpus: Path, tmp_path: Path):
    others = [tmp_path / "out" / name for name in ("parts.tar", "notes.txt", "xpart-3.tar")]
    before = make(corpus, tmp_path / "out")
    for path in others:
        path.write_bytes(b"mine")
    assert len(before) > len(make(corpus, tmp_path / "out", 5)) == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"part-1.tar", "quick.tar", SUMS, *(path.name for path in others)}


def test_little_beside_the_recordings_is_carried(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Transcripts of everything would fill each part."""
    for number in range(300):
        (corpus / "clean" / "set 1" / f"{number}.txt").write_text("words", "utf-8")
    make(corpus, tmp_path / "out")
    for part in (tmp_path / "out").glob("*.tar"):
        inside = content(part)
        assert {"clean/speakers.csv", "clean/LICENCE"} <= inside.keys()
        assert "clean/.hidden" not in inside
        assert 0 < sum(name.endswith(".txt") for name in inside) < 30
    assert "files that are no recordings are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["a", "b"],
        ["a", "--out", "o"],
        ["a", "b", "c", "--out", "o"],
        ["--unpack", "p"],
        ["a", "b", "--out", "o", "--into", "d"],
        ["--unpack", "p", "--into", "d", "--out", "o"],
        ["a", "b", "--out", "o", "--mib", "0"],
        ["a", "b", "--out", "o", "--mib", "nan"],
        ["a", "b", "--out", "o", "--quick-minutes", "-1"],
    ],
)
def test_options_that_do_not_go_together(options: list[str]):
    with pytest.raises(SystemExit) as end:
        main(options)
    assert end.value.code == 2
