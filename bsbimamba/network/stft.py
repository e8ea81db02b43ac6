"""The spectrum that every network of this project works on, and its inverse.

16 kHz, n_fft 512, hop 128, periodic Hann window, centred, zeros beyond the ends: 257 bins, and
s // 128 + 1 frames for s samples. Zeros, not reflection: they exist for every length, and a frame
does not change when silence is appended.
"""

import torch
from torch import Tensor

N_FFT = 512
HOP = 128
BINS = N_FFT // 2 + 1
COMPRESSION = 0.3  # the power that magnitudes are compressed by


_windows: dict[tuple[torch.device, torch.dtype], Tensor] = {}


def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    if torch.compiler.is_compiling():
        return torch.hann_window(N_FFT, device=device, dtype=dtype)
    window = _windows.get((device, dtype))
    if window is None:
        # An inference tensor, if the first call is from there, would be refused in training.
        with torch.inference_mode(False):
            window = torch.hann_window(N_FFT, device=device, dtype=dtype)
        if type(window) is Tensor:  # and not one that only pretends to be there
            _windows[device, dtype] = window
    return window


def stft(x: Tensor, center: bool = True) -> Tensor:
    """Waveform (b, s) to complex spectrum (b, f, t), in fp32 under autocast too; s >= 1.

    center: False takes the frames that lie within x, without zeros beyond its ends; s >= 512.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        return torch.stft(
            x,
            N_FFT,
            HOP,
            window=_window(x.device, x.dtype),
            center=center,
            pad_mode="constant",
            return_complex=True,
        )


def istft(spectrum: Tensor, length: int) -> Tensor:
    """Complex spectrum (b, f, t) to waveform (b, length), where t = length // 128 + 1."""
    with torch.autocast(spectrum.device.type, enabled=False):
        window = _window(spectrum.device, spectrum.real.dtype)
        return torch.istft(spectrum, N_FFT, HOP, window=window, center=True, length=length)


def compressed(spectrum: Tensor, power: float = COMPRESSION) -> Tensor:
    """X |X|^(power - 1): the phase kept, the magnitude to the given power; 0 stays 0.

    The 1e-9 under the root keeps the gradient finite at silence.
    """
    squared = spectrum.real.square() + spectrum.imag.square()
    return spectrum * (squared + 1e-9) ** ((power - 1) / 2)


def compressed_magnitude(spectrum: Tensor, power: float = COMPRESSION) -> Tensor:
    """|X|^power, as (re² + im² + 1e-9)^(power / 2), whose gradient is finite at silence."""
    squared = spectrum.real.square() + spectrum.imag.square()
    return (squared + 1e-9) ** (power / 2)
