"""A web server on this machine that serves a few files and, as told, misbehaves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server(ThreadingHTTPServer):
    """Serves `files` by name, with ranges if `ranges`.

    Attributes:
        faults: what the next requests meet, one each, instead of a proper answer.
        asked: the path and the Range of each request so far, in their order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[Fault] = deque()
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.asked.append((self.path, self.headers["Range"]))
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            status(404)(self, b"")
        elif self.server.faults:
            self.server.faults.popleft()(self, content)
        else:
            self.wfile.write(self.begin(content))

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the tests look at `asked`."""

    def begin(self, content: bytes) -> bytes:
        """Send the head of a proper answer; return what has to follow."""
        asked = self.headers["Range"] if self.server.ranges else None
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if first >= len(content):
            status(416)(self, b"")
            return b""
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        return content[first:]


Fault = Callable[[Handler, bytes], None]


def drop(after: int) -> Fault:
    """Let the connection break after some bytes of the body."""
    return lambda handler, content: handler.wfile.write(handler.begin(content)[:after]) and None


def status(code: int) -> Fault:
    """Answer without the file."""

    def fault(handler: Handler, content: bytes) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server in a thread of its own; downloads do not pause."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("data.download.PAUSE", 0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
