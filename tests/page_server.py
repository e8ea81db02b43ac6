"""`python app.py` as a process, each of whose connections is written down; and a client of it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from saved_runs import save_run

from page.store import Store

# Runs app.py as it is, and keeps an account of whom it asks for what.
_WATCHED = """
import os, runpy, sys
account = open(sys.argv.pop(1), "w", buffering=1)
def hear(event, details):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, details[1] if event != "socket.getaddrinfo" else details[0], file=account)
sys.addaudithook(hear)
sys.path.insert(0, os.path.dirname(sys.argv[1]))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
API = "/gradio_api"


@pytest.fixture
def store() -> Iterator[Store]:
    """A folder of uploads and results, which leaves nothing behind."""
    store = Store()
    yield store
    store.close()
    assert not store.folder.exists()


@dataclass
class Served:
    """A page that is being served, and how it is asked.

    account: the file of the connections that its process has made.
    """

    process: subprocess.Popen[str]
    port: int
    folder: Path
    account: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers of an answer."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, body or None, named)
        answer = client.getresponse()
        content = answer.read()
        client.close()
        return answer.status, content, {k.lower(): v for k, v in answer.getheaders()}

    def upload(self, name: str, content: bytes) -> tuple[int, str]:
        """Upload a file: the status, and where it now lies."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--x--\r\n"
        kind = "multipart/form-data; boundary=x"
        status, answer, _ = self.ask("POST", f"{API}/upload", body, Content_Type=kind)
        return status, json.loads(answer)[0] if status == 200 else answer.decode()

    def join(self, path: str | None, models: list[str], session: str) -> tuple[int, Any]:
        """Ask for a recording to be enhanced: the status, and what is said of it."""
        file = None if path is None else {"path": path, "meta": {"_type": "gradio.FileData"}}
        call = {"fn_index": 0, "data": [file, models], "session_hash": session}
        status, answer, _ = self.ask(
            "POST", f"{API}/queue/join", json.dumps(call).encode(), Content_Type="application/json"
        )
        return status, json.loads(answer)

    def result(self, session: str) -> list[dict[str, Any]]:
        """All that is told of a session's requests, to their end."""
        _, content, _ = self.ask("GET", f"{API}/queue/data?session_hash={session}")
        lines = content.decode().splitlines()
        return [json.loads(line.removeprefix("data:")) for line in lines if line.strip()]

    def enhanced(self, path: str | None, models: list[str], session: str) -> str:
        """What the page says and shows in the end."""
        status, answer = self.join(path, models, session)
        assert status == 200, answer
        told = self.result(session)
        # What is shown comes as changes of what was shown before; all of them, then.
        return json.dumps([each.get("output") for each in told], ensure_ascii=False)

    @property
    def results(self) -> list[Path]:
        return list(self.folder.glob("result-*"))

    def connections(self) -> list[str]:
        """Whom its process has asked for anything, but itself."""
        own = ("socket.getaddrinfo 127.0.0.1", "socket.getaddrinfo b'127.0.0.1'")
        return [line for line in self.account.read_text().splitlines() if line not in own]


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[Served]:
    """Start it on a free port, in whose place its message tells the one that it has."""
    account = folder / "connections"
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), **variables}
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _WATCHED, str(account)),
            *(str(ROOT / "app.py"), "--port", "0", *arguments),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        port = _announced(process)
        (made,) = temporary.glob("bs-bimamba-page-*")
        served = Served(process, port, made, account)
        _wait_for(served)
        yield served
    finally:
        process.kill()
        process.communicate()


def _announced(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "(Ctrl-C" in line:
            return int(line.partition(" (")[0].rpartition(":")[2])
    raise AssertionError(f"it did not start: {said}")


def _wait_for(served: Served) -> None:
    for _ in range(200):
        try:
            if served.ask("GET", "/")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("it does not answer")


def end(served: Served, by: signal.Signals = signal.SIGINT) -> tuple[int, str, float]:
    """End it: its status, what else it said, and the seconds that this took."""
    started = time.monotonic()
    served.process.send_signal(by)
    _, errors = served.process.communicate(timeout=20)
    return served.process.returncode, errors, time.monotonic() - started


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page with two small models, "small" and "other"; no one but it is asked for anything."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio (requirements-demo.txt) is not installed")
    folder = tmp_path_factory.mktemp("served")
    runs = [save_run(folder / name, seed) for seed, name in enumerate(("small", "other"))]
    with serving(folder, *map(str, runs)) as served:
        yield served
        assert served.connections() == []
        status, errors, _ = end(served, signal.SIGTERM)
        assert status == 0, errors
        # Of a choice that is none, Gradio tells the terminal.
        assert errors.count("Traceback") == errors.count("not in the list of choices"), errors
        assert not served.folder.exists()
