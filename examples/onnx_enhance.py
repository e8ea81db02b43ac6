"""Enhance an audio file with an exported model, by onnxruntime alone: no PyTorch, nothing of ours.

    pip install numpy soundfile soxr onnxruntime
    python onnx_enhance.py models/NAME noisy.wav enhanced.wav

The file may have any length, sampling rate and number of channels; what comes out has the same.
"""

import json
import sys
from math import ceil
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile


class Enhancer:
    """An exported model: `Enhancer("models/NAME")(x, rate)` for x (samples,), one channel."""

    def __init__(self, folder: str | Path) -> None:
        described = Path(folder) / "config.json"
        if not described.is_file():
            raise SystemExit(f"{folder} is no exported model: there is no {described.name} in it")
        config = json.loads(described.read_text(encoding="utf-8"))
        if "onnx" not in config:
            raise SystemExit(f"{folder} has no ONNX model: it was exported with --no-onnx")
        signal, windows = config["signal"], config["windows"]
        self.rate, self.floor = signal["sample_rate"], signal["loudness_floor"]
        self.n_fft, self.hop = signal["n_fft"], signal["hop"]
        self.widths, self.variance_floor = signal["band_widths"], signal["variance_floor"]
        self.length, self.context, self.fade = (
            windows[part] for part in ("length", "context", "fade")
        )
        self.hann = np.sin(np.pi * np.arange(self.n_fft) / self.n_fft).astype("float32") ** 2
        self.session = onnxruntime.InferenceSession(
            Path(folder) / config["onnx"]["file"], providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self.session.get_inputs()]

    def __call__(self, x: np.ndarray, rate: int) -> np.ndarray:
        """The enhanced signal, at the same rate and as long."""
        y = self._at_own_rate(resampled(x, rate, self.rate))
        y = resampled(y, self.rate, rate)[: len(x)]
        return np.pad(y, (0, len(x) - len(y)))

    def _at_own_rate(self, x: np.ndarray) -> np.ndarray:
        """Windows of the signal, each enhanced by itself and faded over into the next one."""
        loudness = max(float(np.sqrt(np.mean(np.square(x, dtype="float64")))), self.floor)
        x = (x / np.float32(loudness)).astype("float32")
        statistics = self._statistics(x)
        overlap = 2 * self.context + self.fade
        step = self.length - overlap
        count = max(1, ceil((len(x) - overlap) / step))
        rise = np.sin((np.arange(self.fade) + 0.5) * np.pi / 2 / max(1, self.fade)) ** 2
        y = np.zeros_like(x)
        for i in range(count):
            begin, end = i * step, min(i * step + self.length, len(x))
            window = self._window(x[begin:end], statistics)
            # What a window says of its outermost part is dropped: there it lacks what lies beyond.
            first = self.context if i > 0 else 0
            last = end - begin if i == count - 1 else end - begin - self.context
            window = window[first:last]
            if i > 0:
                window[: self.fade] *= rise
            if i < count - 1 and self.fade:
                window[-self.fade :] *= rise[::-1]
            y[begin + first : begin + last] += window
        return y * np.float32(loudness)

    def _window(self, x: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """What the network makes of one window."""
        spectrum = self._spectrum(self._frames(x)).T
        parts = np.stack([spectrum.real, spectrum.imag], -1).astype("float32")
        given = {"spectrum": parts[None], "statistics": statistics[None]}
        filtered = self.session.run(None, {name: given[name] for name in self.inputs})[0][0]
        return self._istft(filtered[..., 0] + 1j * filtered[..., 1], len(x))

    def _statistics(self, x: np.ndarray) -> np.ndarray:
        """Mean and deviation (bands, 2) of each band of the compressed spectrum, over all of it."""
        frames, sums = self._frames(x), np.zeros((2, self.n_fft // 2 + 1))
        for first in range(0, len(frames), 1000):
            spectrum = self._spectrum(frames[first : first + 1000])
            features = spectrum * (np.abs(spectrum) ** 2 + 1e-9) ** -0.35
            sums[0] += (features.real + features.imag).sum(0)
            sums[1] += (np.abs(features) ** 2).sum(0)
        first_bins = np.cumsum([0, *self.widths[:-1]])
        counts = 2 * len(frames) * np.array(self.widths)
        mean, power = np.add.reduceat(sums, first_bins, axis=1) / counts
        deviation = np.sqrt(power - mean**2 + self.variance_floor)
        return np.stack([mean, deviation], -1).astype("float32")

    def _frames(self, x: np.ndarray) -> np.ndarray:
        """(samples,) to (frames, n_fft): centred, with zeros beyond the ends."""
        padded = np.pad(x, self.n_fft // 2)
        return np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop]

    def _spectrum(self, frames: np.ndarray) -> np.ndarray:
        """(frames, n_fft) to (frames, bins)."""
        return np.fft.rfft(frames * self.hann)

    def _istft(self, spectrum: np.ndarray, length: int) -> np.ndarray:
        """The inverse, for so many samples: windowed once more, added up, divided by the sum of
        the squared windows."""
        frames = np.fft.irfft(spectrum.T, self.n_fft) * self.hann
        total = np.zeros(self.n_fft + self.hop * (len(frames) - 1))
        weight = np.zeros_like(total)
        for i, frame in enumerate(frames):
            total[i * self.hop :][: self.n_fft] += frame
            weight[i * self.hop :][: self.n_fft] += self.hann**2
        inside = slice(self.n_fft // 2, self.n_fft // 2 + length)
        return (total[inside] / weight[inside]).astype("float32")


def resampled(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    """The signal at another rate; of one too short for a sample there, zeros follow."""
    if rate == to:
        return x
    import soxr

    return soxr.resample(np.pad(x, (0, ceil(rate / to))), rate, to, quality="VHQ")


def main(folder: str, source: str, target: str) -> None:
    x, rate = soundfile.read(source, dtype="float32", always_2d=True)
    if not len(x):
        raise SystemExit(f"{source} is empty")
    enhance = Enhancer(folder)
    y = np.stack([enhance(channel, rate) for channel in x.T], 1)
    soundfile.write(target, y, rate, "FLOAT" if target.endswith(".wav") else None)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python onnx_enhance.py MODEL_FOLDER NOISY ENHANCED")
    main(*sys.argv[1:])
