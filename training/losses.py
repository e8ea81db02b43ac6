"""The terms of the generator's loss, each a function of the same two recordings, by name.

All are means over everything they are taken over, in fp32 with autocast off, zero where enhanced
and clean agree, and have finite gradients at silence. Source: MP-SENet (Lu, Ai and Ling,
Interspeech 2023, section 2.3) and CMGAN (Abdulatif, Cao and Yang, IEEE TASLP 2024, section III);
magnitudes are compressed by the power 0.3. The metric term is the adversary's
(`training.adversary`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from bandsplit.stft import compressed, compressed_magnitude, stft

# Below this power a bin's phase is noise: its gradient, 1 / |S|, would be all there is.
_PHASE_FLOOR = 1e-8


@dataclass(frozen=True)
class Recordings:
    """Waveforms (b, s) and complex spectra (b, f, t). What several terms need is made once."""

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


def complex_loss(enhanced: Recordings, clean: Recordings) -> Tensor:
    """Squared distance of the compressed spectra, summed over real and imaginary part."""
    return _squared(enhanced.compressed - clean.compressed)


def magnitude_loss(enhanced: Recordings, clean: Recordings) -> Tensor:
    """Squared distance of the compressed magnitudes."""
    return F.mse_loss(enhanced.magnitude, clean.magnitude)


def phase_loss(enhanced: Recordings, clean: Recordings) -> Tensor:
    """Anti-wrapped distances of phase, group delay and instantaneous frequency, added up.

    Ai and Ling, "Neural Speech Phase Prediction", ICASSP 2023, equations 7 to 9, with |x - 2π
    round(x / 2π)| as anti-wrapping function. The difference of the phases is the angle of the
    product with the conjugate, so that one atan2 serves, and its differences along f and t are
    those of group delay and instantaneous frequency. Bins that are silent in either spectrum do
    not count.
    """
    a, b = enhanced.spectrum, clean.spectrum
    audible = (_power(a) >= _PHASE_FLOOR) & (_power(b) >= _PHASE_FLOOR)
    product = a * b.conj()
    # Masked before atan2: after it, the gradient at a silent bin would be 0 * inf.
    difference = torch.atan2(
        torch.where(audible, product.imag, 0.0), torch.where(audible, product.real, 1.0)
    )
    terms = _unwrapped(difference).mean()
    for axis in (1, 2):
        both = audible.narrow(axis, 1, audible.shape[axis] - 1) & audible.narrow(
            axis, 0, audible.shape[axis] - 1
        )
        step = _unwrapped(difference.diff(dim=axis))
        terms = terms + torch.where(both, step, 0.0).sum() / max(1, both.numel())
    return terms


def time_loss(enhanced: Recordings, clean: Recordings) -> Tensor:
    """Absolute distance of the waveforms."""
    return F.l1_loss(enhanced.waveform, clean.waveform)


def consistency_loss(enhanced: Recordings, clean: Recordings) -> Tensor:
    """Squared distance between the enhanced spectrum and that of the waveform made from it.

    Both compressed; real and imaginary part summed. The clean recording plays no part.
    """
    return _squared(enhanced.compressed - compressed(stft(enhanced.waveform)))


TERMS = {
    "complex": complex_loss,
    "magnitude": magnitude_loss,
    "phase": phase_loss,
    "time": time_loss,
    "consistency": consistency_loss,
}


def loss_terms(
    enhanced: Recordings, clean: Recordings, weights: dict[str, float]
) -> dict[str, Tensor]:
    """The terms whose weight is not 0, by name, unweighted."""
    with torch.autocast(enhanced.waveform.device.type, enabled=False):
        return {name: term(enhanced, clean) for name, term in TERMS.items() if weights.get(name)}


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()


def _squared(difference: Tensor) -> Tensor:
    return _power(difference).mean()


def _unwrapped(phase: Tensor) -> Tensor:
    turn = 2 * math.pi
    # The rounding is a constant to the gradient.
    return (phase - turn * torch.round(phase.detach() / turn)).abs()
