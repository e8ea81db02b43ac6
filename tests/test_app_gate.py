"""The page's gate and command by themselves."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from saved_runs import save_run

import app
from page.gate import Gate
from page.store import Store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "abl3")


def answered(gate: Gate, method: str, path: str, *parts: bytes, **headers: str) -> tuple[int, bool]:
    """The status of a gate's answer; whether the application behind it was asked."""
    sent: list[Any] = []
    pending = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Any:
        return pending.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(gate(scope, receive, send))
    return sent[0]["status"], sent[0]["status"] == 200


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Reads all, and says that it is well."""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            await send({"type": "http.response.start", "status": 499})
            return
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200})


def test_the_gate_lets_in_what_is_listed(store: Store, monkeypatch: pytest.MonkeyPatch):
    gate = Gate(application, store, frozenset({"localhost"}), 1000)
    (store.uploads / "a.wav").write_bytes(b"x")
    here = {"host": "localhost:7860"}
    join, kind = "/gradio_api/queue/join", "/gradio_api/upload"
    own = f'{{"data": [{{"path": "{store.uploads}/a.wav"}}]}}'.encode()
    assert answered(gate, "GET", "/", **here) == (200, True)
    assert answered(gate, "GET", "/") == (403, False)
    assert answered(gate, "GET", "/", host="localhost.evil.example:7860") == (403, False)
    assert answered(gate, "PUT", "/", **here) == (404, False)
    assert answered(gate, "POST", join, own[:9], own[9:], **here) == (200, True)
    assert answered(gate, "POST", join, own.replace(b"a.wav", b"b.wav"), **here) == (403, False)
    nested = b'{"data": [[{"a": {"path": "http://x/"}}]]}'
    assert answered(gate, "POST", join, nested, **here) == (403, False)
    assert answered(gate, "POST", join, b" " * 70_000, **here) == (413, False)
    # An upload that says how long it is, and one that does not.
    assert answered(gate, "POST", kind, b"x", content_length="80000", **here) == (413, False)
    chunks = [bytes(10_000)] * 7
    assert answered(gate, "POST", kind, *chunks[:6], **here) == (200, True)
    assert answered(gate, "POST", kind, *chunks, **here) == (499, False)
    monkeypatch.setattr("page.store.MOST_BYTES", 0)
    assert answered(gate, "POST", kind, b"x", **here) == (507, False)
    assert answered(Gate(application, store, None, 1000), "GET", "/", host="a:1") == (200, True)


def test_links_lead_nowhere(store: Store, tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    (store.uploads / "link").symlink_to(tmp_path / "secret")
    gate = Gate(application, store, None, 1000)
    asked = f"/gradio_api/file={store.uploads}/link"
    assert answered(gate, "GET", asked) == (403, False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.main(arguments) == 2
    return capsys.readouterr().err


def test_the_command_says_what_is_wrong(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio (requirements-demo.txt) is not installed")
    monkeypatch.setattr(app, "serve", lambda *arguments: pytest.fail("it is served"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}: Address already in use" in refused(capsys, str(run), "--port", port)
    assert "--port 99999: " in refused(capsys, str(run), "--port", "99999")
    assert "--host 203.0.113.7" in refused(capsys, str(run), "--host", "203.0.113.7", "--port", "0")
    assert "no such run folder" in refused(capsys, str(tmp_path / "none"), "--port", "0")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refused(capsys, str(run)).strip() == (
        "app.py: the page needs Gradio: pip install -r requirements-demo.txt"
    )


def test_a_wider_host_is_warned_of(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    from page import serve

    class Ends:
        def run(self, sockets: Any) -> None:
            """As if it were over at once."""

    monkeypatch.setattr(serve, "_server", lambda *arguments: Ends())
    monkeypatch.setattr(serve, "_quieten", lambda store: None)
    monkeypatch.setattr(serve.signal, "signal", lambda *arguments: None)
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True), ("localhost", False)):
        with serve.bound(host, 0) as listening:
            serve.serve({}, host, listening)
        assert ("whoever reaches this port can use" in capsys.readouterr().err) == warned


def test_gradio_is_told_nothing_from_outside(store: Store):
    from page import serve

    given = {"GRADIO_ALLOWED_PATHS": "/", "GRADIO_ANALYTICS_ENABLED": "True", "OTHER": "kept"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", dict(given))
        serve._quieten(store)
        assert os.environ == {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(store.uploads),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OTHER": "kept",
        }


def test_help_needs_no_gradio():
    result = subprocess.run(
        [sys.executable, str(ROOT / "app.py"), "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "MODEL" in result.stdout
