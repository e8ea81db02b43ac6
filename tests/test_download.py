"""Downloads from a server that drops, stalls, lies and changes its mind."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import http_server as faults
import numpy as np
import pytest
from http_server import MODIFIED, Server, serving

from data.download import Origin, Patience, Wanted, download
from data.errors import FailedError

CONTENT = b"PK" + np.random.default_rng(0).bytes(300_000)
OTHER = b"PK" + np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.files["a.zip"] = CONTENT
        yield server


@pytest.fixture
def pauses() -> list[float]:
    return []


class Client:
    """Downloads a.zip into a folder. exact: whether its checksum is known."""

    def __init__(self, folder: Path, server: Server, pauses: list[float]) -> None:
        self.target, self.server = folder / "a.zip", server
        self.patience = Patience(tries=3, timeout=5, sleep=pauses.append)
        self.wanted = Wanted(self.target, self.verify, exact=True, start=b"PK")

    def verify(self, path: Path) -> str:
        return "" if path.read_bytes() == self.server.files["a.zip"] else "has another checksum"

    def get(self, *names: str, **changes: object) -> Origin:
        addresses = [self.server.address(name) for name in names or ["a.zip"]]
        return download(replace(self.wanted, **changes), addresses, self.patience)

    def fails(self, *names: str, **changes: object) -> str:
        with pytest.raises(FailedError) as raised:
            self.get(*names, **changes)
        assert not self.target.exists()
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())


@pytest.fixture
def client(tmp_path: Path, server: Server, pauses: list[float]) -> Client:
    return Client(tmp_path, server, pauses)


ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


def test_a_file_arrives_whole_and_alone(client: Client, server: Server, pauses: list[float]):
    origin = client.get()
    assert origin == Origin(server.address("a.zip"), ETAG, "", len(CONTENT))
    assert client.target.read_bytes() == CONTENT
    assert client.left() == ["a.zip"]
    assert server.asked == [("/a.zip", None, None)]
    assert pauses == []


def test_broken_connections_are_gone_on_from(client: Client, server: Server, pauses: list[float]):
    server.faults.extend([faults.drop(1000), faults.reset, faults.drop(70_000)])
    client.get()
    assert client.target.read_bytes() == CONTENT
    ranges = [(asked, condition) for _, asked, condition in server.asked]
    assert ranges == [
        (None, None),
        ("bytes=1000-", ETAG),
        ("bytes=1000-", ETAG),
        ("bytes=71000-", ETAG),
    ]
    # The second pause is longer, since nothing had come; the third is not, since something had.
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2
    assert 0.5 <= pauses[2] <= 1


def test_another_process_goes_on(client: Client, server: Server):
    server.always = faults.drop(0)
    server.faults.append(faults.drop(5000))
    assert "the connection ended after 5000 of 300002 bytes (3 times)" in client.fails()
    assert client.left() == ["a.zip.part", "a.zip.part.json"]
    server.always = faults.send
    client.get()
    assert server.asked[-1] == ("/a.zip", "bytes=5000-", ETAG)
    assert client.left() == ["a.zip"]


def test_progress_is_what_counts_not_tries(client: Client, server: Server):
    server.always = faults.drop(40_000)
    client.get()
    assert len(server.asked) == 8
    assert client.target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(client: Client, server: Server):
    server.ranges = False
    server.faults.append(faults.drop(1000))
    client.get()
    assert client.target.read_bytes() == CONTENT
    # One that never comes to the end of it is given up.
    client.target.unlink()
    server.always = faults.drop(1000)
    assert "ended after 1000 of" in client.fails()


def test_a_file_that_has_changed_is_not_mixed_with_what_it_was(client: Client, server: Server):
    """Even where nothing but the server's validators tells."""
    server.faults.append(faults.drop(1000))
    client.patience = replace(client.patience, tries=1)
    client.fails(exact=False)
    server.files["a.zip"] = OTHER
    client.get(exact=False, verify=lambda _: "")
    assert client.target.read_bytes() == OTHER
    assert server.asked[-1] == ("/a.zip", "bytes=1000-", ETAG)


