"""`python -m training.runlog`: a run's history as a table and a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.config import Optim, Run
from training.history import circumstances, main
from training.plots import spectrograms
from training.trainer import Trainer


@pytest.fixture
def run(make: Callable[..., Trainer]) -> Path:
    """A run of two validations and a step, with a skipped step and a rollback in the log."""
    run = Run(workers=0, device="cpu", amp="off", log_every=1, validate_every=3)
    trainer = make(optim=Optim(epochs=4), run=run)
    facts = {"parameters": 1234567, "device": "cpu", "processes": 1, "first_step": 0}
    trainer.runlog.describe(type(trainer.learner.model), trainer.config, facts)
    trainer.pool.pesq = [2.0, 2.2, 1.8, 1.9]
    trainer.fit(max_steps=7)
    trainer.runlog.record(8, 2, skipped={"loss": np.nan, "in_a_row": 1}, names=["p1", "p2"])
    trainer.runlog.record(6, 2, rollback={"from": 8, "rate_factor": 0.5})
    trainer.runlog.ended(7)
    trainer.close()
    return trainer.folder


def test_a_run_is_described_and_plotted(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9, "epo\n[1]\n{"step": 9, "epoch": 2, "train": 3}\n')
    result = subprocess.run(
        [sys.executable, "-m", "training.runlog", str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    for text in (
        "test, recipe default, seed 0, 1,234,567 parameters",
        "from step 0: stopped at step 7",
        "held-out recordings as they are: PESQ 1.500",
        "step 8 left out (loss not finite, in_a_row 1): p1, p2",
        "went back from step 8 to 6, to 0.5 times the learning rate",
    ):
        assert text in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    begin = rows.index(["step", "crops", "loss", "rate", "crops/s", "PESQ", "STOI"]) + 1
    table = rows[begin : begin + 3]
    assert [row[:2] for row in table] == [["3", "6"], ["6", "12"], ["7", "14"]]
    assert table[0][-3:] == ["2.100", "0.9000", "best"]
    assert table[1][-2:] == ["1.850", "0.9000"]
    assert table[2][-2:] == ["-", "-"]  # not validated yet
    assert [float(row[3]) for row in table] == pytest.approx([6e-5, 1.2e-4, 1.4e-4])
    losses = [
        line["train"]["loss"]
        for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()[:9])
        if "train" in line
    ]
    means = [np.mean(losses[a:b]) for a, b in ((0, 3), (3, 6), (6, 7))]
    assert [float(row[2]) for row in table] == pytest.approx(means, abs=1e-4)
    picture = matplotlib.image.imread(run / "history.png")
    assert picture.shape[0] > 500
    assert picture[..., :3].std() > 0.05


def test_tensorboard_has_curves_sounds_and_pictures(run: Path) -> None:
    events = EventAccumulator(str(run), {"audio": 0, "images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/pesq", "valid/pesq_wb", "speed/crops_per_second"} <= {
        *tags["scalars"]
    }
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 8))
    assert [e.step for e in events.Scalars("valid/pesq_wb")] == [3, 6]
    enhanced = [tag for tag in tags["audio"] if tag.endswith("/enhanced")]
    assert len(enhanced) == len(tags["images"]) == 2
    assert [e.step for e in events.Audio(enhanced[0])] == [3, 6]
    assert [e.step for e in events.Audio(enhanced[0].replace("enhanced", "clean"))] == [3]
    assert events.Audio(enhanced[0])[0].sample_rate == 16000


def test_what_is_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (None, "no JSON", "[]"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path)])
        assert ended.value.code == 2
        assert str(tmp_path) in capsys.readouterr().err


def test_a_run_without_a_log_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    main([str(tmp_path), "--no-plot"])
    assert "nothing logged yet" in capsys.readouterr().out


def test_crops_are_unknown_without_a_size_of_the_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"config": {"data.batch_size": null}}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 9, "epoch": 0, "train": {"loss": 1.0}}\n')
    main([str(tmp_path), "--no-plot"])
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row == ["9", "-", "1.0000", "-", "-", "-", "-"]


def test_spectrograms_show_a_tone_where_it_is() -> None:
    t = np.arange(16000) / 16000
    picture = spectrograms(
        {"low": np.sin(2 * np.pi * 1000 * t), "high": np.sin(2 * np.pi * 6000 * t)}
    )
    assert picture.dtype == np.uint8
    brightness = picture[..., :3].astype(float).sum(-1)[:, 100:500]
    half = len(brightness) // 2
    low, high = brightness[:half].mean(1), brightness[half:].mean(1)
    # White margins aside, the tone is the brightest line: low in the one, high in the other.
    low[low > 600], high[high > 600] = 0, 0
    assert np.argmax(low) > 0.6 * half
    assert np.argmax(high) < 0.4 * half


def test_silence_has_a_picture_too() -> None:
    assert spectrograms({"noisy": np.zeros(100)}).ndim == 3


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "epoch": 0, "train": {"loss": "x"}}',
        '{"step": 1, "epoch": 0, "skipped": {}, "names": null}',
        '{"step": 1, "epoch": 0, "skipped": {}, "names": [1]}',
        '{"step": 1, "epoch": 0, "valid": {"pesq_wb": "2"}}',
        f'{{"step": {"9" * 400}, "epoch": 0, "train": {{}}}}',
        '{"step": 1, "train": {"loss": 1.0}}',
        "[" * 200_000,
    ],
)
def test_lines_that_no_run_has_written_are_left_out(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    main([str(tmp_path)])
    assert "nothing logged yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "config", ['{"facts": null}', '{"facts": {"parameters": "many"}}', '{"sessions": [3]}', "[" * 9]
)
def test_a_config_that_no_run_has_written(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    assert "config.json" in capsys.readouterr().err


def session(started: str, ended: str | None = None, **more: object) -> dict[str, object]:
    ends = {} if ended is None else {"ended": f"2026-11-26T{ended}:00+00:00"}
    return {"started": f"2026-11-26T{started}:00+00:00", **ends, **more}


def test_the_making_of_a_run_is_summed_up_over_its_sessions() -> None:
    one = {"versions": {"torch": "2.11"}, "device": "cpu", "source": {"commit": "a" * 40}}
    dirty = one | {"device": "cuda", "source": {"commit": "b" * 40, "dirty": True}}
    sessions = [
        session("10:00", "10:30", **one),
        session("11:00", "12:00", **one),
        session("13:00", "13:15", **dirty),
    ]
    assert circumstances({"sessions": sessions}) == {
        "hours": 1.75,
        "sessions": 3,
        "devices": ["cpu", "cuda"],
        "torch": ["2.11"],
        "commits": ["a" * 10, "b" * 10 + "+"],
    }


def test_of_a_killed_session_the_hours_until_it_saved_count() -> None:
    saved = {"saved": "2026-11-26T11:45:00+00:00"}
    sessions = [session("10:00", "10:30", **saved), session("11:00", **saved)]
    assert circumstances({"sessions": sessions})["hours"] == 1.25
    assert "hours" not in circumstances({"sessions": [*sessions, session("12:00")]})


def test_what_is_not_known_of_sessions_is_left_out() -> None:
    found = circumstances({"sessions": [session("10:00", "10:30"), {"ended": "x"}]})
    assert "hours" not in found
    assert found["sessions"] == 2
    for nothing in ({}, {"sessions": "x"}, {"sessions": []}, {"sessions": [1]}):
        assert circumstances(nothing) == {}
    odd = circumstances({"sessions": [session("10:00", "10:30", source="x", versions="2")]})
    assert odd["torch"] == ["None"]
    assert odd["commits"] == ["unknown"]
