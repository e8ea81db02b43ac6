"""The loss terms: zero at equality, right elsewhere, finite at silence, which they do not count."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bsbimamba.network.stft import HOP, istft, stft
from bsbimamba.training.config import Loss
from bsbimamba.training.losses import TERMS, Active, Recordings, loss_terms

SQUARED = Loss(*[1.0] * len(TERMS), phase_power=0.0)
# Every term, in each of the ways in which it is computed.
CASES = [
    *((name, SQUARED) for name in TERMS),
    *((name, replace(SQUARED, absolute=True)) for name in ("complex", "magnitude", "consistency")),
    ("complex", replace(SQUARED, complex_power=1.0)),
    ("complex", replace(SQUARED, complex_power=1.0, absolute=True)),
    ("phase", replace(SQUARED, phase_power=0.3)),
]
WAYS = pytest.mark.parametrize(
    ("name", "how"),
    CASES,
    ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)],
)


def term(name: str, how: Loss, enhanced: Recordings, clean: Recordings) -> Tensor:
    """One term, over the frames in which the clean recording is active."""
    return TERMS[name](enhanced, clean, Active.of(clean.waveform), how)


def recordings(waveform: Tensor) -> Recordings:
    return Recordings(waveform, stft(waveform))


def inconsistent(waveform: Tensor) -> Recordings:
    """Of which no term is 0, consistency included."""
    return Recordings(waveform, 1.5 * stft(waveform))


def speechlike(seed: int, dtype: torch.dtype = torch.float32, length: int = 4000) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, length, generator=rng, dtype=dtype)
    return noise * (1.2 + torch.sin(torch.arange(length) / 300))


@WAYS
def test_terms_are_zero_where_recordings_agree_and_above_elsewhere(name: str, how: Loss) -> None:
    clean = recordings(speechlike(0))
    assert term(name, how, clean, clean) < 1e-6
    other = recordings(speechlike(1))
    if name == "consistency":
        other = Recordings(other.waveform, 3 * other.spectrum)
    assert term(name, how, other, clean) > 0.1


# Silence


@pytest.mark.parametrize("length", [32000, 31950])
@WAYS
def test_appended_silence_does_not_change_terms(name: str, how: Loss, length: int) -> None:
    enhanced, clean = (speechlike(seed, length=length) for seed in (11, 12))
    longer = [F.pad(x, (0, 16000)) for x in (enhanced, clean)]
    short = float(term(name, how, inconsistent(enhanced), recordings(clean)))
    long = float(term(name, how, inconsistent(longer[0]), recordings(longer[1])))
    exact = name == "time" and length % HOP == 0  # hops are counted
    assert long == pytest.approx(short, rel=1e-6 if exact else 0.01)


@WAYS
def test_crops_count_alike_whatever_share_of_them_is_active(name: str, how: Loss) -> None:
    whole = [speechlike(seed, length=32000)[:1] for seed in (13, 14)]
    half = [0.1 * x[..., :16000] for x in whole]  # quieter, as the two must differ
    half[0] = half[0] + half[1]
    both = [torch.cat([a, F.pad(b, (0, 16000))]) for a, b in zip(whole, half, strict=True)]
    first, second, together = (
        float(term(name, how, inconsistent(enhanced), recordings(clean)))
        for enhanced, clean in (whole, half, both)
    )
    assert together == pytest.approx((first + second) / 2, rel=0.01)
    assert first != pytest.approx(second, rel=0.1)


def test_frames_and_samples_are_active_where_a_hop_is_not_silent() -> None:
    clean = torch.zeros(4, 1000)  # 7.8 hops
    clean[0, 2 * HOP + 5] = 0.1  # in hop 2, which the frames 1 to 4 see
    clean[1, -1] = 0.1  # in the last hop, of 104 samples
    noisy = torch.zeros(4, 1000)
    noisy[2, :3] = 0.1
    noisy[3] = 0.9e-5  # below -100 dB
    active = Active.of(clean, noisy)
    assert active.frames.tolist() == [
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert active.samples.sum(1).tolist() == [HOP, 104, HOP, 0]
    assert active.samples[0, 2 * HOP : 3 * HOP].all()


def silent_cases() -> dict[str, tuple[Tensor, Tensor]]:
    speech, zero = speechlike(2), torch.zeros(2, 4000)
    half = speech.clone()
    half[:, 2000:] = 0
    one = speech.clone()
    one[0] = 0
    return {
        "both silent": (zero, zero),
        "clean silent": (speech, zero),
        "enhanced silent": (zero, speech),
        "half of each": (half, half),
        "half of the clean": (speech, half),
        "half of the enhanced": (half, speech),
        "one item of the batch": (one, one.clone()),
    }


@pytest.mark.parametrize("case", silent_cases())
@WAYS
def test_gradients_at_silence_are_finite(name: str, how: Loss, case: str) -> None:
    """In crops without any active frame, too, and where the two recordings are equal."""
    enhanced, clean = silent_cases()[case]
    enhanced = enhanced.clone().requires_grad_()
    # As in a network: the spectrum first, the waveform from it.
    spectrum = stft(enhanced)
    value = term(name, how, Recordings(istft(spectrum, 4000), spectrum), recordings(clean))
    assert value.isfinite()
    value.backward()
    assert enhanced.grad is not None
    assert enhanced.grad.isfinite().all()


# Values


def phase_reference(enhanced: NDArray, clean: NDArray, power: float) -> float:
    """Ai and Ling's equations 7 to 9 of a crop's spectra (f, t), bin by bin: no conjugates."""
    phases = np.angle(enhanced) - np.angle(clean)
    counted = (np.abs(enhanced) ** 2 >= 1e-8) & (np.abs(clean) ** 2 >= 1e-8)
    weight = counted * (np.abs(clean) ** 2 + 1e-9) ** (power / 2)
    total = 0.0
    for difference, by in (
        (phases, weight),
        (phases[1:] - phases[:-1], np.sqrt(weight[1:] * weight[:-1])),
        (phases[:, 1:] - phases[:, :-1], np.sqrt(weight[:, 1:] * weight[:, :-1])),
    ):
        wrapped = np.abs(np.angle(np.exp(1j * difference)))
        total += float((by * wrapped).sum() / by.sum())
    return total


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_phase_loss_against_its_definition(power: float) -> None:
    a, b = (speechlike(seed, torch.float64) for seed in (3, 4))
    b[1, 2000:] = 0  # frames beyond have no phase: they are silent, and do not count
    spectra = [stft(x) for x in (a, b)]
    expected = [
        phase_reference(x, y, power)
        for x, y in zip(*(spectrum.numpy() for spectrum in spectra), strict=True)
    ]
    how = replace(SQUARED, phase_power=power)
    got = term("phase", how, Recordings(a, spectra[0]), Recordings(b, spectra[1]))
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-6)


def test_phase_loss_does_not_see_loudness_and_is_largest_for_opposites() -> None:
    a, b = recordings(speechlike(5)), recordings(speechlike(6))
    louder = Recordings(a.waveform, 7 * a.spectrum)
    torch.testing.assert_close(term("phase", SQUARED, louder, b), term("phase", SQUARED, a, b))
    opposite = Recordings(-a.waveform, -a.spectrum)
    # Half a turn everywhere; its differences between neighbours are none.
    assert float(term("phase", SQUARED, opposite, a)) == pytest.approx(math.pi, rel=1e-4)


@WAYS
def test_gradients_against_finite_differences(name: str, how: Loss) -> None:
    clean = recordings(speechlike(7, torch.float64)[:1, :600])
    start = stft(speechlike(8, torch.float64)[:1, :600])

    def loss(spectrum: Tensor) -> Tensor:
        return term(name, how, Recordings(istft(spectrum, 600), spectrum), clean)

    assert torch.autograd.gradcheck(loss, start.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("time", {}, 0.5),
        ("magnitude", {}, (2**0.3 - 1) ** 2),
        ("magnitude", {"absolute": True}, 2**0.3 - 1),
        ("complex", {}, 2**0.6 + 1),
        ("complex", {"absolute": True}, math.sqrt(2**0.6 + 1)),
        ("complex", {"complex_power": 1.0}, 5),
        ("complex", {"complex_power": 1.0, "absolute": True}, math.sqrt(5)),
    ],
)
def test_values_of_simple_cases(name: str, changes: dict, expected: float) -> None:
    """The second frame and three samples are not active: whatever is there, it does not count."""
    clean = Recordings(torch.zeros(1, 13), torch.tensor([1 + 0j, 1000]).expand(1, 3, 2))
    enhanced = Recordings(torch.tensor([[0.5] * 10 + [9.0] * 3]), torch.full((1, 3, 2), 2j))
    active = Active(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0] * 10 + [0.0] * 3]))
    got = TERMS[name](enhanced, clean, active, replace(SQUARED, **changes))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_terms_of_weight_zero_are_not_computed_and_autocast_is_off() -> None:
    clean, enhanced = recordings(speechlike(9)), recordings(speechlike(10))
    how = replace(SQUARED, phase=0.0, metric=0.05)
    active = Active.of(clean.waveform)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss_terms(enhanced, clean, active, how)
    assert list(terms) == ["complex", "magnitude", "time", "consistency"]
    for name, value in terms.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, TERMS[name](enhanced, clean, active, how))
