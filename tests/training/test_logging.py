"""The log of a run: config.json, metrics.jsonl, TensorBoard, spectrograms, sessions."""

import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from saved_runs import fit_to
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bsbimamba.training import loop
from bsbimamba.training.config import Optim, Run
from bsbimamba.training.logging import circumstances, read_history, spectrograms
from bsbimamba.training.loop import Trainer

LOGGED = Run(workers=0, device="cpu", amp="off", log_every=1, validate_every=3)


@pytest.fixture
def run(make: Callable[..., Trainer]) -> Path:
    """A run of two validations and a step."""
    trainer = make(optim=Optim(epochs=4), run=LOGGED)
    trainer.describe()
    trainer.pool.pesq = [2.0, 2.2, 1.8, 1.9]  # type: ignore[attr-defined]
    fit_to(trainer, 7)
    assert trainer.runlog
    trainer.runlog.record(8, 2, train={"pesq": math.nan, "loss": 0.5})
    trainer.close()
    return trainer.folder


def test_run_is_in_config_log_and_tensorboard(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 9, "epo')  # cut off
    config, lines = read_history(run)
    assert config["facts"]["parameters"] > 1000
    assert config["sessions"][-1]["last_step"] == 7
    assert [line["step"] for line in lines if "valid" in line] == [3, 6]
    assert len(lines) == 10
    assert lines[-1] == {"step": 8, "epoch": 2, "train": {"pesq": None, "loss": 0.5}}
    assert read_history(run.parent) == ({}, [])  # no run folder
    events = EventAccumulator(str(run), {"audio": 0, "images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/pesq", "valid/pesq_wb", "speed/crops_per_second"} <= {
        *tags["scalars"]
    }
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 9))
    enhanced = [tag for tag in tags["audio"] if tag.endswith("/enhanced")]
    assert len(enhanced) == len(tags["images"]) == 2
    assert [e.step for e in events.Audio(enhanced[0])] == [3, 6]
    assert [e.step for e in events.Audio(enhanced[0].replace("enhanced", "clean"))] == [3, 6]
    assert events.Audio(enhanced[0])[0].sample_rate == 16000


def test_without_a_terminal_there_is_a_line_now_and_then_and_no_bar(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    caplog.set_level("INFO", "training")
    for pause, lines in ((60, 1), (0, 4)):
        with patch.object(loop, "_QUIET", pause):
            fit_to(make(str(pause), run=LOGGED), 3)
        assert caplog.text.count(" of 6: loss ") == lines
    assert not capsys.readouterr().err


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
    assert spectrograms({"noisy": np.zeros(100)}).ndim == 3


def test_circumstances_are_summed_up_over_sessions() -> None:
    sessions = [
        {
            "started": f"2026-11-26T{started}:00+00:00",
            "saved": f"2026-11-26T{saved}:00+00:00",
            "versions": {"torch": "2.11"},
            "hardware": hardware,
            "source": source,
        }
        for started, saved, hardware, source in (
            ("10:00", "10:30", "cpu", {"commit": "a" * 40, "dirty": False}),
            ("11:00", "11:45", "cpu", {"commit": "a" * 40, "dirty": False}),
            ("13:00", "13:15", "cuda", {"commit": "b" * 40, "dirty": True}),
            ("14:00", "14:30", "cuda", {}),
        )
    ]
    assert circumstances({"sessions": sessions}) == {
        "hours": 2.0,
        "sessions": 4,
        "devices": ["cpu", "cuda"],
        "torch": ["2.11"],
        "commits": ["a" * 10, "b" * 10 + "+", "unknown"],
    }
    assert circumstances({}) == {}
