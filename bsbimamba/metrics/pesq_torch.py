"""Wideband PESQ of a batch in PyTorch, without time alignment: labels for a metric discriminator.

Equations and tables: ITU-T Recommendations P.862 (2001) and P.862.2 (2007). What is left out is the
search for delays, so that both signals must be aligned, as those of a network are; the search for
utterances, without one of which (0.2 s of speech) there is no exact score; and the weights over
time in recordings above 16 s. `metrics.scores` has the exact measure.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_FRAME, _HOP, _PADDING = 512, 256, 5120  # samples; a recording is padded by 320 ms
_LEVEL = 1e7  # power between 325 and 3,250 Hz that both signals are brought to
_SILENT = 500.0  # sum of the magnitudes of five samples
_POWER_SCALE, _LOUDNESS_SCALE = 6.910853e-6, 0.1866055
_HIGH_PASS = ((2.740826, -5.4816519, 2.740826), (1.0, -1.9444777, 0.94597794))
_SYLLABLE = 20  # frames

_BANDS = np.loadtxt(Path(__file__).with_name("pesq_bands.csv"), delimiter=",", unpack=True)


class _Tables(NamedTuple):
    """The tables on a device, and the filters for recordings of one length."""

    fade: Tensor  # (s,): fifteen samples at either end
    speech: Tensor  # the response (f,) of the band-pass filter before the levels are measured
    high_pass: Tensor  # and that of the filter of P.862.2
    window: Tensor
    gain_taps: Tensor
    warping: Tensor  # from bins to bands: (256, 49)
    widths: Tensor  # and the others over bands
    thresholds: Tensor
    powers: Tensor  # exponents of Zwicker's law, larger below 4 Bark


@cache
def _tables(samples: int, device: torch.device) -> _Tables:
    ramp = torch.arange(1.0, samples + 1).clamp_max(16) / 16
    frequencies = torch.fft.rfftfreq(samples + _PADDING, 1 / 16000)
    # 0 dB from 350 to 3,250 Hz, and none below 300 and above 3,500.
    decibels = -500 * torch.maximum((350 - frequencies) / 50, (frequencies - 3250) / 250)
    delay = torch.exp(-2j * torch.pi / 16000 * frequencies.double())
    numerator, denominator = (c[0] + c[1] * delay + c[2] * delay**2 for c in _HIGH_PASS)
    bins, widths, corrections, thresholds = torch.from_numpy(_BANDS)
    band = torch.arange(len(bins)).repeat_interleave(bins.long())
    centres = widths.cumsum(0) - widths / 2
    tables = _Tables(
        fade=ramp * ramp.flip(0),
        speech=10 ** (decibels.clamp(-500, 0) / 20),
        high_pass=(numerator / denominator).to(torch.complex64),
        window=torch.hann_window(_FRAME),
        gain_taps=0.8 * 0.2 ** torch.arange(16.0).flip(0),
        warping=F.one_hot(band) * corrections.float() * _POWER_SCALE,
        widths=widths.float(),
        thresholds=thresholds.float(),
        powers=0.23 * ((6 / (centres + 2)).clamp(1, 2) ** 0.15).float(),
    )
    return _Tables(*(table.to(device) for table in tables))


@torch.no_grad()
def pesq_torch(clean: Tensor, enhanced: Tensor) -> Tensor:
    """Estimate the wideband PESQ (b,), 1.04 to 4.64, of recordings (b, s) at 16 kHz.

    NaN where one of the two is silent between 325 and 3,250 Hz. Computed in fp32, outside of
    autocast; nothing is read on the host.
    """
    tables = _tables(clean.shape[-1], clean.device)
    both = _filtered(torch.stack([clean, enhanced]).float(), tables)
    start, stop = _spoken(both[0])
    frames = both.unfold(-1, _FRAME, _HOP) * tables.window
    spectrum = torch.fft.rfft(frames)[..., 1:_HOP]
    power = spectrum.real.square() + spectrum.imag.square()
    density = F.pad(power, (1, 0)) @ tables.warping  # (2, b, t, 49)

    # The linear response of the system: the reference is given its average spectrum.
    heard = torch.where(density > 100 * tables.thresholds, density, 0.0)
    speaks = heard[0, ..., 1:].sum(-1, keepdim=True) >= _LEVEL
    average = (heard * speaks).sum(2) / (both.shape[-1] // _HOP - 1) + 1000
    reference = density[0] * (average[1] / average[0]).clamp(0.01, 100)[:, None]

    # Variations of its gain: the degraded signal is given the reference's power, frame by frame.
    loud = torch.stack([reference, density[1]])
    audible = torch.where(loud > tables.thresholds, loud, 0.0)[..., 1:].sum(-1)
    gain = (audible[0] + 5e3) / (audible[1] + 5e3)
    gain = (F.pad(gain, (15, 0), mode="replicate").unfold(-1, 16, 1) * tables.gain_taps).sum(-1)
    degraded = density[1] * gain.clamp(3e-4, 5)[..., None]

    pair = torch.stack([reference, degraded])
    excitation = (0.5 + 0.5 * pair / tables.thresholds) ** tables.powers - 1
    loudness = _LOUDNESS_SCALE * (tables.thresholds / 0.5) ** tables.powers * excitation
    loudness = torch.where(pair > tables.thresholds, loudness, 0.0)
    difference = loudness[1] - loudness[0]
    disturbance = (difference.abs() - 0.25 * loudness.amin(0)).clamp_min(0)
    asymmetry = ((degraded + 50) / (reference + 50)) ** 1.2
    asymmetry = torch.where(asymmetry < 3, 0.0, asymmetry.clamp_max(12))

    weight = ((audible[0] + 1e5) / 1e7) ** 0.04
    widths = tables.widths[1:]
    symmetric, additive = (x[..., 1:] * widths for x in (disturbance, disturbance * asymmetry))
    total = widths.sum()
    symmetric = (symmetric.square().sum(-1) / total).sqrt() * total
    terms = [(x / weight).clamp_max(45) for x in (symmetric, additive.sum(-1))]
    d, a = (_over_time(x, start, stop) for x in terms)
    raw = 4.5 - 0.1 * d - 0.0309 * a
    return 0.999 + 4 / (1 + torch.exp(3.8224 - 1.3669 * raw))


def _filtered(signals: Tensor, tables: _Tables) -> Tensor:
    """Bring signals (..., s) to one level, filter them as P.862.2 does, and pad them."""
    samples = signals.shape[-1]
    size = samples + _PADDING
    speech = torch.fft.irfft(torch.fft.rfft(signals, size) * tables.speech, size)
    level = (_LEVEL / speech.square().mean(-1, keepdim=True)).sqrt()
    spectrum = torch.fft.rfft(signals * tables.fade, size) * tables.high_pass
    # What the filter has after the end is cut off.
    return F.pad(level * torch.fft.irfft(spectrum, size)[..., :samples], (0, _PADDING))


def _spoken(reference: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last frame (b,) that are not silent in a reference (b, s)."""
    limit = (reference.shape[-1] + 4480) // 2  # of the samples that are left out at either end
    loud = reference.abs().unfold(-1, 5, 1).sum(-1) >= _SILENT
    before = loud.int().argmax(-1).clamp_max(limit)
    after = loud.flip(-1).int().argmax(-1).clamp_max(limit)
    return before // _HOP, (reference.shape[-1] - after) // _HOP - 1


def _over_time(x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Average disturbances (b, t): the sixth power in syllables, and the square over these."""
    frame = start[:, None] + torch.arange(x.shape[1] + _SYLLABLE, device=x.device)
    inside = frame <= stop[:, None]
    x = x.gather(1, frame.clamp_max(x.shape[1] - 1)).where(inside, 0.0)
    syllables = (x**6).unfold(1, _SYLLABLE, _SYLLABLE // 2).mean(-1) ** (1 / 6)
    counts = inside[:, :: _SYLLABLE // 2][:, : syllables.shape[1]]
    return ((syllables.square() * counts).sum(1) / counts.sum(1)).sqrt()
