"""Models on the Hugging Face hub, by a server of this test's own that stands in for it."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from recordings import sound
from saved_runs import save_run

from bsbimamba.inference.model import load

NAME, COMMIT = "somebody/enhancer", "0" * 40
PUSH = "from bsbimamba import load; import sys; load(sys.argv[1]).push_to_hub(sys.argv[2])"
PULL = """
import sys, numpy as np
from bsbimamba import load
model = load(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[2]), 16_000))
"""


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that uploads and downloads of small files use."""

    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/{NAME}", "id": NAME})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{NAME}/preupload/main":
            wanted = [x["path"] for x in json.loads(body)["files"]]
            files = [{"path": x, "uploadMode": "regular", "shouldIgnore": False} for x in wanted]
            self.answer({"files": files})
        elif self.path == f"/api/models/{NAME}/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            self.answer(
                {"commitUrl": f"http://{self.headers['Host']}/{NAME}/commit/0", "commitOid": COMMIT}
            )
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        name = self.path.removeprefix(f"/{NAME}/resolve/").partition("/")[2]
        if name in self.files:
            self.answer(self.files[name], ETag=f'"{name}"', **{"X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def answer(self, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[dict[str, str], dict[str, bytes]]]:
    """Yield the environment in which this hub is used, and its files."""
    handler = type("Handler", (Hub,), {"files": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "none", "HF_HUB_DISABLE_XET": "1"}
        yield (
            {**os.environ, **place, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"},
            handler.files,  # type: ignore[attr-defined]
        )
        server.shutdown()


def test_model_is_the_same_after_the_hub(hub: Any, tmp_path: Path):
    environment, files = hub
    run, x = save_run(tmp_path / "run"), sound(0.4).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for program, *words in ((PUSH, run, NAME), (PULL, NAME, tmp_path / "x.npy")):
        command = [sys.executable, "-c", program, *map(str, words)]
        subprocess.run(command, env=environment, check=True, timeout=120, cwd=ROOT)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), load(run)(x, 16_000))
    assert files.keys() == {"model.safetensors", "config.json", "README.md"}
    assert f'load("{NAME}")' in files["README.md"].decode()
