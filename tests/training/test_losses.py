"""The loss terms: right by their definitions, blind to silence, with finite gradients."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bsbimamba.network.stft import HOP, istft, stft
from bsbimamba.training.config import Loss
from bsbimamba.training.losses import TERMS, Active, losses

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
    ("name", "how"), CASES, ids=[f"{name}{i}" for i, (name, _) in enumerate(CASES)]
)


class Recordings(NamedTuple):
    """Waveforms (b, s) and what a network says is their spectrum (b, f, t)."""

    waveform: Tensor
    spectrum: Tensor


def term(
    name: str, how: Loss, enhanced: Recordings, clean: Recordings, active: Active | None = None
) -> Tensor:
    """Compute one term, over the frames in which the clean recording is active."""
    weights = dict.fromkeys(TERMS, 0.0) | {"time": 1e-30, name: 1.0}  # one must be above 0
    active = active or Active.of(clean.waveform[None])
    again = stft(enhanced.waveform)
    total, terms = losses(*enhanced, again, *clean, active, replace(how, **weights))
    torch.testing.assert_close(total, terms[name])
    return total


def recordings(waveform: Tensor, gain: float = 1.0) -> Recordings:
    """Return a waveform with its spectrum; with a gain on that, no term is 0."""
    return Recordings(waveform, gain * stft(waveform))


def speechlike(seed: int, dtype: torch.dtype = torch.float32, length: int = 4000) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, length, generator=rng, dtype=dtype)
    return noise * (1.2 + torch.sin(torch.arange(length) / 300))


# Values


def magnitude(spectrum: NDArray, power: float) -> NDArray:
    return (np.abs(spectrum) ** 2 + 1e-9) ** (power / 2)


def compress(spectrum: NDArray, power: float) -> NDArray:
    return spectrum * magnitude(spectrum, power - 1)


def phase_distance(x: NDArray, y: NDArray, active: NDArray, power: float) -> float:
    """Ai and Ling's equations 7 to 9 of a crop's spectra (f, t), bin by bin: no conjugates."""
    phases = np.angle(x) - np.angle(y)
    counted = (np.abs(x) ** 2 >= 1e-8) & (np.abs(y) ** 2 >= 1e-8) & active
    weight = counted * magnitude(y, power)
    total = 0.0
    for difference, by in (
        (phases, weight),
        (phases[1:] - phases[:-1], np.sqrt(weight[1:] * weight[:-1])),
        (phases[:, 1:] - phases[:, :-1], np.sqrt(weight[:, 1:] * weight[:, :-1])),
    ):
        total += float((by * np.abs(np.angle(np.exp(1j * difference)))).sum() / by.sum())
    return total


def active_parts(*waveforms: NDArray) -> tuple[NDArray, NDArray]:
    """Which frames and samples count, of 128 samples of one of the waveforms above -100 dB."""
    length = len(waveforms[0])
    hops = np.array([
        max((x[start : start + HOP] ** 2).sum() for x in waveforms) / HOP >= 1e-10
        for start in range(0, length, HOP)
    ])  # fmt: skip
    frames = [hops[max(0, t - 2) : t + 2].any() for t in range(length // HOP + 1)]
    return np.array(frames), np.repeat(hops, HOP)[:length]


def by_definition(
    name: str, how: Loss, enhanced: Recordings, clean: Recordings, noisy: Tensor
) -> float:
    """Compute a term crop by crop, in float64."""
    values = []
    sides = (enhanced.spectrum, clean.spectrum, stft(enhanced.waveform), enhanced.waveform,
             clean.waveform, noisy)  # fmt: skip
    for x, y, again, a, b, n in zip(*(side.numpy() for side in sides), strict=True):
        frames, samples = active_parts(b, n)
        if name == "time":
            values.append(np.abs(a - b)[samples].mean())
        elif name == "phase":
            values.append(phase_distance(x, y, frames, how.phase_power))
        else:
            difference = {
                "complex": compress(x, how.complex_power) - compress(y, how.complex_power),
                "magnitude": magnitude(x, 0.3) - magnitude(y, 0.3),
                "consistency": compress(x, 0.3) - compress(again, 0.3),
            }[name][:, frames]
            values.append((np.abs(difference) ** (1 if how.absolute else 2)).mean())
    return float(np.mean(values))


@WAYS
def test_terms_against_their_definitions(name: str, how: Loss) -> None:
    """Crops count alike, whatever share of them is active, and what is not active does not."""
    a, b = (speechlike(seed, torch.float64) for seed in (3, 4))
    b[1] *= 0.1
    b[1, 2000:] = 0.9e-5  # below -100 dB
    noisy = b.clone()
    noisy[1, 3000] = 0.01
    enhanced, clean = recordings(a, 1.5), recordings(b)
    expected = by_definition(name, how, enhanced, clean, noisy)
    got = term(name, how, enhanced, clean, Active.of(torch.stack([b, noisy])))
    assert float(got) == pytest.approx(expected, rel=1e-5)
    assert term(name, how, recordings(b.float()), recordings(b.float())) < 1e-6


@WAYS
def test_gradients_are_those_of_the_terms(name: str, how: Loss) -> None:
    """As finite differences have them, in float64."""
    a, b = (speechlike(seed, torch.float64, 900) for seed in (3, 4))
    b[1, 500:] = 0
    how = replace(how, **dict.fromkeys(TERMS, 0.1) | {name: 1.0})
    active = Active.of(b[None])

    def loss(*enhanced: Tensor) -> Tensor:
        return losses(*enhanced, b, stft(b), active, how)[0]

    inputs = [x.requires_grad_() for x in (a, 1.5 * stft(a), 0.8 * stft(a))]
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True, check_undefined_grad=False)


def test_terms_of_weight_zero_are_left_out_and_autocast_is_off() -> None:
    a, b = speechlike(9), speechlike(10)
    how = replace(SQUARED, phase=0.0, metric=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, terms = losses(a, stft(a), stft(a), b, stft(b), Active.of(b[None]), how)
    assert list(terms) == ["complex", "magnitude", "time", "consistency"]
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, sum(terms.values()))


# Silence


@WAYS
def test_appended_silence_does_not_change_terms(name: str, how: Loss) -> None:
    enhanced, clean = (speechlike(seed, length=32000) for seed in (11, 12))
    short = float(term(name, how, recordings(enhanced, 1.5), recordings(clean)))
    enhanced, clean = (F.pad(x, (0, 16000)) for x in (enhanced, clean))
    long = float(term(name, how, recordings(enhanced, 1.5), recordings(clean)))
    assert long == pytest.approx(short, rel=1e-6 if name == "time" else 0.01)  # one frame more


SILENT = {"none": np.s_[:0], "half": np.s_[:, 2000:], "one": np.s_[:1], "both": np.s_[:]}


@pytest.mark.parametrize("enhanced", SILENT)
@pytest.mark.parametrize("clean", SILENT)
@WAYS
def test_gradients_at_silence_are_finite(name: str, how: Loss, enhanced: str, clean: str) -> None:
    """In crops without any active frame, too, and where the two recordings are equal."""
    output, target = speechlike(2), speechlike(2)
    output[SILENT[enhanced]] = 0
    target[SILENT[clean]] = 0
    output.requires_grad_()
    spectrum = stft(output)  # as in a network: the waveform is made from the spectrum
    value = term(name, how, Recordings(istft(spectrum, 4000), spectrum), recordings(target))
    value.backward()
    assert value.isfinite()
    assert output.grad.isfinite().all()
