"""`data.download`: whole files, and those that arrive in pieces."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from http_server import Server, drop, status

from data.download import TRIES, download
from data.utils import FailedError

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def target(tmp_path: Path, server: Server) -> Path:
    server.files["a.zip"] = CONTENT
    return tmp_path / "a.zip"


def get(server: Server, target: Path, *names: str) -> None:
    download([server.address(name) for name in names or ["a.zip"]], target, "md5", MD5)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["a.zip"]


def test_download_brings_a_file_by_one_request(server: Server, target: Path):
    get(server, target)
    assert server.asked == [("/a.zip", None)]


def test_download_goes_on_where_connections_break(server: Server, target: Path):
    server.faults.extend([drop(1000), status(503), drop(70_000)])
    get(server, target)
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=71000-"]


def test_download_counts_only_tries_without_progress(server: Server, target: Path):
    server.faults.extend([drop(9000)] * 3 * TRIES)
    get(server, target)


def test_download_goes_on_in_another_process(server: Server, target: Path):
    server.faults.extend([drop(5000), *[drop(0)] * TRIES])
    with pytest.raises(FailedError, match=r"ended after 5000 of 300000 bytes.*Run again later"):
        get(server, target)
    assert os.listdir(target.parent) == ["a.zip.part"]
    get(server, target)
    assert server.asked[-1] == ("/a.zip", "bytes=5000-")


def test_download_starts_again_where_a_server_has_no_ranges(server: Server, target: Path):
    server.ranges = False
    server.faults.append(drop(5000))
    get(server, target)


def test_download_takes_what_had_arrived_whole(server: Server, target: Path):
    target.with_name("a.zip.part").write_bytes(CONTENT)
    get(server, target)


def test_download_discards_a_part_of_another_file(server: Server, target: Path):
    target.with_name("a.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(FailedError, match="is not what was published"):
        get(server, target)
    assert os.listdir(target.parent) == []
    get(server, target)


def test_download_takes_the_next_address_where_one_fails(server: Server, target: Path):
    server.files["other.zip"] = b"another file"
    get(server, target, "missing.zip", "other.zip", "a.zip")
    assert [path for path, _ in server.asked] == ["/missing.zip", "/other.zip", "/a.zip"]


def test_download_names_every_address_that_failed(server: Server, target: Path):
    with pytest.raises(FailedError, match=r"^a.zip cannot .*b: .*404.*; .*c: .*404"):
        get(server, target, "b", "c")


def test_download_does_not_hide_a_disk_that_cannot_be_written(server: Server, target: Path):
    target.with_name("a.zip.part").mkdir()
    with pytest.raises(IsADirectoryError):
        get(server, target)
