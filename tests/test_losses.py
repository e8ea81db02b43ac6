"""The loss terms: zero at equality, right elsewhere, finite at silence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bandsplit.stft import istft, stft
from training.losses import TERMS, Recordings, loss_terms

ALL = dict.fromkeys(TERMS, 1.0)


def recordings(waveform: Tensor) -> Recordings:
    return Recordings(waveform, stft(waveform))


def speechlike(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 4000, generator=rng, dtype=dtype)
    return noise * (1.2 + torch.sin(torch.arange(4000) / 300))


@pytest.mark.parametrize("name", TERMS)
def test_zero_where_they_agree_and_more_elsewhere(name: str) -> None:
    clean = recordings(speechlike(0))
    assert TERMS[name](clean, clean) < 1e-6
    other = recordings(speechlike(1))
    if name == "consistency":
        other = Recordings(other.waveform, 3 * other.spectrum)
    assert TERMS[name](other, clean) > 0.1


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
@pytest.mark.parametrize("name", TERMS)
def test_gradients_at_silence_are_finite(name: str, case: str) -> None:
    enhanced, clean = silent_cases()[case]
    enhanced = enhanced.clone().requires_grad_()
    # As in a network: the spectrum first, the waveform from it.
    spectrum = stft(enhanced)
    term = TERMS[name](Recordings(istft(spectrum, 4000), spectrum), recordings(clean))
    assert term.isfinite()
    term.backward()
    assert enhanced.grad is not None
    assert enhanced.grad.isfinite().all()


def test_phase_loss_against_its_definition() -> None:
    """Phases by numpy, differences by loops of slices: no product with the conjugate."""
    a, b = (stft(speechlike(seed, torch.float64)) for seed in (3, 4))
    phases = [np.angle(x.numpy()) for x in (a, b)]

    def distance(difference: np.ndarray) -> float:
        return float(np.abs(difference - 2 * np.pi * np.round(difference / (2 * np.pi))).mean())

    expected = distance(phases[0] - phases[1])
    for axis in (1, 2):
        expected += distance(np.diff(phases[0], axis=axis) - np.diff(phases[1], axis=axis))
    got = TERMS["phase"](Recordings(a, a), Recordings(b, b))
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_phase_loss_does_not_see_loudness_and_is_largest_for_opposites() -> None:
    a, b = recordings(speechlike(5)), recordings(speechlike(6))
    louder = Recordings(a.waveform, 7 * a.spectrum)
    torch.testing.assert_close(TERMS["phase"](louder, b), TERMS["phase"](a, b))
    opposite = Recordings(-a.waveform, -a.spectrum)
    # Half a turn everywhere; its differences between neighbours are none.
    assert float(TERMS["phase"](opposite, a)) == pytest.approx(math.pi, rel=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_gradients_against_finite_differences(name: str) -> None:
    clean = recordings(speechlike(7, torch.float64)[:1, :600])
    start = stft(speechlike(8, torch.float64)[:1, :600])

    def loss(spectrum: Tensor) -> Tensor:
        return TERMS[name](Recordings(istft(spectrum, 600), spectrum), clean)

    assert torch.autograd.gradcheck(loss, start.requires_grad_(), fast_mode=True)


def test_values_of_simple_cases() -> None:
    clean = Recordings(torch.zeros(1, 10), torch.full((1, 3, 2), 1 + 0j))
    enhanced = Recordings(torch.full((1, 10), 0.5), torch.full((1, 3, 2), 2j))
    assert float(TERMS["time"](enhanced, clean)) == 0.5
    magnitude = (2**0.3 - 1) ** 2
    assert float(TERMS["magnitude"](enhanced, clean)) == pytest.approx(magnitude, rel=1e-5)
    assert float(TERMS["complex"](enhanced, clean)) == pytest.approx(2**0.6 + 1, rel=1e-5)


def test_terms_of_weight_zero_are_not_computed_and_autocast_is_off() -> None:
    clean, enhanced = recordings(speechlike(9)), recordings(speechlike(10))
    weights = {**ALL, "phase": 0.0, "metric": 0.05}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss_terms(enhanced, clean, weights)
    assert list(terms) == ["complex", "magnitude", "time", "consistency"]
    for name, term in terms.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, TERMS[name](enhanced, clean))
