"""`python -m data.voicebank` in tests: called as a function, on a small corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from http_server import Server
from small_voicebank import FOLDERS, Published

from data import prepared, voicebank
from data.download import Patience


class Command:
    """The command on a small corpus, published by `server`; `ends` checks how it ends."""

    def __init__(self, base: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.server, self._capsys = base / "root", server, capsys
        self.published = Published()
        self.publish()

    def publish(self) -> None:
        self.server.files = self.published.contents()
        self.archives = self.published.archives(self.server.files, self.server.address(""))

    def ends(self, status: int, *options: str) -> str:
        """What it says, on a line of its own if it fails."""
        patience = Patience(tries=3, timeout=5, sleep=lambda _: None)
        words = ["--root", str(self.root), "--workers", "1", *options]
        found = voicebank.main(words, self.archives, patience)
        output = self._capsys.readouterr()
        assert found == status, output.err
        assert "Traceback" not in output.err
        if status == 0:
            return output.out
        assert output.out == ""
        assert output.err.startswith("voicebank: ")
        return output.err

    def asked(self) -> list[str]:
        """The archives that were asked for since the last time."""
        names = [path.strip("/") for path, _, _ in self.server.asked]
        self.server.asked.clear()
        return names

    def files(self) -> dict[str, int]:
        """When each recording was written."""
        return {
            path.relative_to(self.root).as_posix(): path.stat().st_mtime_ns
            for path in self.root.glob("*_wav/*")
        }

    def facts(self) -> dict:
        return json.loads((self.root / "prepared.json").read_text())

    def assert_complete(self) -> None:
        expected = {f"{folder}/{name}.wav" for folder, names in FOLDERS.items() for name in names}
        assert self.files().keys() == expected
        assert prepared.is_finished(self.root, self.archives)
        assert not list(self.root.rglob("*.part*"))


@pytest.fixture
def command(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, server, capsys)
