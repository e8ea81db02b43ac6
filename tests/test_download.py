"""Downloads that break off and are gone on with, of files that may have changed."""

from __future__ import annotations

import json
from dataclasses import replace

import http_server as faults
import pytest
from download_client import CONTENT, ETAG, OTHER, Client
from http_server import MODIFIED, Server

from data.download import Origin


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


def test_a_note_that_is_damaged(client: Client, server: Server):
    server.faults.append(faults.drop(1000))
    client.patience = replace(client.patience, tries=1)
    client.fails()
    for damaged in ("", "[1]", '{"size": 3}'):
        (client.target.parent / "a.zip.part.json").write_text(damaged)
        client.get()
        assert client.target.read_bytes() == CONTENT


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
