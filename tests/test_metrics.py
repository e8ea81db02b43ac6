"""Scores against analytic values, reference values, and what must not change them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import loizou
import numpy as np
import pytest
from conftest import ROOT
from golden_signals import STORED, pairs
from numpy.typing import NDArray

from data.workers import usable_cores
from evaluation import composite
from evaluation.metrics import (
    METRICS,
    MetricError,
    estoi,
    llr,
    pesq_wb,
    score,
    segsnr,
    si_sdr,
    stoi,
    stoi_pystoi,
    wss,
)
from evaluation.scoring import Task, score_files

RATE = 16000
Signal = NDArray[Any]
Pair = tuple[Signal, Signal]


def noise(samples: int, seed: int = 0) -> Signal:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


# Reference values

P232 = Path("voicebank_demand_p232")


def test_p232_scores_as_the_reference_script_scores_it(shared_data: Path):
    """All 393 files, all nine columns: if this moves, no figure compares with published ones."""
    with (shared_data / P232 / "reference_scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    columns = lines[0].keys() - {"utterance"}
    assert len(lines) == 393
    assert len(columns) == 9
    folders = [shared_data / P232 / side for side in ("clean", "noisy")]
    names = [line["utterance"] for line in lines]
    tasks = [
        Task("noisy", name, *(folder / f"{name}.flac" for folder in folders)) for name in names
    ]
    rows = score_files(tasks, usable_cores())
    for row, line in zip(rows, lines, strict=True):
        expected = {column: float(line[column]) for column in columns}
        found = {column: row.scores[column] for column in columns}
        assert found == pytest.approx(expected, abs=1e-3), row.utterance
        # pystoi looks for silence one sample later: in one file of eight a frame more or less.
        assert abs(row.scores["stoi"] - row.scores["stoi_pystoi"]) < 0.016
    assert np.mean([row.scores["pesq_wb"] for row in rows]) == pytest.approx(2.166, abs=1e-3)


GOLDEN = pairs()


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_values(name: str):
    """Those of the code that p232 was scored with as above; see `golden_signals`."""
    stored = json.loads(STORED.read_text())[name]
    assert stored.keys() == METRICS.keys()
    assert score(*GOLDEN[name]) == pytest.approx(stored, abs=1e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_segmental_measures_are_those_of_the_books(name: str):
    clean, enhanced = (side[8000:12000] for side in GOLDEN[name])
    assert segsnr(clean, enhanced) == pytest.approx(loizou.segsnr(clean, enhanced), abs=1e-9)
    # The equations of a low-pass signal are all but singular: 64 bits carry LLR to some 1e-5.
    assert llr(clean, enhanced) == pytest.approx(loizou.llr(clean, enhanced), abs=1e-4)
    for scale in (1, 1 / 32768):
        expected = loizou.wss(clean, enhanced, scale)
        assert wss(clean, enhanced, full_scale=scale) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("samples", [600, 719, 720, 1000])
def test_segmental_measures_of_one_or_a_few_frames(samples: int):
    clean, enhanced = noise(samples), noise(samples, seed=1)
    assert len(loizou.frames(clean)) == (samples - 480) // 120
    assert segsnr(clean, enhanced) == pytest.approx(loizou.segsnr(clean, enhanced), abs=1e-9)
    assert llr(clean, enhanced) == pytest.approx(loizou.llr(clean, enhanced), abs=1e-6)


def test_composites_are_limited_to_their_scale():
    assert composite.csig(4.64, 0, 0) == composite.covl(4.64, 0, 0) == 5
    assert (
        composite.csig(1, 3, 100) == composite.cbak(1, 100, -10) == composite.covl(1, 3, 100) == 1
    )
    # Hu and Loizou 2008, table V.
    assert composite.csig(2, 0.5, 30) == pytest.approx(3.093 + 1.206 - 0.5145 - 0.27)
    assert composite.cbak(2, 30, 5) == pytest.approx(1.634 + 0.956 - 0.21 + 0.315)
    assert composite.covl(2, 0.5, 30) == pytest.approx(1.594 + 1.61 - 0.256 - 0.21)


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
    for metric in (stoi, stoi_pystoi, estoi):
        assert metric(clean, clean) == pytest.approx(1, abs=1e-9)
    assert segsnr(clean, clean) == 35
    assert llr(clean, clean) == wss(clean, clean) == 0
    found = score(clean, clean)
    assert found["csig"] == found["covl"] == 5
    assert found["cbak"] == 5


# What must not change a score


def test_scores_do_not_depend_on_the_levels(speech: Pair):
    clean, noisy = speech
    before = score(clean, noisy)
    for gains in ((0.01, 0.01), (1, 0.05), (0.05, 1), (32768, 32768)):
        after = score(gains[0] * clean, gains[1] * noisy)
        for name in ("stoi", "stoi_pystoi", "estoi"):
            assert after[name] == pytest.approx(before[name], abs=1e-9)
        for name in ("si_sdr", "llr"):
            assert after[name] == pytest.approx(before[name], abs=1e-6)
        if gains[0] == gains[1]:
            for name in ("snr", "segsnr"):
                assert after[name] == pytest.approx(before[name], abs=1e-6)
        # PESQ computes in 32 bits after setting both levels itself.
        assert after["pesq_wb"] == pytest.approx(before["pesq_wb"], abs=2e-3)


def test_si_sdr_does_not_depend_on_sign_and_offset(speech: Pair):
    clean, noisy = speech
    assert si_sdr(clean + 0.2, 0.1 - noisy) == pytest.approx(si_sdr(clean, noisy), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_every_real_type_is_scored_alike(speech: Pair, dtype: type):
    """The samples are whole numbers of 16 bits, so that no type rounds them."""
    scale = 32768 if dtype is np.int16 else 1
    clean, noisy = ((scale * side).astype(dtype) for side in speech)
    found = score(clean, noisy)
    assert found == pytest.approx(score(*speech), abs=1e-6)
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


def test_scoring_does_not_import_torch():
    code = "import sys, evaluation.scoring, evaluation.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
