"""Shared by all tests: where the repository is, and the real speech that may lie beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.delenv("BSBIMAMBA_SCAN", raising=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings for development; they are not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development recordings (shared/data beside the repository) are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus at a size for tests: 6 training, 2 validation and 4 test pairs."""
    from data.synthesise import ensure

    return ensure(tmp_path_factory.mktemp("data") / "tiny", train=6, valid=2, test=4, workers=1)
