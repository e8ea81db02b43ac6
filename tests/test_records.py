"""What is published of a run beside its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from saved_runs import save_run

from tools.records import main, record, weights_digest
from training.config import Optim
from training.trained import load_trained
from training.trainer import Trainer


@pytest.fixture
def run(make: Callable[..., Trainer]) -> Path:
    trainer = make(optim=Optim(epochs=1))
    facts = {"parameters": 1234567, "device": "cpu", "processes": 1, "first_step": 0}
    trainer.runlog.describe(type(trainer.learner.model), trainer.config, facts)
    trainer.fit()
    trainer.runlog.ended(trainer.step)
    trainer.close()
    return trainer.folder


def test_a_record_tells_how_and_not_where(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / f"{run.name}.json").read_text()
    found = json.loads(text)
    assert found["config"]["data.batch_size"] == 2
    assert found["made"]["sessions"] == len(found["sessions"]) == 1
    assert [each["epoch"] for each in found["validation"]] == [1]
    for name in ("best.pt", "last.pt"):
        content = (run / name).read_bytes()
        assert found["checkpoints"][name]["sha256"] == hashlib.sha256(content).hexdigest()
    written = json.loads((run / "config.json").read_text())
    host = written["sessions"][0]["host"]
    assert "data.root" in written["config"]
    assert str(tmp_path) not in text
    assert f'"{host}"' not in text


def test_the_digest_of_weights_is_of_names_and_values(run: Path) -> None:
    weights = load_trained(run / "best.pt").network.state_dict()
    digest = record(run)["checkpoints"]["best.pt"]["weights_sha256"]
    assert digest == weights_digest(dict(reversed(weights.items())))
    name = next(iter(weights))
    assert digest != weights_digest(
        {**weights, name: torch.nextafter(weights[name], weights[name] + 1)}
    )
    renamed = {f"x{key}" if key == name else key: value for key, value in weights.items()}
    assert digest != weights_digest(renamed)


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "is it a run folder?" in capsys.readouterr().err
    folder = save_run(tmp_path / "run")
    (folder / "config.json").write_text("{}")
    (folder / "best.pt").write_bytes(b"damaged")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "is damaged" in capsys.readouterr().err
    (folder / "best.pt").unlink()
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
