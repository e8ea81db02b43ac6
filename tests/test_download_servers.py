"""Downloads from servers that stall, are overloaded, move away or send something else."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from email.utils import formatdate
from types import SimpleNamespace

import http_server as faults
import pytest
from download_client import CONTENT, OTHER, Client
from http_server import Server

from data.download import download
from data.errors import FailedError


def test_a_whole_file_that_is_wrong_is_not_got_again(client: Client, server: Server):
    server.always = faults.instead(OTHER)
    assert "a.zip: what comes from there has another checksum)" in client.fails()
    assert len(server.asked) == 1
    assert client.left() == []


@pytest.mark.parametrize(
    "wrong", ["bytes 0-300001/300002", "bytes 1000-299999/300000", "bytes */300002", "nonsense"]
)
def test_another_part_than_asked_for(wrong: str, client: Client, server: Server):
    server.faults.extend([faults.drop(1000), faults.part(wrong, CONTENT[:5000])])
    client.get()
    assert client.target.read_bytes() == CONTENT
    assert server.asked[2] == ("/a.zip", None, None)  # that server is not asked for parts any more


def test_a_stalled_server(client: Client, server: Server):
    client.patience = replace(client.patience, timeout=0.2)
    server.faults.append(faults.stall(1000))
    client.get()
    assert server.asked[1][1] == "bytes=1000-"
    server.always = faults.stall(0)
    client.target.unlink()
    assert "the connection broke (nothing came in time) (3 times)" in client.fails()


def test_an_overloaded_server_is_given_the_time_it_asks_for(
    client: Client, server: Server, pauses: list[float]
):
    in_a_minute = formatdate(time.time() + 60, usegmt=True)
    server.faults.extend(
        [faults.status(503, Retry_After="17"), faults.status(429, Retry_After=in_a_minute)]
    )
    client.get()
    assert pauses[0] == 17
    assert 30 < pauses[1] <= 60
    client.target.unlink()
    server.faults.extend([faults.status(503, Retry_After="99999999"), faults.status(500)])
    client.get()
    assert pauses[2] == 600
    assert pauses[3] <= 2


def test_addresses_are_tried_in_turn(client: Client, server: Server):
    server.faults.append(faults.status(403))
    origin = client.get("gone.zip", "a.zip", "a.zip?2")
    assert origin.address == server.address("a.zip?2")
    assert [path for path, _, _ in server.asked] == ["/gone.zip", "/a.zip", "/a.zip?2"]


def test_all_reasons_are_told(client: Client, server: Server):
    server.always = faults.status(503)
    message = client.fails("gone.zip", "a.zip")
    assert "/gone.zip: the server answers 404 Not Found" in message
    assert "/a.zip: the server answers 503 Service Unavailable (3 times)" in message
    assert "--from" in message


def test_nobody_is_there(client: Client, server: Server):
    address = "http://127.0.0.1:1/a.zip"
    with pytest.raises(FailedError, match=r"no answer \(Connection refused\) \(3 times\)"):
        download(client.wanted, [address], client.patience)


def test_a_page_to_sign_in_is_no_file_and_costs_nothing(client: Client, server: Server):
    """Networks with such a page answer everything with it, the request for the rest too."""
    (client.target.parent / "a.zip.part").write_bytes(CONTENT[:5000])
    server.faults.append(faults.instead(b"<html>please sign in</html>", "text/html"))
    client.patience = replace(client.patience, tries=1)
    assert "another kind of file (text/html), as networks do that want one" in client.fails()
    assert (client.target.parent / "a.zip.part").read_bytes() == CONTENT[:5000]


def test_redirections(client: Client, server: Server):
    server.faults.append(faults.status(302, Location="/b.zip"))
    server.files["b.zip"] = CONTENT
    (client.target.parent / "a.zip.part").write_bytes(CONTENT[:7])
    client.get()
    assert server.asked[1] == ("/b.zip", "bytes=7-", None)
    client.target.unlink()
    server.always = faults.status(302, Location="/a.zip")
    assert "redirect" in client.fails()


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1:1/a.zip"])
def test_only_the_web_is_asked(address: str, client: Client, server: Server):
    server.faults.append(faults.status(302, Location=address))
    client.fails()
    assert len(server.asked) == 1
    with pytest.raises(FailedError, match="not an address of http or https"):
        download(client.wanted, [address], client.patience)


def test_a_length_that_is_not_the_known_one(client: Client, server: Server):
    assert "has 300002 bytes, not 300001" in client.fails(size=300_001)
    assert "has 300002 bytes, not at most 1000" in client.fails(most=1000)
    assert client.left() == []


def test_without_a_length_the_end_of_the_connection_counts(client: Client, server: Server):
    server.faults.append(faults.unmeasured)
    client.get()
    assert client.target.read_bytes() == CONTENT
    client.target.unlink()
    server.always = faults.endless
    assert "sends more than 900000 bytes" in client.fails(most=900_000)
    assert client.left() == []


def test_compressed_once_more(client: Client, server: Server):
    server.always = faults.instead(CONTENT, Content_Encoding="gzip")
    assert "compressed once more" in client.fails()


def test_no_room(client: Client, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=300_001))
    assert "has 0.00 GB free, and a.zip takes 0.00 GB more" in client.fails()
    assert client.left() == []
    (client.target.parent / "a.zip.part").write_bytes(CONTENT[:1])
    client.get()
