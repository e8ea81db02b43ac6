"""Scores against analytic and reference values, what must not change them, and what has none."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import loizou
import numpy as np
import pandas as pd
import pesq
import pytest
from conftest import ROOT
from golden_signals import pairs, stored
from numpy.typing import NDArray

from bsbimamba.data.audio import read, write
from bsbimamba.metrics.intelligibility import stoi, stoi_pystoi
from bsbimamba.metrics.scores import METRICS, pesq_wb, score
from bsbimamba.metrics.segmental import llr, segsnr, si_sdr, snr, wss
from bsbimamba.metrics.signals import FLOOR_DB, MetricError, levels

RATE = 16000
Signal = NDArray[Any]
Pair = tuple[Signal, Signal]
estoi = METRICS["estoi"].measure


def noise(samples: int, seed: int = 0) -> Signal:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


P232 = Path("voicebank_demand_p232")


def test_p232_scores_as_the_reference_script_scores_it(shared_data: Path):
    """All 393 files, all nine columns: if this moves, no figure compares with published ones."""
    expected = pd.read_csv(shared_data / P232 / "reference_scores.csv", index_col="utterance")
    assert expected.shape == (393, 9)
    folders = [shared_data / P232 / side for side in ("clean", "noisy")]
    measures = [*expected.columns, "stoi_pystoi"]
    found = pd.DataFrame(
        {
            name: score(*(read(folder / f"{name}.flac") for folder in folders), measures)
            for name in expected.index
        }
    ).T
    assert (found[expected.columns] - expected).abs().max().max() < 1e-3
    # pystoi looks for silence one sample later: in one file of eight a frame more or less.
    assert (found["stoi"] - found["stoi_pystoi"]).abs().max() < 0.016
    assert found["pesq_wb"].mean() == pytest.approx(2.166, abs=1e-3)


GOLDEN = pairs()


@pytest.mark.parametrize("name", GOLDEN)
def test_stored_values(name: str):
    """Those of the code that p232 was scored with as above; see `golden_signals`."""
    expected = stored().loc[name].to_dict()
    assert score(*GOLDEN[name], list(expected)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_segmental_measures_equal_their_definitions(name: str):
    clean, enhanced = (side[8000:12000] for side in GOLDEN[name])
    assert segsnr(clean, enhanced) == pytest.approx(loizou.segsnr(clean, enhanced), abs=1e-9)
    # The equations of a low-pass signal are all but singular: 64 bits carry LLR to some 1e-5.
    assert llr(clean, enhanced) == pytest.approx(loizou.llr(clean, enhanced), abs=1e-4)
    for scale in (1, 1 / 32768):
        expected = loizou.wss(clean, enhanced, scale)
        assert wss(clean, enhanced, full_scale=scale) == pytest.approx(expected, abs=1e-9)
    for samples in (600, 719, 720):  # one or two frames
        found, expected = (x(clean[:samples], enhanced[:samples]) for x in (segsnr, loizou.segsnr))
        assert found == pytest.approx(expected, abs=1e-9)


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
    found = score(clean, clean)
    expected = {"pesq_wb": 4.6439, "stoi": 1, "stoi_pystoi": 1, "estoi": 1, "segsnr": 35, "llr": 0}
    expected |= {"wss": 0, "csig": 5, "cbak": 5, "covl": 5}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_scores_do_not_depend_on_the_levels(speech: Pair):
    clean, noisy = speech
    before = score(clean, noisy)
    assert si_sdr(clean + 0.2, 0.1 - noisy) == pytest.approx(before["si_sdr"], abs=1e-6)
    # PESQ computes in 32 bits after setting both levels itself.
    kept = {"stoi": 1e-9, "stoi_pystoi": 1e-9, "estoi": 1e-9, "si_sdr": 1e-6, "llr": 1e-6}
    kept |= {"pesq_wb": 2e-3}
    for gains in ((0.01, 0.01), (1, 0.05), (0.05, 1), (32768, 32768)):
        alike = {"snr": 1e-6, "segsnr": 1e-6} if gains[0] == gains[1] else {}
        after = score(gains[0] * clean, gains[1] * noisy)
        for name, tolerance in (kept | alike).items():
            assert after[name] == pytest.approx(before[name], abs=tolerance)


def test_estoi_does_not_depend_on_the_global_generator_and_leaves_it_alone(speech: Pair):
    clean, noisy = speech[0].copy(), speech[1].copy()
    clean[RATE : 2 * RATE] = noisy[RATE : 2 * RATE] = 0  # where the dither counts
    values = set()
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002
        expected = np.random.RandomState(seed).random(4)
        values.add(estoi(clean, noisy))
        assert np.array_equal(np.random.random(4), expected)  # noqa: NPY002
    assert len(values) == 1


def test_scoring_does_not_import_torch():
    code = "import sys, evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def with_value(signal: Signal, value: float) -> Signal:
    return np.where(np.arange(len(signal)) == 100, value, signal)


A, B = noise(RATE), noise(RATE, seed=1)
BURST = np.pad(noise(800), (8000, 7200))
TILED = np.tile(BURST, 20)
TONE = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
COSINE = np.cos(2 * np.pi * 440 * np.arange(RATE) / RATE)
PARTS = np.arange(RATE) < 7000, np.arange(RATE) > 9000


@pytest.mark.parametrize("measure", [pesq_wb, stoi, estoi, si_sdr, snr, segsnr, llr, wss])
@pytest.mark.parametrize(
    ("clean", "enhanced", "reason"),
    [
        (A, B[:-1], r"lengths differ: clean \(16000,\), enhanced \(15999,\)"),
        (A[:0], B[:0], "no samples"),
        (A, with_value(B, math.nan), "the enhanced signal has NaN or infinite samples"),
        (with_value(A, -math.inf), B, "the clean signal has NaN or infinite samples"),
        (0 * A + 0.1, B, "the clean signal is silent or constant"),
    ],
)
def test_metrics_refuse_unusable_signals(
    measure: Any, clean: Signal, enhanced: Signal, reason: str
):
    with pytest.raises(MetricError, match=reason):
        measure(clean, enhanced)


@pytest.mark.parametrize(
    ("measure", "clean", "enhanced", "reason"),
    [
        (pesq_wb, A[:3999], B[:3999], "too short for PESQ"),
        (pesq_wb, BURST, B, "PESQ finds no speech"),
        (pesq_wb, np.append(TILED, 0), np.append(TILED, 0), "too long for PESQ"),
        (pesq_wb, 1e33 * A, B, "PESQ fails"),
        *((stoi, A[:n], B[:n], r"too little speech for STOI \(384 ms\)") for n in (2, 300, 6143)),
        *((x, BURST, B, "too little speech for STOI") for x in (stoi, stoi_pystoi, estoi)),
        *((x, A[:599], B[:599], "too short for frames") for x in (segsnr, llr, wss)),
        (llr, A * PARTS[0], B * PARTS[1], "no frame has an LLR"),
        (snr, A, A, "SNR is infinite: the enhanced signal is the clean one"),
        (si_sdr, A, 0.2 - 1.7 * A, "SI-SDR is infinite"),
        (si_sdr, TONE, COSINE, "minus infinity: nothing of the clean signal is left"),
    ],
)
def test_metric_error_gives_the_reason(measure: Any, clean: Signal, enhanced: Signal, reason: str):
    with pytest.raises(MetricError, match=reason):
        measure(clean, enhanced)


@pytest.mark.parametrize("on", [0.18, 0.2, 0.22])
@pytest.mark.parametrize("off", [0.18, 0.2, 0.22])
def test_pesq_of_the_most_stretches_of_speech_in_20_seconds(on: float, off: float):
    """The most stretches of speech that 20 s can have; more would end the process, or be wrong."""
    t = np.arange(20 * RATE) / RATE
    clean = np.where(t % (on + off) < on, noise(len(t)), 0)
    assert 1 < pesq_wb(clean, clean + 0.01 * noise(len(t), seed=1)) < 4.6


def test_pesq_of_a_long_file_is_the_mean_over_its_parts_with_speech(speech: Pair):
    parts = [np.resize(side, (3, 218_667)) for side in speech]
    parts[0][1] = 0
    found = score(*(x.ravel()[:-1] for x in parts), ["pesq_wb", "csig", "pesq_parts"])
    one, other = (pesq.pesq(RATE, *(x[n][: 218_667 - n // 2] for x in parts), "wb") for n in (0, 2))
    assert found["pesq_parts"] == pytest.approx([one, math.nan, other], nan_ok=True, abs=1e-9)
    assert found["pesq_wb"] == pytest.approx((one + other) / 2, abs=1e-9)
    assert found["csig"] > 1
    parts[1][0] = 0  # what a system has muted is not left out
    assert score(*map(np.ravel, parts))["pesq_wb"] == "the enhanced signal is silent or constant"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of how librosa reads files
@pytest.mark.parametrize(("seconds", "gain"), [(3.196, 1), (9.01, 20), (12.02, 1)])
def test_dnsmos_equals_the_packages(speech: Pair, seconds: float, gain: float, tmp_path: Path):
    """In a file, the package takes samples beyond ±1."""
    package = pytest.importorskip("speechmos.dnsmos")
    enhanced = np.resize(gain * speech[1], int(seconds * RATE))
    write(tmp_path / "x.wav", enhanced, "FLOAT")
    expected = package.run(str(tmp_path / "x.wav"), RATE)
    for kind in ("sig", "bak", "ovrl"):
        (found,) = score(A[:0], enhanced, [f"dnsmos_{kind}"]).values()
        assert found == pytest.approx(expected[f"{kind}_mos"], abs=1e-6)
    (reason,) = score(A, 0 * A, ["dnsmos_sig"]).values()
    assert reason == "the enhanced signal is silent or constant"


def test_without_speechmos_a_note_says_how_to_get_dnsmos():
    code = (
        "import sys; sys.modules['speechmos'] = None; from bsbimamba.report.tables import *;"
        "from bsbimamba.report.tables import _NOTES; print(len(MAIN), _NOTES[-1])"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert printed == "8 DNSMOS is not installed: pip install 'bs-bimamba[dnsmos]'.\n"


def test_score_gives_the_reason_instead_of_a_number():
    found = score(BURST, B, ("si_sdr", "csig", "pesq_wb"))
    reason = "PESQ finds no speech"  # also of what is made of PESQ
    assert list(found.items()) == [
        ("si_sdr", si_sdr(BURST, B)), ("csig", reason), ("pesq_wb", reason),
    ]  # fmt: skip
    assert score(A, B).keys() == METRICS.keys()


def test_levels_of_a_tone_are_in_its_bin_on_a_common_scale():
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / RATE)
    found = levels({"loud": tone, "soft": 0.01 * tone, "silent": 0 * tone})
    assert found["loud"].shape == (257, 1 + 8000 // 128)
    assert found["loud"].max() == pytest.approx(0, abs=1e-6)
    middle = found["loud"][:, 20:40]
    assert (middle.argmax(axis=0) == 32).all()  # of 31.25 Hz
    assert (middle.max(axis=0) - found["soft"][:, 20:40].max(axis=0)) == pytest.approx(40, abs=1e-6)
    assert found["silent"] == pytest.approx(FLOOR_DB, abs=1e-6)
