"""What is remembered of files that were looked over, and copies of those slow to decode."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import put, sound

from data import audio, samples
from data.audio import Info, inspect, look_over, read
from data.samples import Samples
from data.utils import DataError

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []

    def counted(path: Path) -> Info:
        names.append(path.name)
        return inspect(path)

    monkeypatch.setattr(audio, "inspect", counted)
    return names


# Looking over


def test_look_over_decodes_good_files_once(tmp_path: Path, inspected: list[str]):
    paths = [put(tmp_path / "a.wav"), put(tmp_path / "b.flac", 1)]
    first = look_over(paths)
    assert first == {path: inspect(path) for path in paths}
    assert sorted(inspected) == ["a.wav", "b.flac"]
    assert look_over(paths[::-1]) == first
    look_over([put(tmp_path / "c.wav"), *paths])
    assert inspected[2:] == ["c.wav"]
    assert os.listdir(audio.INDEX.parent) == ["index.json"]


def test_look_over_decodes_changed_files_again(tmp_path: Path, inspected: list[str]):
    path = put(tmp_path / "a.wav")
    look_over([path])
    status = path.stat()
    put(path, 0.6)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look_over([path])[path] == inspect(path)  # another size
    put(path, 0.6, seed=1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert look_over([path])[path] == inspect(path)  # another time
    assert len(inspected) == 3


def test_look_over_forgets_files_that_are_gone(tmp_path: Path):
    one, other = put(tmp_path / "one.wav"), put(tmp_path / "other.wav")
    look_over([one, other])
    one.unlink()
    look_over([put(tmp_path / "third.wav")])
    known = json.loads(audio.INDEX.read_text())["files"]
    assert {Path(stamp.split("|")[0]).name for stamp in known} == {"other.wav", "third.wav"}


def test_look_over_does_not_remember_what_is_wrong(tmp_path: Path, inspected: list[str]):
    """The reason may lie outside the file, and go without a trace in it."""
    path = tmp_path / "a.wav"
    assert look_over([path]) == {path: "cannot be opened (No such file or directory)"}
    path.symlink_to("b.wav")
    put(tmp_path / "b.wav")
    assert look_over([path]) == {path: inspect(path)}
    sf.write(tmp_path / "b.wav", np.zeros(100), 16000)
    for _ in range(2):
        assert str(look_over([path])[path]).startswith("silent")
    assert len(inspected) == 4


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 2, "files": {"x": {"frames": 1}}}']
)
def test_look_over_ignores_a_damaged_index(tmp_path: Path, inspected: list[str], content: str):
    path = put(tmp_path / "a.wav")
    audio.INDEX.parent.mkdir()
    audio.INDEX.write_text(content)
    assert look_over([path]) == look_over([path]) == {path: inspect(path)}
    assert inspected == ["a.wav"]


def test_look_over_does_without_an_index_that_cannot_be_kept(tmp_path: Path, inspected: list[str]):
    audio.INDEX.mkdir(parents=True)
    path = put(tmp_path / "a.wav")
    for _ in range(2):
        assert look_over([path]) == {path: inspect(path)}
    assert len(inspected) == 2


def test_corpora_are_listed_without_torch():
    code = "import sys, data.corpus, data.samples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# Decoded copies


def decoded(*paths: Path) -> Samples:
    source = Samples()
    source.keep_decoded(paths)
    return pickle.loads(pickle.dumps(source))  # as worker processes get it


def copies() -> list[str]:
    return sorted(os.listdir(samples.CACHE))


def put_at(path: Path, x: np.ndarray, rate: int = 16000, subtype: str | None = None) -> Path:
    sf.write(path, x, rate, subtype)
    return path


def slow_files(folder: Path) -> Iterable[Path]:
    yield put(folder / "a.opus", 1.0)
    yield put(folder / "b.ogg", 1.0)
    yield put_at(folder / "c.wav", sound(1.0, 44100), 44100)
    yield put_at(folder / "d.flac", np.stack([sound(1.0, 8000)] * 2, axis=1), 8000)


def test_copies_hold_the_samples_in_16_bits(tmp_path: Path):
    paths = list(slow_files(tmp_path))
    source = decoded(*paths)
    assert len(copies()) == 4
    for path in paths:
        whole = read(path)
        found = source.read(path)
        assert found.dtype == np.float32
        assert np.abs(found - whole).max() <= 0.5 / 32768
        np.testing.assert_array_equal(source.read(path, 5000, 700), found[5000:5700])
        np.testing.assert_array_equal(source.piece(path, 16000, 15_990, 20)[10:], np.zeros(10))


def test_copies_are_floats_where_a_recording_exceeds_full_scale(tmp_path: Path):
    path = put_at(tmp_path / "a.wav", 3 * sound(1.0, 44100), 44100, "FLOAT")
    np.testing.assert_array_equal(decoded(path).read(path), read(path))


def test_no_copies_are_made_of_files_that_are_read_fast(tmp_path: Path):
    paths = [put(tmp_path / "a.wav"), put(tmp_path / "b.flac")]
    source = decoded(*paths)
    assert copies() == []
    for path in paths:
        np.testing.assert_array_equal(source.read(path, 100, 50), read(path, 100, 50))


def test_copies_are_made_once_and_anew_of_changed_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = put(tmp_path / "a.opus")
    first = decoded(path).read(path)
    (copy,) = copies()
    status = (samples.CACHE / copy).stat()
    np.testing.assert_array_equal(decoded(path).read(path), first)
    assert (samples.CACHE / copy).stat().st_mtime_ns == status.st_mtime_ns
    put(path, 0.7)
    assert len(decoded(path).read(path)) == 11_200
    assert len(copies()) == 2


def test_copies_that_cannot_be_written_are_an_error(tmp_path: Path):
    path = put(tmp_path / "a.opus")
    samples.CACHE.parent.mkdir()
    samples.CACHE.touch()
    with pytest.raises(DataError, match=r"cannot be written .*--run.no-packed"):
        decoded(path)


def test_recordings_that_have_changed_meanwhile_are_an_error(tmp_path: Path):
    path = put(tmp_path / "a.wav")
    with pytest.raises(DataError, match=r"a.wav: it is shorter than it was\. Put it back"):
        Samples().piece(path, 9000, 7900, 200)
    path.unlink()
    with pytest.raises(DataError, match=r"a.wav: cannot be opened .* put it back\.$"):
        Samples().read(path)
