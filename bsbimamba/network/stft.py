"""The spectrum that every network of this project works on, and its inverse.

16 kHz, n_fft 512, hop 128, periodic Hann window, centred, zeros beyond the ends: 257 bins, and
s // 128 + 1 frames for s samples. Zeros, not reflection: they exist for every length, and a frame
does not change when silence is appended.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT = 512
HOP = 128
BINS = N_FFT // 2 + 1
COMPRESSION = 0.3  # the power that magnitudes are compressed by
FLOOR = 1e-9  # is added to powers, so that their gradients are finite at silence


def stft(x: Tensor, center: bool = True) -> Tensor:
    """Return the spectrum (b, f, t) of a waveform (b, s), in fp32 under autocast too; s >= 1.

    center: False takes the frames that lie within x, without zeros beyond its ends; s >= 512.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        return _STFT.apply(x, N_FFT // 2 if center else 0)


def istft(spectrum: Tensor, length: int) -> Tensor:
    """Return the waveform (b, length) of a spectrum (b, f, t), where t = length // 128 + 1.

    Frames are added up where they overlap and divided by the sum of their squared windows, as
    `torch.istft` does. That one reads a number on the host, which a CUDA graph cannot.
    """
    with torch.autocast(spectrum.device.type, enabled=False):
        return _ISTFT.apply(spectrum, length)


# Their gradients by the adjoint transforms. Those of PyTorch's operators take three times as many.
class _STFT(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, beyond: int) -> Tensor:
        ctx.beyond, ctx.length = beyond, x.shape[1]
        return _analysed(F.pad(x, (beyond, beyond)) if beyond else x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        halves = _constants(grad.device, grad.real.dtype).halves
        x = _synthesised(grad * halves, norm="forward")[:, ctx.beyond :]
        missing = ctx.length - x.shape[1]  # what no frame has reached
        return F.pad(x, (0, missing)) if missing > 0 else x[:, : ctx.length], None


class _ISTFT(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spectrum: Tensor, length: int) -> Tensor:
        kept = slice(N_FFT // 2, N_FFT // 2 + length)
        window = _constants(spectrum.device, spectrum.real.dtype).window
        whole = _added_up((window * window).expand(1, spectrum.shape[2], N_FFT))
        ctx.beyond = N_FFT // 2, whole.shape[1] - kept.stop
        squares = whole[:, kept]
        ctx.save_for_backward(squares)
        return _synthesised(spectrum)[:, kept] / squares

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (squares,) = ctx.saved_tensors
        x = F.pad(grad / squares, ctx.beyond)
        return _analysed(x, norm="forward") / _constants(grad.device, grad.dtype).halves, None


def _analysed(x: Tensor, norm: str = "backward") -> Tensor:
    """Return the spectrum (b, f, t) of the frames that lie within x (b, s)."""
    window = _constants(x.device, x.dtype).window
    return torch.fft.rfft(x.unfold(1, N_FFT, HOP) * window, norm=norm).mT


def _synthesised(spectrum: Tensor, norm: str = "backward") -> Tensor:
    """Return the frames of a spectrum (b, f, t), windowed and added up, (b, s)."""
    window = _constants(spectrum.device, spectrum.real.dtype).window
    return _added_up(torch.fft.irfft(spectrum.mT, N_FFT, norm=norm) * window)


def _added_up(frames: Tensor) -> Tensor:
    """Return overlapping frames (b, t, 512) added up, (b, s)."""
    size = (1, (frames.shape[1] - 1) * HOP + N_FFT)
    return F.fold(frames.mT, size, (1, N_FFT), stride=(1, HOP)).flatten(1)


class _Constants(NamedTuple):
    window: Tensor  # (512)
    halves: Tensor  # (257, 1): 1 for the bins that the inverse transform takes once, 0.5 for others


_known: dict[tuple[torch.device, torch.dtype], _Constants] = {}


def _constants(device: torch.device, dtype: torch.dtype) -> _Constants:
    known = _known.get((device, dtype))
    if known is None:
        # Inference tensors, if the first call is from there, would be refused in training.
        with torch.inference_mode(False):
            halves = torch.full((BINS, 1), 0.5, device=device, dtype=dtype)
            halves[:: BINS - 1] = 1
            known = _Constants(torch.hann_window(N_FFT, device=device, dtype=dtype), halves)
        if type(halves) is Tensor:  # and not one that only pretends to be there
            _known[device, dtype] = known
    return known


def compressed(spectrum: Tensor, power: float = COMPRESSION) -> Tensor:
    """Return X |X|^(power - 1): the phase kept, the magnitude to the given power; 0 stays 0."""
    return spectrum * _power(spectrum) ** ((power - 1) / 2)


def compressed_magnitude(spectrum: Tensor, power: float = COMPRESSION) -> Tensor:
    """Return |X|^power."""
    return _power(spectrum) ** (power / 2)


def _power(spectrum: Tensor) -> Tensor:
    """Return |X|² + 1e-9, of which roots have finite gradients at silence."""
    return torch.view_as_real(spectrum).square().sum(-1) + FLOOR
