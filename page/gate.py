"""Which requests reach the page: those that it makes itself, from its own address; no others.

Gradio has many more ways in (it fetches addresses for whoever asks, runs, records and edits apps).
What is not listed here is not found.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from data.utils import is_within
from page.store import KEPT_MINUTES, Store

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_API = "/gradio_api"
_FILE = f"{_API}/file="
_JOIN, _UPLOAD = f"{_API}/queue/join", f"{_API}/upload"
_READ = {
    *("/", "/config", "/favicon.ico", "/theme.css", "/manifest.json", "/robots.txt"),
    *(f"{_API}/{name}" for name in ("queue/data", "upload_progress", "startup-events", "app_id")),
    f"{_API}/theme.css",
}
_READ_BELOW = ("/assets/", "/static/", "/results/", f"{_API}/heartbeat/")
_WRITTEN = {_JOIN, _UPLOAD, f"{_API}/cancel", f"{_API}/reset"}
_LONGEST = 1 << 16  # bytes of a request that is no upload
_AROUND = 1 << 16  # bytes of an upload beside the file
# Whatever the page's scripts try, the browser lets them ask this server alone.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_STRANGER = (
    "only files that were uploaded here can be enhanced, and they are deleted after "
    f"{KEPT_MINUTES} minutes"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """An application before another one, which answers what the other shall not see.

    Args:
        names: by which the page may be asked for, where only this machine can: so that no page
            from elsewhere whose name leads here can (DNS rebinding). None: by any.
        most: bytes of an uploaded file.
    """

    def __init__(self, app: App, store: Store, names: frozenset[str] | None, most: int) -> None:
        self._app, self._store, self._names, self._most = app, store, names, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
        status, reason = self._judge(scope["method"], scope["path"], headers)
        if not status and scope["method"] == "POST":
            if scope["path"] == _UPLOAD:
                receive = _limited(receive, self._most + _AROUND)
            else:
                body = await _body(receive)
                if body is None:
                    status, reason = 413, "too long a request"
                elif scope["path"] == _JOIN and not self._uploads_only(body):
                    status, reason = 403, _STRANGER
                else:
                    receive = _again(body, receive)
        if status:
            await _answer(send_all, status, reason)
        else:
            await self._app(scope, receive, send_all)

    def _judge(self, method: str, path: str, headers: dict[bytes, str]) -> tuple[int, str]:
        """The status to refuse a request with and the reason; 0: it is let in."""
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if self._names is not None and _without_port(host) not in self._names:
            return 403, "ask for this page by the address that app.py tells"
        if origin and origin.partition("://")[2] != host:
            return 403, "asked by another page"
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                inside = self._is_upload(path.removeprefix(_FILE))
                return (0, "") if inside else (403, "no upload")
            found = path in _READ or path.startswith(_READ_BELOW)
            return (0, "") if found else (404, "not found")
        if method != "POST" or path not in _WRITTEN:
            return 404, "not found"
        if path == _UPLOAD:
            if int(_digits(headers.get(b"content-length", "0"))) > self._most + _AROUND:
                return 413, f"File size exceeds the maximum allowed size of {self._most} bytes."
            if self._store.full():
                return 507, "There is no room for uploads now; try again later."
        return 0, ""

    def _is_upload(self, path: str) -> bool:
        return (
            path.startswith("/") and "\0" not in path and is_within(Path(path), self._store.uploads)
        )

    def _uploads_only(self, body: bytes) -> bool:
        """Whether all files that a request speaks of are uploads."""
        try:
            pending: list[Any] = [json.loads(body)]
        except (ValueError, RecursionError):
            return False
        while pending:
            each = pending.pop()
            if isinstance(each, list):
                pending += each
            elif isinstance(each, dict):
                pending += each.values()
                path = each.get("path")
                if path is None:
                    continue
                if not (isinstance(path, str) and self._is_upload(path) and Path(path).is_file()):
                    return False
        return True


async def _answer(send: Send, status: int, reason: str) -> None:
    content = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> bytes | None:
    """A request's content; None where it is too long."""
    content = b""
    while True:
        message = await receive()
        content += message.get("body", b"")
        if len(content) > _LONGEST:
            return None
        if not message.get("more_body"):
            return content


def _again(body: bytes, receive: Receive) -> Receive:
    """What a request's content can be received from that has been received."""
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _limited(receive: Receive, most: int) -> Receive:
    """A request's content, which breaks off where it is longer than it may be."""
    there = 0

    async def receive_limited() -> Message:
        nonlocal there
        message = await receive()
        there += len(message.get("body", b""))
        return message if there <= most else {"type": "http.disconnect"}

    return receive_limited


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() else "0"
