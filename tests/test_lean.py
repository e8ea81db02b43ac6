"""Run folders with what scoring needs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_runs import load, save_run

from tools.lean import main
from tools.records import weights_digest
from training.trained import load_trained


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = save_run(tmp_path / "abl3-0")
    (folder / "metrics.jsonl").write_text('{"step": 3}\n')
    (folder / "config.json").write_text('{"facts": {}}\n')
    return folder


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_what_is_loaded_is_the_same(run: Path, tmp_path: Path, name: str) -> None:
    (run / "best.pt").rename(run / name)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    written = tmp_path / "out" / "abl3-0"
    assert sorted(p.name for p in written.iterdir()) == sorted(
        [name, "config.json", "metrics.jsonl"]
    )
    before, after = load_trained(run), load_trained(written)
    assert after.checkpoint == name
    digests = [weights_digest(each.network.state_dict()) for each in (before, after)]
    assert digests[0] == digests[1]
    assert (before.config, before.step, before.data) == (after.config, after.step, after.data)
    noisy = torch.randn(1, 4000)
    assert torch.equal(before.network.enhance(noisy), after.network.enhance(noisy))
    assert "model" in load(run / name)
    assert "model" not in load(written / name)
    for each in ("config.json", "metrics.jsonl"):
        assert (written / each).read_text() == (run / each).read_text()


def test_what_cannot_be_done_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (run / "best.pt").read_bytes()
    assert main([str(run), "--out", str(tmp_path)]) == 2
    assert "would be overwritten by less" in capsys.readouterr().err
    assert (run / "best.pt").read_bytes() == content
    assert main([str(run), str(run), "--out", str(tmp_path / "out")]) == 2
    assert "the same name" in capsys.readouterr().err
    (run / "config.json").unlink()
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "config.json is missing" in capsys.readouterr().err
    (run / "best.pt").write_bytes(content[:-1])
    assert main([str(run), "--out", str(tmp_path / "out")]) == 2
    assert "best.pt is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