def test_nor_by_a_server_that_does_not_heed_the_condition(client: Client, server: Server):
    other = {"ETag": '"other"'}
    server.faults.append(faults.drop(1000))
    server.faults.append(faults.part("bytes 1000-300001/300002", OTHER[1000:], **other))
    client.get(exact=False, verify=lambda _: "")
    assert client.target.read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_without_validators_only_a_known_file_is_gone_on_with(client: Client, server: Server):
    server.etags = False
    server.faults.append(faults.drop(1000))
    client.get()
    assert server.asked[1] == ("/a.zip", "bytes=1000-", None)
    client.target.unlink()
    server.asked.clear()
    server.faults.append(faults.drop(1000))
    client.get(exact=False)
    assert server.asked[1] == ("/a.zip", None, None)


@pytest.mark.parametrize("etag", ['W/"weak"', None])
def test_weak_etags_are_no_condition_and_dates_are(
    etag: str | None, client: Client, server: Server
):
    headers = {"Last-Modified": MODIFIED} | ({"ETag": etag} if etag else {})
    cut = faults.instead(CONTENT[:2000], **headers)

    def dropped(handler: faults.Handler, content: bytes) -> None:
        handler.send_header = _announcing(handler.send_header, len(content))  # type: ignore[method-assign]
        cut(handler, content)

    server.etags = False
    server.faults.append(dropped)
    client.get()
    assert server.asked[1] == ("/a.zip", "bytes=2000-", MODIFIED)
    assert client.target.read_bytes() == CONTENT


def _announcing(send_header, length: int):
    def send(name: str, value: str) -> None:
        send_header(name, str(length) if name == "Content-Length" else value)

    return send


def test_pieces_that_do_not_make_the_file_are_got_again(client: Client, server: Server):
    (client.target.parent / "a.zip.part").write_bytes(OTHER[:5000])
    client.get()
    assert client.target.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == ["bytes=5000-", None]


def test_a_whole_file_that_is_wrong_is_not_got_again(client: Client, server: Server):
    server.always = faults.instead(OTHER)
    assert "a.zip: what comes from there has another checksum)" in client.fails()
    assert len(server.asked) == 1
    assert client.left() == []


def test_all_had_arrived_but_for_its_name(client: Client, server: Server):
    (client.target.parent / "a.zip.part").write_bytes(CONTENT)
    client.get()
    assert client.target.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_more_than_there_is(client: Client, server: Server):
    (client.target.parent / "a.zip.part").write_bytes(CONTENT + b"more")
    client.get()
    assert client.target.read_bytes() == CONTENT
    assert [asked for _, asked, _ in server.asked] == ["bytes=300006-", None]


def test_more_than_there_is_of_a_file_that_only_the_server_knows(client: Client, server: Server):
    (client.target.parent / "a.zip.part").write_bytes(CONTENT + b"more")
    note = {"address": server.address("a.zip"), "etag": ETAG, "size": len(CONTENT)}
    (client.target.parent / "a.zip.part.json").write_text(json.dumps(note))
    client.get(exact=False, verify=lambda _: "")
    assert client.target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "wrong", ["bytes 0-300001/300002", "bytes 1000-299999/300000", "bytes */300002", "nonsense"]
)
def test_another_part_than_asked_for(wrong: str, client: Client, server: Server):
    server.faults.extend([faults.drop(1000), faults.part(wrong, CONTENT[:5000])])
    client.get()
    assert client.target.read_bytes() == CONTENT
    assert server.asked[2] == ("/a.zip", None, None)  # that server is not asked for parts any more


def test_a_note_that_is_damaged(client: Client, server: Server):
    server.faults.append(faults.drop(1000))
    client.patience = replace(client.patience, tries=1)
    client.fails()
    for damaged in ("", "[1]", '{"size": 3}'):
        (client.target.parent / "a.zip.part.json").write_text(damaged)
        client.get()
        assert client.target.read_bytes() == CONTENT


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


def test_the_note_says_what_the_part_is_of(client: Client, server: Server):
    server.always = faults.drop(9)
    client.patience = replace(client.patience, tries=1)
    client.fails()
    note = json.loads((client.target.parent / "a.zip.part.json").read_text())
    assert note == {
        "address": server.address("a.zip"),
        "etag": ETAG,
        "modified": "",
        "size": len(CONTENT),
    }
