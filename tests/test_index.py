"""The list of checked files: remembered, doubted, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import put

from data import index
from data.audio import Info, inspect
from data.index import look_over


@pytest.fixture
def inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []

    def counted(path: Path) -> Info:
        names.append(path.name)
        return inspect(path)

    monkeypatch.setattr(index, "inspect", counted)
    monkeypatch.setattr(index, "INDEX", tmp_path / ".cache" / "index.json")
    return names


def test_good_files_are_decoded_once(tmp_path: Path, inspected: list[str]):
    paths = [put(tmp_path / "a.wav"), put(tmp_path / "b.flac", 1)]
    first = look_over(paths)
    assert first == {path: inspect(path) for path in paths}
    assert sorted(inspected) == ["a.wav", "b.flac"]
    assert look_over(paths[::-1]) == first
    assert len(inspected) == 2
    look_over([put(tmp_path / "c.wav"), *paths])
    assert inspected[2:] == ["c.wav"]
    assert os.listdir(index.INDEX.parent) == ["index.json"]


def test_changed_files_are_decoded_again(tmp_path: Path, inspected: list[str]):
    path = put(tmp_path / "a.wav")
    look_over([path])
    status = path.stat()
    put(path, 0.6)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look_over([path])[path] == inspect(path)  # another size
    status = path.stat()
    put(path, 0.6, seed=1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert look_over([path])[path] == inspect(path)  # another time
    assert len(inspected) == 3


def test_files_that_are_gone_are_forgotten(tmp_path: Path, inspected: list[str]):
    one, other = put(tmp_path / "one.wav"), put(tmp_path / "other.wav")
    look_over([one, other])
    assert len(index._read()) == 2
    one.unlink()
    look_over([put(tmp_path / "third.wav")])
    assert {Path(stamp.split("|")[0]).name for stamp in index._read()} == {"other.wav", "third.wav"}


def test_what_is_wrong_is_not_remembered(tmp_path: Path, inspected: list[str]):
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


def test_files_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def too_large(path: Path) -> Info:
        raise MemoryError

    monkeypatch.setattr(index, "inspect", too_large)
    monkeypatch.setattr(index, "INDEX", tmp_path / "index.json")
    path = put(tmp_path / "a.wav")
    assert look_over([path]) == {path: "needs more memory than there is; cut it into pieces"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"{", b"[]", b"null", b"3", b'{"version": 1}', b"[" * 100_000]
    + [
        json.dumps({"version": 1, "files": files}).encode()
        for files in (None, [], [1], {"FILE": None}, {"FILE": {"frames": 1}}, {"FILE": "silent"})
    ],
)
def test_a_damaged_index_is_ignored(tmp_path: Path, inspected: list[str], content: bytes):
    path = put(tmp_path / "a.wav")
    index.INDEX.parent.mkdir()
    index.INDEX.write_bytes(content.replace(b"FILE", index._stamp(path).encode()))
    assert look_over([path]) == {path: inspect(path)}
    assert look_over([path]) == {path: inspect(path)}
    assert inspected == ["a.wav"]


def test_an_index_of_another_version_is_ignored(
    tmp_path: Path, inspected: list[str], monkeypatch: pytest.MonkeyPatch
):
    path = put(tmp_path / "a.wav")
    look_over([path])
    monkeypatch.setattr(index, "_VERSION", index._VERSION + 1)
    for _ in range(2):
        look_over([path])
    assert inspected == ["a.wav", "a.wav"]


@pytest.mark.parametrize("obstacle", ["file", "link to nowhere", "folder"])
def test_an_index_that_cannot_be_kept_is_done_without(
    tmp_path: Path, inspected: list[str], obstacle: str
):
    cache = index.INDEX.parent
    if obstacle == "file":
        cache.touch()
    elif obstacle == "link to nowhere":
        cache.symlink_to("nowhere/at/all")
    else:
        index.INDEX.mkdir(parents=True)
    path = put(tmp_path / "a.wav")
    for _ in range(2):
        assert look_over([path]) == {path: inspect(path)}
    assert len(inspected) == 2
    assert obstacle != "folder" or os.listdir(cache) == ["index.json"]


def test_several_processes_at_once(tmp_path: Path, inspected: list[str]):
    code = (
        "import sys, pathlib\n"
        "from data import index\n"
        "index.INDEX = pathlib.Path(sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    found = index.look_over([pathlib.Path(name)])\n"
        "    assert all(isinstance(info, index.Info) for info in found.values())\n"
    )
    names = [str(put(tmp_path / f"{number}.wav", 0.1)) for number in range(30)]

    def run(part: list[str]) -> Any:
        command = [sys.executable, "-c", code, str(index.INDEX), *part]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        for result in pool.map(run, (names[:15], names[15:], names[::-1])):
            assert result.returncode == 0, result.stderr
    files = json.loads(index.INDEX.read_text())["files"]  # whole, whoever wrote last
    assert {stamp.partition("|")[0] for stamp in files} <= set(names)
    assert os.listdir(index.INDEX.parent) == ["index.json"]


def test_the_data_layer_up_to_here_imports_no_torch():
    code = "import sys, data.corpus, data.workers, data.levels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
