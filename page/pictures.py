"""Spectrograms of whole recordings, as they stream by, no wider than a screen."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from bandsplit.stft import HOP, N_FFT
from data.audio import SAMPLE_RATE
from enhancement.windows import Block, Source, resampled
from evaluation.spectrogram import FLOOR_DB

COLOURS = "magma"
_WIDEST = 1200  # columns
_WINDOW = np.hanning(N_FFT + 1)[:-1].astype(np.float32)


def powers(source: Source, frames: int) -> NDArray[np.float64]:
    """Powers (257, columns) at 16 kHz, the mean over channels and over the frames of a column.

    Args:
        frames: samples a channel, at the source's rate.

    Raises:
        AudioError: the source cannot be decoded.
    """
    total = 1 + math.ceil(frames * SAMPLE_RATE / source.rate) // HOP
    columns = min(total, _WIDEST)
    summed, counts = np.zeros((columns, N_FFT // 2 + 1)), np.zeros(columns)
    held = np.zeros((source.channels, N_FFT // 2), np.float32)  # the first frame is centred at 0
    first = 0

    def add(signal: Block) -> Block:
        """Take all whole frames; returns what is left."""
        nonlocal first
        count = min(1 + (signal.shape[1] - N_FFT) // HOP, total - first)
        if count < 1:
            return signal
        cut = np.lib.stride_tricks.sliding_window_view(signal, N_FFT, axis=1)[:, ::HOP][:, :count]
        power = np.square(np.abs(np.fft.rfft(cut * _WINDOW))).mean(0)
        places = (first + np.arange(count)) * columns // total
        np.add.at(summed, places, power)
        np.add.at(counts, places, 1)
        first += count
        return signal[:, count * HOP :]

    for block in resampled(source.blocks(), source.rate, SAMPLE_RATE):
        held = add(np.concatenate([held, block], axis=1))
    add(np.concatenate([held, np.zeros((source.channels, N_FFT), np.float32)], axis=1))
    return (summed / np.maximum(counts, 1)[:, None]).T


def drawn(found: Mapping[str, NDArray]) -> dict[str, bytes]:
    """PNG images of powers by name, on one scale: 0 dB is the loudest point of all of them."""
    loudest = max((float(power.max()) for power in found.values()), default=0.0)
    images = {}
    for name, power in found.items():
        level = 10 * np.log10(np.maximum(power / max(loudest, 1e-12), 10 ** (FLOOR_DB / 10)))
        content = io.BytesIO()
        matplotlib.image.imsave(
            content, level, vmin=FLOOR_DB, vmax=0, cmap=COLOURS, format="png", origin="lower"
        )
        images[name] = content.getvalue()
    return images
