"""The generator's loss: terms and gradient in one pass.

Every term is a mean over the active frames of a crop, and then over crops, so that silence that is
appended to a crop changes nothing. All are computed in fp32, are zero where enhanced and clean
agree, and have finite gradients at silence. Source: MP-SENet (Lu, Ai and Ling, Interspeech 2023,
section 2.3) and CMGAN (Abdulatif, Cao and Yang, IEEE TASLP 2024, section III). The metric term is
the discriminator's (`training.discriminator`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bsbimamba.network.net import RMS_FLOOR
from bsbimamba.network.stft import BINS, COMPRESSION, FLOOR, HOP, N_FFT
from bsbimamba.training.config import Loss

TERMS = ("complex", "magnitude", "phase", "time", "consistency")
# Below this modulus a bin's phase is noise: its gradient, 1 / |S|, would be all there is.
_PHASE_FLOOR = 1e-4
_TURN = 2 * math.pi


@dataclass(frozen=True)
class Active:
    """Which parts of crops count, and how much: those that are digital silence do not.

    Attributes:
        frames: weights (b, t) of the frames of the transform. Those of a crop add up to 1.
        samples: the same of the samples, (b, s).
        crops: of the batch, of which these may be a part.
    """

    frames: Tensor
    samples: Tensor
    crops: int

    @classmethod
    @torch.no_grad()
    def of(cls, waveforms: Tensor) -> Active:
        """Find the hops of 128 samples in which one of the waveforms (n, b, s) is above -100 dB.

        A frame counts if it holds such a hop, a sample if it lies in one.
        """
        length = waveforms.shape[-1]
        if rest := -length % HOP:
            waveforms = F.pad(waveforms, (0, rest))
        norm = torch.linalg.vector_norm(waveforms.unflatten(-1, (-1, HOP)), dim=-1)
        hops = (norm.amax(0) >= HOP**0.5 * RMS_FLOOR).float()
        # Frame t covers the hops t - 2 to t + 1.
        around = N_FFT // HOP
        frames = F.max_pool1d(hops, around, stride=1, padding=around // 2)
        samples = hops.repeat_interleave(HOP, -1)
        frames, samples = frames[:, : length // HOP + 1], samples[:, :length]
        ones: Any = {"p": 1.0, "eps": 1.0}
        return cls(F.normalize(frames, **ones), F.normalize(samples, **ones), len(hops))

    def loudness(self, waveform: Tensor) -> Tensor:
        """Return the root mean square (b, 1) of a waveform (b, s) over active samples."""
        power = (waveform.square() * self.samples).sum(-1, keepdim=True)
        return power.clamp_min(RMS_FLOOR**2).sqrt()

    def split(self, count: int) -> list[Active]:
        """Return the parts of so many parts of the batch."""
        parts = zip(self.frames.tensor_split(count), self.samples.tensor_split(count), strict=True)
        return [Active(frames, samples, self.crops) for frames, samples in parts]


def losses(
    waveform: Tensor,
    spectrum: Tensor,
    reanalysed: Tensor,
    clean: Tensor,
    target: Tensor,
    active: Active,
    how: Loss,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the weighted sum of the terms, and the terms whose weight is not 0, unweighted.

    Only the sum has gradients. They are computed with it, so that nothing else is kept for the
    backward pass. Of a part of a batch, these are the part's summands of the batch's means.

    Args:
        waveform, spectrum: enhanced, (b, s) and complex (b, f, t).
        reanalysed: the spectrum of the waveform. A network's own may be no waveform's.
        clean, target: the clean waveform and its spectrum.
        active: which parts count.

    The terms:
        complex: squared distance of the spectra, their magnitudes to the power `complex_power`.
        magnitude: that of the magnitudes to the power 0.3.
        consistency: that of the spectrum and the reanalysed one, as in `complex`.
            With `absolute`, these are distances instead of their squares.
        phase: distances of phase, group delay and instantaneous frequency (`_phase`).
        time: absolute distance of the waveforms.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        total, *values = _Losses.apply(waveform, spectrum, reanalysed, clean, target, active, how)
    terms = dict(zip(TERMS, values, strict=True))
    return total, {name: term for name, term in terms.items() if getattr(how, name)}


class _Constants(NamedTuple):
    """What only depends on the settings, on the device."""

    floor: Tensor  # the root of FLOOR
    slopes: Tensor  # by the distances of `_distances`, (2, 1, 1, 1, 3)
    fold: Tensor  # the gradient of the differences to that of the first two of three, (2, 2)
    powers: Tensor  # exponents of (y, magnitude) by the logarithm of the power, (3), doubled
    terms: Tensor  # sums of `_Losses` to the weighted sum and the terms, (6, 8)


@cache
def _constants(how: Loss, crops: int, dtype: torch.dtype, device: torch.device) -> _Constants:
    bins = 1 / (crops * BINS)
    complex_, magnitude, consistency = how.complex, how.magnitude, how.consistency
    slopes = [[consistency, consistency, 0.0], [complex_, complex_, magnitude]]
    terms = np.zeros((5, 8))
    terms[0, 3:5] = terms[1, 5] = terms[4, :2] = bins
    terms[2, 6] = terms[3, 7] = 1 / crops
    total = np.dot([getattr(how, name) for name in TERMS], terms)
    values = (
        FLOOR**0.5,
        [[[[[(1 if how.absolute else 2) * bins * x for x in row]]]] for row in slopes],
        [[1, 1], [-1, 0]],
        [how.complex_power - 1] * 2 + [COMPRESSION],
        np.stack([total, *terms]).tolist(),
    )
    return _Constants(*(torch.tensor(x, dtype=dtype, device=device) for x in values))


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        waveform: Tensor,
        spectrum: Tensor,
        reanalysed: Tensor,
        clean: Tensor,
        target: Tensor,
        active: Active,
        how: Loss,
    ) -> tuple[Tensor, ...]:
        known = _constants(how, active.crops, waveform.dtype, waveform.device)
        x = torch.stack([spectrum, reanalysed, target])
        modulus = x.abs()
        magnitude = torch.hypot(modulus, known.floor)
        sums, gradient = _distances(x, magnitude, active.frames, how, known)
        if how.phase:
            phase = _phase(x, modulus, magnitude[2], active, how, gradient[0])
        else:
            phase = sums.new_zeros(())
        difference = waveform - clean
        of_waveform = difference.sign() * active.samples
        time = torch.dot(difference.flatten(), of_waveform.flatten())
        total, *terms = (known.terms @ torch.stack([*sums.flatten(), phase, time])).unbind()
        ctx.save_for_backward(of_waveform, gradient)
        ctx.time = how.time / active.crops
        ctx.mark_non_differentiable(*terms)
        ctx.set_materialize_grads(False)
        return total, *terms

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: None) -> Any:
        of_waveform, gradient = ctx.saved_tensors
        of_spectra = torch.view_as_complex(gradient * outer)
        return of_waveform * (outer * ctx.time), *of_spectra.unbind(), None, None, None, None


def _distances(
    x: Tensor, magnitude: Tensor, frames: Tensor, how: Loss, known: _Constants
) -> tuple[Tensor, Tensor]:
    """Compute the terms that are distances of spectra, and their gradient.

    x: the enhanced, the reanalysed and the clean spectrum, (3, b, f, t). magnitude: theirs, with a
    floor. frames: weights (b, t).

    Returns:
        Sums (2, 3) over bins: from the enhanced to each of the others, of real and imaginary part,
        and of the magnitude. The weighted gradient (2, b, f, t, 2) of enhanced and reanalysed.
    """
    # y = x m^(p - 1) and m^0.3, with m^2 = x x + FLOOR.
    parts, scale = torch.view_as_real(x), magnitude ** (how.complex_power - 1)
    y = torch.cat([parts * scale[..., None], (magnitude**COMPRESSION)[..., None]], -1)
    apart = y[0] - y[1:]
    weighted = apart * frames[:, None, :, None]
    if how.absolute:
        # The length of a difference, for each of its parts. Its gradient is 0 at 0.
        length = torch.linalg.vector_norm(apart[..., :2], dim=-1, keepdim=True).expand(
            *apart.shape[:-1], 2
        )
        weighted = weighted / torch.cat([length, apart[..., 2:].abs()], -1).clamp_min(1e-12)
    sums = (apart * weighted).sum((1, 2, 3))

    by_y = torch.mm(known.fold, (weighted * known.slopes).flatten(1)).view_as(apart)
    by_power = ((by_y * y[:2]) @ known.powers) / magnitude[:2].square()
    gradient = by_y[..., :2] * scale[:2, ..., None]
    return sums, gradient.addcmul_(parts[:2], by_power[..., None])


def _phase(
    x: Tensor, modulus: Tensor, clean: Tensor, active: Active, how: Loss, gradient: Tensor
) -> Tensor:
    """Compute the anti-wrapped distances of phase, group delay and instantaneous frequency, summed.

    Ai and Ling, "Neural Speech Phase Prediction", ICASSP 2023, equations 7 to 9, with |x - 2π
    round(x / 2π)| as anti-wrapping function. The difference of the phases is the angle of the
    product with the conjugate, and its differences along f and t are those of group delay and
    instantaneous frequency. Bins that are silent in either spectrum do not count, in the sum or in
    its denominator. The others count in proportion to |clean| to the power `phase_power`.

    Args:
        x, modulus: the spectra (3, b, f, t), of which the second is not used, and their moduli.
        clean: that of the last one, with a floor.
        gradient: of the first one, (b, f, t, 2). The term's is added.

    Returns the sum over crops.
    """
    counted = torch.minimum(modulus[0], modulus[2]) >= _PHASE_FLOOR
    weight = counted * active.frames[:, None] * clean**how.phase_power
    phase = torch.angle(x[0] * x[2].conj())
    # The differences to the next bin and to the next frame. Their weight is 0 at the end.
    padded = F.pad(torch.stack([phase, weight]), (0, 1, 0, 1))
    above, later = padded[..., 1:, :-1], padded[..., :-1, 1:]
    angles = torch.stack([phase, above[0] - phase, later[0] - phase])
    angles = torch.sub(angles, torch.round(angles / _TURN), alpha=_TURN)
    weights = (torch.stack([weight, above[1], later[1]]) * weight).sqrt()
    weights = weights / weights.sum((2, 3), keepdim=True).clamp_min(1e-30)

    slopes = angles.sign() * weights
    by_phase = slopes[0] - slopes[1] - slopes[2]
    by_phase[:, 1:].add_(slopes[1, :, :-1])
    by_phase[..., 1:].add_(slopes[2, ..., :-1])
    by_phase = by_phase / modulus[0].clamp_min(_PHASE_FLOOR).square()
    share = how.phase / active.crops
    gradient[..., 0].addcmul_(by_phase, x[0].imag, value=-share)
    gradient[..., 1].addcmul_(by_phase, x[0].real, value=share)
    return torch.dot(angles.flatten(), slopes.flatten())
