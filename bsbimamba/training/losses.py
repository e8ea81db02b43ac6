"""The terms of the generator's loss, each a function of the same recordings, by name.

Every term is a mean over the active frames of a crop, and then over crops, so that silence that is
appended to a crop changes nothing. All are computed in fp32 with autocast off, are zero where
enhanced and clean agree, and have finite gradients at silence. Source: MP-SENet (Lu, Ai and Ling,
Interspeech 2023, section 2.3) and CMGAN (Abdulatif, Cao and Yang, IEEE TASLP 2024, section III);
magnitudes are compressed by the power 0.3. The metric term is the discriminator's
(`training.discriminator`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.network.net import RMS_FLOOR
from bsbimamba.network.stft import COMPRESSION, HOP, N_FFT, compressed, compressed_magnitude, stft
from bsbimamba.training.config import Loss

# Below this power a bin's phase is noise: its gradient, 1 / |S|, would be all there is.
_PHASE_FLOOR = 1e-8


@dataclass(frozen=True)
class Recordings:
    """Waveforms (b, s) and complex spectra (b, f, t). What several terms need is computed once."""

    waveform: Tensor
    spectrum: Tensor

    @cached_property
    def compressed(self) -> Tensor:
        """The spectrum with its magnitudes to the power 0.3."""
        return compressed(self.spectrum)

    @cached_property
    def magnitude(self) -> Tensor:
        """Those magnitudes."""
        return compressed_magnitude(self.spectrum)

    @cached_property
    def reanalysed(self) -> Tensor:
        """The spectrum of the waveform. A network's own spectrum may be no waveform's."""
        return stft(self.waveform)


@dataclass(frozen=True)
class Active:
    """Which parts of crops count: those that are not digital silence."""

    frames: Tensor  # (b, t), 1.0 for a frame of the transform that holds an active hop, else 0.0
    samples: Tensor  # (b, s), 1.0 for a sample of an active hop, else 0.0

    @classmethod
    def of(cls, *waveforms: Tensor) -> Active:
        """Find the hops of 128 samples in which one of the waveforms (b, s) is above -100 dB."""
        with torch.no_grad():
            length = waveforms[0].shape[-1]
            count = -(-length // HOP)
            padded = F.pad(torch.stack(waveforms), (0, count * HOP - length))
            power = padded.unflatten(-1, (count, HOP)).square().mean(-1).amax(0)
            hops = (power >= RMS_FLOOR**2).float()
            samples = hops.repeat_interleave(HOP, -1)[:, :length]
            # Frame t covers the hops t - 2 to t + 1.
            around = N_FFT // HOP
            frames = F.max_pool1d(F.pad(hops, (around // 2, around // 2)), around, stride=1)
            return cls(frames[:, : length // HOP + 1], samples)

    def loudness(self, waveform: Tensor) -> Tensor:
        """Return the root mean square (b, 1) of a waveform (b, s) over active samples."""
        power = (waveform.square() * self.samples).sum(-1, keepdim=True)
        mean = power / self.samples.sum(-1, keepdim=True).clamp_min(1)
        return mean.clamp_min(RMS_FLOOR**2).sqrt()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values (b, f, t) over active frames, and then over crops."""
        return _weighted_mean(values.mean(1), self.frames)


def complex_loss(enhanced: Recordings, clean: Recordings, active: Active, how: Loss) -> Tensor:
    """Compute the distance of the spectra, their magnitudes to the power `how.complex_power`.

    Squared, it is summed over real and imaginary part; absolute, it is the modulus of the complex
    difference.
    """
    if how.complex_power == COMPRESSION:
        return _distance(enhanced.compressed - clean.compressed, active, how)
    a, b = (compressed(x.spectrum, how.complex_power) for x in (enhanced, clean))
    return _distance(a - b, active, how)


def magnitude_loss(enhanced: Recordings, clean: Recordings, active: Active, how: Loss) -> Tensor:
    """Compute the distance of the compressed magnitudes."""
    return _distance(enhanced.magnitude - clean.magnitude, active, how)


def phase_loss(enhanced: Recordings, clean: Recordings, active: Active, how: Loss) -> Tensor:
    """Compute the anti-wrapped distances of phase, group delay and instantaneous frequency, summed.

    Ai and Ling, "Neural Speech Phase Prediction", ICASSP 2023, equations 7 to 9, with |x - 2π
    round(x / 2π)| as anti-wrapping function. The difference of the phases is the angle of the
    product with the conjugate, so that one atan2 serves, and its differences along f and t are
    those of group delay and instantaneous frequency. Bins that are silent in either spectrum count
    neither in the sum nor in its denominator. With `how.phase_power`, the others count in
    proportion to |clean| to that power.
    """
    a, b = enhanced.spectrum, clean.spectrum
    weight = (_power(a) >= _PHASE_FLOOR) & (_power(b) >= _PHASE_FLOOR)
    product = a * b.conj()
    # Masked before atan2: after it, the gradient at a silent bin would be 0 * inf.
    difference = torch.atan2(
        torch.where(weight, product.imag, 0.0), torch.where(weight, product.real, 1.0)
    )
    weight = weight * active.frames[:, None]
    if how.phase_power:
        weight = weight * compressed_magnitude(b, how.phase_power)
    loss = _weighted_mean(_unwrapped(difference), weight)
    for axis in (1, 2):
        last = weight.shape[axis] - 1
        both = (weight.narrow(axis, 1, last) * weight.narrow(axis, 0, last)).sqrt()
        loss = loss + _weighted_mean(_unwrapped(difference.diff(dim=axis)), both)
    return loss


def time_loss(enhanced: Recordings, clean: Recordings, active: Active, how: Loss) -> Tensor:
    """Compute the absolute distance of the waveforms."""
    return _weighted_mean((enhanced.waveform - clean.waveform).abs(), active.samples)


def consistency_loss(enhanced: Recordings, clean: Recordings, active: Active, how: Loss) -> Tensor:
    """Compute the distance between the enhanced spectrum and that of the waveform made from it.

    Both are compressed. The clean recording plays no part.
    """
    return _distance(enhanced.compressed - compressed(enhanced.reanalysed), active, how)


TERMS: dict[str, Callable[[Recordings, Recordings, Active, Loss], Tensor]] = {
    "complex": complex_loss,
    "magnitude": magnitude_loss,
    "phase": phase_loss,
    "time": time_loss,
    "consistency": consistency_loss,
}


def loss_terms(
    enhanced: Recordings, clean: Recordings, active: Active, how: Loss
) -> dict[str, Tensor]:
    """Compute the terms whose weight is not 0; return them by name, unweighted."""
    with torch.autocast(enhanced.waveform.device.type, enabled=False):
        return {
            name: term(enhanced, clean, active, how)
            for name, term in TERMS.items()
            if getattr(how, name)
        }


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _distance(difference: Tensor, active: Active, how: Loss) -> Tensor:
    """The mean of |difference|, real or complex (b, f, t), or of its square."""
    if how.absolute:
        return active.mean(difference.abs())
    return active.mean(_power(difference) if difference.is_complex() else difference.square())


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean of each crop's values (b, ...) by weights of the same shape, and then over crops."""
    dims = tuple(range(1, values.dim()))
    total = weight.sum(dims).clamp_min(torch.finfo(weight.dtype).tiny)
    return ((values * weight).sum(dims) / total).mean()


def _unwrapped(phase: Tensor) -> Tensor:
    turn = 2 * math.pi
    # The rounding is a constant to the gradient.
    return (phase - turn * torch.round(phase.detach() / turn)).abs()
