"""The command line's two modes, run as a user runs them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from numpy.typing import NDArray
from saved_runs import save_run

from data.audio import read, write
from evaluation.metrics import score
from training.trained import load_trained

RATE = 16000
Signal = NDArray[np.float32]


def hiss(samples: int) -> Signal:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def evaluated(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "evaluate.py"), *map(str, arguments)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def per_file(out: Path, system: str) -> dict[str, dict[str, str]]:
    with (out / "per_file.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return {line["utterance"]: line for line in lines if line["system"] == system}


@pytest.fixture
def samples(tiny_corpus: Path) -> Signal:
    """A second and a quarter of clean speech."""
    return read(next((tiny_corpus / "test" / "clean").iterdir()))[:20000]


def test_runs_are_scored_and_compared(tmp_path: Path, samples: Signal):
    run = save_run(tmp_path / "first", seed=0, step=3)
    (run / "config.json").write_text("{}")
    line = {"step": 3, "epoch": 0, "valid": {"pesq_wb": 2.0}}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    second = save_run(tmp_path / "second", seed=1, step=12_000, name="last.pt")
    signals = {"clean": samples, "noisy": samples + 0.01 * hiss(len(samples))}
    for side, signal in signals.items():
        for name in ("a", "sub/b"):
            path = tmp_path / "test" / side / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, signal, "FLOAT")
    out = tmp_path / "new" / "out"
    result = evaluated(
        *("first", second / "last.pt", "--data", ".", "--out", out, "--workers", 1),
        folder=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == (out / "table.md").read_text("utf-8")
    systems = json.loads((out / "summary.json").read_text("utf-8"))["systems"]
    assert list(systems) == ["noisy", "first", "second"]
    assert [system["files"] for system in systems.values()] == [2, 2, 2]
    assert systems["noisy"]["facts"] == {}
    facts = systems["first"]["facts"]
    assert facts.items() >= {"checkpoint": "best.pt", "step": 3}.items()
    network = load_trained(run).network
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    data = load_trained(run).config.data
    assert facts["crops_per_step"] == data.batch_size * data.crop_seconds / 2
    assert facts["macs_per_second"] > 1e6
    assert 0 < facts["real_time_factor"] < 100
    assert facts["measured_on"].endswith(" of a CPU, 4 s at once")
    page = (out / "report.html").read_text("utf-8")
    assert "PESQ-WB on held-out utterances" in page
    assert "PESQ against crops seen" in page
    # The two differ in more than their seeds.
    assert (
        "second and first are no two seeds of one model, as they differ in checkpoint, steps"
        in (result.stdout)
    )
    assert systems["second"]["facts"].items() >= {"checkpoint": "last.pt", "seed": 1}.items()

    signals["first"] = read(out / "enhanced" / "first" / "sub" / "b.wav")
    expected = network.enhance(torch.from_numpy(signals["noisy"])[None])[0].numpy()
    assert signals["first"] == pytest.approx(expected, abs=1e-5)
    assert {path.name for path in out.iterdir()} == {
        *("per_file.csv", "summary.json", "table.md", "table.tex", "report.html", "enhanced"),
        *("curve.png", "curve.svg"),
    }
    for system in ("noisy", "first"):
        lines = per_file(out, system)
        assert list(lines) == ["a", "sub/b"]
        scores = score(signals["clean"], signals[system], ("stoi", "si_sdr"))
        found = {name: float(lines["sub/b"][name]) for name in scores}
        assert found == pytest.approx(scores, abs=1e-4)


def test_a_folder_is_scored_whatever_is_in_it(tmp_path: Path, samples: Signal):
    """Also one called noisy, which must not take the place of the noisy recordings."""
    clean, enhanced, noisy = tmp_path / "clean", tmp_path / "noisy", tmp_path / "recorded"
    noise = hiss(len(samples))
    good = samples + 0.001 * noise
    content = {
        "near": good,
        "far/a,b": np.stack([good, good], axis=1),
        "extra": good,
        "missing": None,
        "nan": np.where(noise > 2, np.nan, good),
        "one": good[:1],
        "short": good[:-100],
        "silent": 0 * good,
        "text": None,
    }
    for folder in (clean, enhanced, noisy):
        (folder / "far").mkdir(parents=True)
    for name, signal in content.items():
        if name != "extra":
            soundfile.write(clean / f"{name}.wav", samples, RATE)
        if signal is not None:
            soundfile.write(enhanced / f"{name}.wav", signal, RATE, "FLOAT")
    (enhanced / "text.wav").write_text("not audio")
    for name in ("near", "far/a,b"):
        soundfile.write(noisy / f"{name}.flac", samples + 0.1 * noise, RATE)

    out = tmp_path / "out"
    result = evaluated(
        *("--clean", clean, "--enhanced", enhanced, "--noisy", noisy, "--out", out),
        *("--workers", 1, "--require-gain"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout == (out / "table.md").read_text("utf-8")
    assert f"Means over the files of {clean} that have the score, 8 unless" in result.stdout
    assert "\n- noisy: 6 of 8 files without all scores (missing, nan, one, short and 2 more)" in (
        result.stdout
    )
    lines = per_file(out, f"{tmp_path.name}-noisy")
    assert list(lines) == [*sorted(content.keys() - {"extra"}), "extra"]
    assert lines["extra"]["note"] == "there is no clean file of that name"
    assert lines["missing"]["note"] == "there is no file of that name"
    scored = {name for name, line in lines.items() if line["pesq_wb"]}
    assert scored == {"near", "far/a,b", "short"}
    assert {name for name, line in lines.items() if not line["note"]} == {"near"}
    assert lines["far/a,b"]["note"] == "the mean of 2 channels"
    assert lines["short"]["note"] == "-100 samples: the common part is scored"
    assert lines["near"]["pesq_wb"] == lines["far/a,b"]["pesq_wb"]
    assert per_file(out, "noisy").keys() == lines.keys() - {"extra"}


# What is printed
