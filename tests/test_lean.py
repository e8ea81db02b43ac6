"""Run folders with what scoring needs alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saved_runs import change, load, save_run

from tools.lean import main
from tools.records import record, weights_digest
from training.checkpoint import CheckpointError
from training.config import Run
from training.trained import load_trained
from training.trainer import Trainer

FILES = ["best.pt", "config.json", "metrics.jsonl"]


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
    assert sorted(p.name for p in written.iterdir()) == sorted([name, *FILES[1:]])
    before, after = load_trained(run), load_trained(written)
    assert after.checkpoint == name
    digests = [weights_digest(each.network.state_dict()) for each in (before, after)]
    assert digests[0] == digests[1] == record(written)["checkpoints"][name]["weights_sha256"]
    assert (before.config, before.step, before.data) == (after.config, after.step, after.data)
    noisy = torch.randn(1, 4000)
    assert torch.equal(before.network.enhance(noisy), after.network.enhance(noisy))
    assert "model" in load(run / name)
    assert "model" not in load(written / name)
    for each in FILES[1:]:
        assert (written / each).read_bytes() == (run / each).read_bytes()


def test_training_does_not_go_on_from_it(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """It would begin anew, and write over what was kept."""
    trainer = make("run", run=Run(workers=0, epochs=1))
    trainer.fit()
    trainer.close()
    for each in ("last.pt", "good.pt", "previous.pt"):
        (trainer.folder / each).unlink(missing_ok=True)
    content = (trainer.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=r"has a best\.pt and nothing to go on from"):
        make("run", run=Run(workers=0, epochs=1))
    assert (trainer.folder / "metrics.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "config.json"),
        (lambda run: (run / "config.json").write_text("{"), "config.json"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl: no such"),
        (lambda run: (run / "best.pt").write_bytes(b"x" * 99), "best.pt is damaged"),
        (lambda run: change(run / "best.pt", ema=3), "best.pt does not fit"),
        (lambda run: (run / "best.pt").unlink(), "last.pt: no such checkpoint"),
    ],
)
def test_what_is_no_run_is_told_before_any_is_written(
    harm: Callable, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for each in FILES:
        (good / each).write_bytes((run / each).read_bytes())
    harm(run)
    assert main([str(good), str(run), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {each: (run / each).read_bytes() for each in FILES}
    assert main([str(run), "--out", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert {each: (run / each).read_bytes() for each in FILES} == before
    assert main([str(run), str(run), "--out", str(tmp_path / "out")]) == 2
    assert "name each once, or rename a folder" in capsys.readouterr().err
    loop = tmp_path / "loop"
    os.symlink(loop, loop)
    assert main([str(loop), "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "file").write_text("")
    assert main([str(run), "--out", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err
