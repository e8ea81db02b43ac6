"""What downloads one file in tests, and is told what must not be left of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from http_server import Server

from data.download import Origin, Patience, Wanted, download
from data.errors import FailedError

CONTENT = b"PK" + np.random.default_rng(0).bytes(300_000)
OTHER = b"PK" + np.random.default_rng(1).bytes(300_000)
ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


@pytest.fixture
def pauses() -> list[float]:
    return []


class Client:
    """Downloads a.zip into a folder. exact: whether its checksum is known."""

    def __init__(self, folder: Path, server: Server, pauses: list[float]) -> None:
        self.target, self.server = folder / "a.zip", server
        server.files["a.zip"] = CONTENT
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
