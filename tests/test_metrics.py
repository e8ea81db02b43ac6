"""Scores against analytic values, reference values, and what must not change them."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray

from data.audio import read
from data.plan import plan
from data.synthesise import render_row
from evaluation import metrics
from evaluation.metrics import METRICS, MetricError, estoi, pesq_wb, score, si_sdr, stoi

RATE = 16000
Signal = NDArray[Any]
Pair = tuple[Signal, Signal]


@pytest.fixture(scope="module")
def speech() -> Pair:
    """A clean and a noisy utterance, as 16-bit samples scaled to [-1, 1]."""
    clean, noisy = render_row(plan(0, 0, 0, 1)[0])
    return clean / 32768, noisy / 32768


def noise(samples: int, seed: int = 0) -> Signal:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


# Reference values

P232 = Path("voicebank_demand_p232")


def reference(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / P232 / "reference_scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def compare(shared_data: Path, rows: list[dict[str, str]]) -> tuple[Signal, Signal]:
    """PESQ-WB and STOI of the noisy files, each (files, 2): found, reference."""
    pesqs, stois = [], []
    for row in rows:
        clean, noisy = (
            read(shared_data / P232 / side / f"{row['utterance']}.flac")
            for side in ("clean", "noisy")
        )
        pesqs.append((pesq_wb(clean, noisy), float(row["pesq_wb"])))
        stois.append((stoi(clean, noisy), float(row["stoi"])))
    return np.array(pesqs), np.array(stois)


def assert_the_same(pesqs: Signal, stois: Signal) -> None:
    """The reference script takes PESQ from the same package; its STOI is its own.

    It looks for silence one sample earlier than pystoi does, so that in one file of eight a frame
    more or less is left out, which makes up to 0.015.
    """
    assert np.abs(pesqs[:, 0] - pesqs[:, 1]).max() < 1e-3
    differences = np.abs(stois[:, 0] - stois[:, 1])
    assert np.median(differences) < 1e-5
    assert differences.max() < 0.016


def test_real_recordings_score_as_the_reference_script_scores_them(shared_data: Path):
    rows = reference(shared_data)
    assert len(rows) == 393
    assert_the_same(*compare(shared_data, rows[::35]))


@pytest.mark.slow
def test_all_recordings_of_p232_score_as_the_reference_script_scores_them(shared_data: Path):
    """If this moves, no PESQ or STOI of this project compares with published ones any more."""
    pesqs, stois = compare(shared_data, reference(shared_data))
    assert_the_same(pesqs, stois)
    assert pesqs[:, 0].mean() == pytest.approx(2.166, abs=1e-3)
    assert stois[:, 0].mean() == pytest.approx(stois[:, 1].mean(), abs=1e-3)


@pytest.mark.parametrize("decibels", [-30.0, 0.0, 13.7, 90.0])
def test_si_sdr_of_a_mixture_is_its_ratio_of_powers(speech: Pair, decibels: float):
    clean = speech[0] - speech[0].mean()
    added = noise(len(clean))
    added -= added.mean()
    added -= added @ clean / (clean @ clean) * clean
    added *= np.sqrt(clean @ clean / (added @ added)) * 10 ** (-decibels / 20)
    assert si_sdr(clean, clean + added) == pytest.approx(decibels, abs=1e-6)


def test_identical_signals_have_the_highest_scores(speech: Pair):
    clean, _ = speech
    assert pesq_wb(clean, clean) == pytest.approx(4.6439, abs=1e-4)
    assert stoi(clean, clean) == pytest.approx(1, abs=1e-9)
    assert estoi(clean, clean) == pytest.approx(1, abs=1e-9)


# What must not change a score


def test_scores_do_not_depend_on_the_levels(speech: Pair):
    clean, noisy = speech
    before = score(clean, noisy)
    for gains in ((0.01, 0.01), (1, 0.05), (0.05, 1), (32768, 32768)):
        after = score(gains[0] * clean, gains[1] * noisy)
        assert after["stoi"] == pytest.approx(before["stoi"], abs=1e-9)
        assert after["estoi"] == pytest.approx(before["estoi"], abs=1e-9)
        assert after["si_sdr"] == pytest.approx(before["si_sdr"], abs=1e-6)
        # PESQ computes in 32 bits after setting both levels itself.
        assert after["pesq_wb"] == pytest.approx(before["pesq_wb"], abs=2e-3)


def test_si_sdr_does_not_depend_on_sign_and_offset(speech: Pair):
    clean, noisy = speech
    assert si_sdr(clean + 0.2, 0.1 - noisy) == pytest.approx(si_sdr(clean, noisy), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_every_real_type_is_scored_alike(speech: Pair, dtype: type):
    """The samples are whole numbers, so that no type rounds them."""
    clean, noisy = (np.round(32768 * side) for side in speech)
    found = score(clean.astype(dtype), noisy.astype(dtype))
    assert found == pytest.approx(score(clean, noisy), abs=1e-6)
    assert all(type(value) is float for value in found.values())


def test_estoi_does_not_depend_on_the_global_generator_and_leaves_it_alone(speech: Pair):
    clean, noisy = speech[0].copy(), speech[1].copy()
    clean[RATE : 2 * RATE] = noisy[RATE : 2 * RATE] = 0  # where the dither counts
    values = set()
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        expected = np.random.RandomState(seed).random(4)
        values.add(estoi(clean, noisy))
        with pytest.raises(MetricError):
            estoi(clean[:6200], noisy[:6200])
        assert np.array_equal(np.random.random(4), expected)  # noqa: NPY002
    assert len(values) == 1


def test_signals_are_left_alone_and_earlier_ones_forgotten(speech: Pair):
    clean, noisy = (side.copy() for side in speech)
    first = score(clean, noisy)
    score(noise(2 * RATE), noise(2 * RATE, seed=1))
    assert score(clean, noisy) == first
    assert np.array_equal(clean, speech[0])
    assert np.array_equal(noisy, speech[1])


# What cannot be scored


def test_si_sdr_of_the_clean_signal_itself_is_no_number(speech: Pair):
    clean, _ = speech
    for enhanced in (clean, 0.3 * clean, -1.7 * clean + 0.2):
        with pytest.raises(MetricError, match=r"is infinite.*the clean one, scaled"):
            si_sdr(clean, enhanced)


def test_si_sdr_with_nothing_of_the_clean_signal_is_no_number():
    t = np.arange(RATE) / RATE
    with pytest.raises(MetricError, match="minus infinity: nothing of the clean signal is left"):
        si_sdr(np.sin(2 * np.pi * 440 * t), np.cos(2 * np.pi * 440 * t))


def with_value(signal: Signal, value: float) -> Signal:
    return np.where(np.arange(len(signal)) == 100, value, signal)


A, B = noise(RATE), noise(RATE, seed=1)
BURST = np.pad(noise(800), (8000, 7200))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("clean", "enhanced", "reason"),
    [
        (A, B[:-1], r"lengths differ: clean \(16000,\), enhanced \(15999,\)"),
        (A[None], B[None], "lengths differ"),
        (A[:0], B[:0], "no samples"),
        (A, with_value(B, math.nan), "the enhanced signal has NaN or infinite samples"),
        (with_value(A, -math.inf), B, "the clean signal has NaN or infinite samples"),
        (0 * A, B, "the clean signal is silent or constant"),
        (A, 0 * B, "the enhanced signal is silent or constant"),
        (A, 1e-30 * B, "the enhanced signal is silent or constant"),
        (0 * A + 0.1, B, "the clean signal is silent or constant"),
        (A, 0 * B + 0.1, "the enhanced signal is silent or constant"),
        (A[:1], B[:1], "the clean signal is silent or constant"),
    ],
)
def test_no_metric_scores(name: str, clean: Signal, enhanced: Signal, reason: str):
    with pytest.raises(MetricError, match=reason):
        getattr(metrics, name)(clean, enhanced)


@pytest.mark.parametrize(
    ("clean", "enhanced", "reason"),
    [
        (A[:3999], B[:3999], "too short for PESQ"),
        (A[:2], B[:2], "too short for PESQ"),
        (BURST, B, "PESQ finds no speech"),
        (np.tile(BURST, 30), np.tile(B, 30), "PESQ finds"),
        (np.append(np.tile(BURST, 30), 0), np.append(np.tile(B, 30), 0), "too long for PESQ"),
        (1e33 * A, B, "PESQ fails"),
    ],
)
def test_pesq_does_not_score(clean: Signal, enhanced: Signal, reason: str):
    with pytest.raises(MetricError, match=reason):
        pesq_wb(clean, enhanced)


@pytest.mark.parametrize("metric", [stoi, estoi])
@pytest.mark.parametrize("samples", [2, 300, 409, 410, 6143, 6300])
def test_stoi_does_not_score_a_few_samples(metric: Any, samples: int):
    with pytest.raises(MetricError, match=r"too little speech for STOI \(384 ms\)"):
        metric(A[:samples], B[:samples])


def test_stoi_does_not_score_a_burst():
    with pytest.raises(MetricError, match="too little speech for STOI"):
        stoi(BURST, B)


def test_score_gives_the_reason_in_the_place_of_the_number():
    found = score(BURST, B, ("si_sdr", "pesq_wb"))
    assert list(found) == ["si_sdr", "pesq_wb"]
    assert found == {"si_sdr": si_sdr(BURST, B), "pesq_wb": "PESQ finds no speech"}
    assert tuple(score(A, B)) == METRICS


def test_score_never_gives_nan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(metrics._FUNCTIONS, "stoi", lambda clean, enhanced: math.nan)
    assert score(A, B, ("stoi",)) == {"stoi": "stoi is no number"}


def test_scoring_does_not_import_torch():
    code = "import sys, evaluation.scoring, evaluation.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
