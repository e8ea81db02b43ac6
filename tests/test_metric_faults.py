"""What has no score: every reason, and that it costs no other score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from test_metrics import RATE, Pair, Signal, noise

from evaluation import metrics
from evaluation.metrics import (
    METRICS,
    MetricError,
    estoi,
    llr,
    pesq_wb,
    score,
    segsnr,
    si_sdr,
    snr,
    stoi,
    stoi_pystoi,
    wss,
)


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


MEASURES = ("pesq_wb", "stoi", "stoi_pystoi", "estoi", "si_sdr", "snr", "segsnr", "llr", "wss")


@pytest.mark.parametrize("name", MEASURES)
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
        (np.tile(BURST, 20), np.tile(B, 20), "PESQ finds"),
        (np.append(np.tile(BURST, 20), 0), np.append(np.tile(B, 20), 0), "too long for PESQ"),
        (1e33 * A, B, "PESQ fails"),
    ],
)
def test_pesq_does_not_score(clean: Signal, enhanced: Signal, reason: str):
    with pytest.raises(MetricError, match=reason):
        pesq_wb(clean, enhanced)


@pytest.mark.parametrize("on", [0.18, 0.2, 0.22])
@pytest.mark.parametrize("off", [0.18, 0.2, 0.22])
def test_no_signal_that_pesq_takes_has_more_speech_than_it_has_room_for(on: float, off: float):
    """The most stretches of speech that 20 s can have; more would end the process, or be wrong."""
    t = np.arange(20 * RATE) / RATE
    clean = np.where(t % (on + off) < on, noise(len(t)), 0)
    assert 1 < pesq_wb(clean, clean + 0.01 * noise(len(t), seed=1)) < 4.6


@pytest.mark.parametrize("metric", [stoi, stoi_pystoi, estoi])
@pytest.mark.parametrize("samples", [2, 300, 409, 410, 6143, 6300])
def test_stoi_does_not_score_a_few_samples(metric: Any, samples: int):
    with pytest.raises(MetricError, match=r"too little speech for STOI \(384 ms\)"):
        metric(A[:samples], B[:samples])


@pytest.mark.parametrize("metric", [stoi, stoi_pystoi, estoi])
def test_stoi_does_not_score_a_burst(metric: Any):
    with pytest.raises(MetricError, match="too little speech for STOI"):
        metric(BURST, B)


@pytest.mark.parametrize("metric", [segsnr, llr, wss])
def test_segmental_measures_do_not_score_less_than_a_frame(metric: Any):
    with pytest.raises(MetricError, match=r"too short for frames \(37.5 ms\)"):
        metric(A[:599], B[:599])


def test_llr_needs_a_frame_in_which_both_signals_are():
    first, second = np.arange(16000) < 7000, np.arange(16000) > 9000
    with pytest.raises(MetricError, match="no frame has an LLR"):
        llr(A * first, B * second)


def test_what_a_score_is_made_of_tells_why_there_is_none():
    found = score(BURST, B, ("csig", "cbak", "covl_float", "llr"))
    assert isinstance(found.pop("llr"), float)
    assert set(found.values()) == {"PESQ finds no speech"}


def test_snr_of_the_clean_signal_itself_is_no_number(speech: Pair):
    clean, _ = speech
    with pytest.raises(MetricError, match="SNR is infinite: the enhanced signal is the clean one"):
        snr(clean, clean)
    assert snr(clean, 1.1 * clean) == pytest.approx(20, abs=1e-9)


def test_clean_silence_but_for_a_click_at_the_end_is_too_little_speech(speech: Pair):
    clean = np.zeros(16179)
    clean[-40] = 0.9
    found = score(clean, speech[1][:16179])
    assert found["stoi"] == "too little speech for STOI (384 ms)"
    assert isinstance(found["si_sdr"], float)


def test_digital_silence_in_an_enhanced_file_has_its_stoi(speech: Pair):
    """A gate, or a gap: left out, the mean of such a system would rise."""
    clean, noisy = speech
    gap = noisy.copy()
    gap[RATE : 2 * RATE] = 0
    assert stoi(clean, gap) == pytest.approx(stoi_pystoi(clean, gap), abs=0.02)
    assert 0.1 < stoi(clean, gap) < stoi(clean, noisy)


@pytest.mark.parametrize("name", ["stoi", "stoi_pystoi", "estoi", "segsnr", "llr", "wss"])
def test_what_would_take_gigabytes_is_not_tried(name: str):
    long = np.tile(A, 301)
    with pytest.raises(MetricError, match=r"too long for (STOI|frames) \(300 s\)"):
        getattr(metrics, name)(long, long[::-1])


def test_a_fault_in_one_metric_costs_no_other(monkeypatch: pytest.MonkeyPatch):
    def fail(utterance: object) -> float:
        raise ValueError("window shape")

    monkeypatch.setitem(metrics._SCORES, "stoi", fail)
    found = score(A, B, ("stoi", "snr"))
    assert found["stoi"] == "stoi fails (ValueError: window shape)"
    assert isinstance(found["snr"], float)


def test_score_gives_the_reason_in_the_place_of_the_number():
    found = score(BURST, B, ("si_sdr", "pesq_wb"))
    assert list(found) == ["si_sdr", "pesq_wb"]
    assert found == {"si_sdr": si_sdr(BURST, B), "pesq_wb": "PESQ finds no speech"}
    assert score(A, B).keys() == METRICS.keys()


def test_score_never_gives_nan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(metrics._SCORES, "stoi", lambda utterance: math.nan)
    assert score(A, B, ("stoi",)) == {"stoi": "stoi is no number"}
