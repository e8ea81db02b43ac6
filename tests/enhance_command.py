"""The command that enhances files, as tests call it, and recordings for it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import sound
from saved_runs import save_run

import enhance
from enhancement.targets import JOURNAL as NAME

RATE = 16_000


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small, untrained network."""
    return save_run(tmp_path_factory.mktemp("model") / "run")


def put(path: Path, *, rate: int = RATE, channels: int = 1, subtype: str | None = None) -> Path:
    """A recording of 0.3 s whose channels differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.stack([sound(0.3, rate, seed=channel) for channel in range(channels)], 1)
    kind = {"oga": "OGG", "opus": "OGG", "snd": "AU"}.get(path.suffix[1:])
    with path.open("wb") as file:
        sf.write(file, x, rate, subtype, format=kind or path.suffix[1:].upper())
    return path


def carried_out(
    capsys: pytest.CaptureFixture, run: Path, out: Path, *words: object
) -> tuple[int, str]:
    """Status and messages of the command, which never prints a traceback."""
    status = enhance.main([*map(str, words), "-o", str(out), "--checkpoint", str(run)])
    printed, message = capsys.readouterr()
    assert printed == ""
    assert "Traceback" not in message
    return status, message


def files(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too, but for the journal."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def command(run: Path, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / "enhance.py"), "--checkpoint", str(run), *map(str, words)]
