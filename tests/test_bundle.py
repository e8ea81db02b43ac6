"""Bundles: a corpus arrives on another machine as it was, in pieces of a limited size."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recordings import put

from data import bundle as bundling
from data.bundle import bundle, main
from data.corpus import load_recordings
from data.errors import DataError, FailedError
from data.files import replacing
from data.packed import FOLDER, find_packs
from data.shares import Item, archive_size, deal, quick
from data.unbundle import SUMS
from training.config import BASE, Data
from training.sources import make_datasets

pytestmark = pytest.mark.usefixtures("own_index")

MIB = 0.2  # a part; a second of these recordings takes 32 kB


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """24 recordings of six speakers, nine noises in three folders, and what describes them."""
    root = tmp_path / "corpus"
    clean, noise = root / "clean", root / "noise"
    rows = ["file,speaker"]
    for n in range(24):
        name = f"set {n % 2}/u{n:02}" + (".wav", ".flac", ".opus", ".wav")[n % 4]
        put(clean / name, 0.4 + n % 3 / 10, n)
        rows.append(f"{name},s{n % 6}")
    for n in range(9):
        put(noise / "abc"[n % 3] / f"lärm {n}.wav", 0.6, 100 + n)
    texts = {
        clean / "speakers.csv": "\n".join(rows),
        clean / "LICENCE": "public domain",
        noise / "a" / "sources.txt": "recorded",
        clean / ".hidden": "",
        clean / FOLDER / "recordings-0.json": "{}",
        clean / "manifests" / "recordings.jsonl": "",
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def make(corpus: Path, out: Path, mib: float = MIB, minutes: float = 0.1) -> list[Path]:
    """Bundle a corpus; the parts of it, in their order."""
    bundle(corpus / "clean", corpus / "noise", out, mib, minutes)
    return sorted(out.glob("part-*.tar"), key=lambda path: int(path.stem[5:]))


def carried(folder: Path) -> dict[str, bytes]:
    """What is to arrive of a corpus: contents by name."""
    found = {}
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        made = not {FOLDER, "manifests"}.isdisjoint(inner.parts)
        if path.is_file() and not path.name.startswith(".") and not made:
            found[inner.as_posix()] = path.read_bytes()
    return found


def content(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]


def unpacked(parts: list[Path], into: Path) -> int:
    return main(["--unpack", *map(str, parts), "--into", str(into)])


def sums_of(folder: Path) -> None:
    """Sums that say what archives are, whatever they hold."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.glob("*.tar"))
    ]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def items(side: str, sizes: list[int], kinds: int = 4) -> list[Item]:
    return [
        Item(f"{side}/{n}.wav", Path(f"{n}.wav"), size, size / 1000, f"k{n % kinds}")
        for n, size in enumerate(sizes)
    ]


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
