"""A web server on this machine that serves a few files and, as told, misbehaves."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges and validators.

    Attributes:
        files: contents by name.
        faults: what the next requests meet, one each, instead of a proper answer.
        always: what all requests meet where there is no fault for them.
        etags, ranges: whether files have ETags; whether range requests are understood.
        asked: the path, Range and If-Range of each request so far, in their order.
    """

    daemon_threads = True
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault] = deque()
        self.always: Fault = send
        self.etags, self.ranges = True, True
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.ended = threading.Event()

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what the tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        headers = self.headers
        self.server.asked.append((self.path, headers["Range"], headers["If-Range"]))
        content = self.server.files.get(self.path.partition("?")[0].lstrip("/"))
        faults = self.server.faults
        if content is None:
            status(404)(self, b"")
        else:
            (faults.popleft() if faults else self.server.always)(self, content)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `asked`."""

    def begin(self, content: bytes, length: int | None = None) -> bytes:
        """Send the head of a proper answer; what has to follow. length: what is announced."""
        server, headers = self.server, self.headers
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        first = 0
        if server.ranges and headers["Range"] and headers["If-Range"] in (None, etag, MODIFIED):
            first = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if first >= len(content) > 0:
            status(416, **{"Content-Range": f"bytes */{len(content)}"})(self, b"")
            return b""
        self.send_response(206 if first else 200)
        if first:
            last = f"{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {first}-{last}")
        if server.etags:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - first if length is None else length))
        self.end_headers()
        return content[first:]


Fault = Callable[[Handler, bytes], None]
MODIFIED = "Tue, 22 Aug 2017 10:00:00 GMT"


def send(handler: Handler, content: bytes) -> None:
    """A proper answer."""
    handler.wfile.write(handler.begin(content))


def drop(after: int) -> Fault:
    """The connection breaks after some bytes of the body."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.begin(content)[:after])

    return fault


def reset(handler: Handler, content: bytes) -> None:
    """The connection breaks before there is an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def stall(after: int) -> Fault:
    """Nothing more comes after some bytes of the body."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.wfile.write(handler.begin(content)[:after])
        handler.server.ended.wait(60)

    return fault


def status(code: int, **headers: str) -> Fault:
    """An answer without the file."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.send_response(code)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return fault


def instead(content: bytes, kind: str = "application/zip", **headers: str) -> Fault:
    """All is well (200), but it is something else."""

    def fault(handler: Handler, _: bytes) -> None:
        handler.send_response(200)
        for name, value in {**headers, "Content-Type": kind}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return fault


def part(content_range: str, body: bytes, **headers: str) -> Fault:
    """An answer 206 of one's own."""

    def fault(handler: Handler, _: bytes) -> None:
        handler.send_response(206)
        for name, value in {**headers, "Content-Range": content_range}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def endless(handler: Handler, content: bytes) -> None:
    """The file, without an announced length, and then more and more of it."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while not handler.server.ended.is_set():
            handler.wfile.write(content)


def unmeasured(handler: Handler, content: bytes) -> None:
    """The file, without an announced length."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread of its own."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        yield server
