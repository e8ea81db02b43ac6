"""The segmental measures once more, frame by frame as the books tell them: slow, and independent.

Linear prediction is solved as a system of equations, spectra are sums over a DFT matrix, peaks are
climbed to band by band. 16 kHz, full scale 1.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz, toeplitz

from bsbimamba.metrics.segmental import _CENTRES, _WIDTHS

Frame = NDArray[np.float64]


def frames(x: Frame) -> list[Frame]:
    window = [0.5 - 0.5 * math.cos(2 * math.pi * (n + 1) / 481) for n in range(480)]
    starts = range(0, 120 * ((len(x) - 480) // 120), 120)
    return [x[start : start + 480] * window for start in starts]


def segsnr(clean: Frame, enhanced: Frame) -> float:
    total, pairs = 0.0, list(zip(frames(clean), frames(enhanced), strict=True))
    for c, e in pairs:
        ratio = sum(c * c) / (sum((c - e) ** 2) + 2.2e-16)
        total += min(max(10 * math.log10(ratio + 2.2e-16), -10), 35)
    return total / len(pairs)


def llr(clean: Frame, enhanced: Frame) -> float:
    values = []
    pairs = list(zip(frames(clean), frames(enhanced), strict=True))
    for c, e in pairs:
        lags = [np.array([x[: 480 - k] @ x[k:] for k in range(17)]) for x in (c, e)]
        if min(lag[0] for lag in lags) == 0:
            continue
        filters = [np.append(1, -solve_toeplitz(lag[:-1], lag[1:])) for lag in lags]
        left = [a @ toeplitz(lags[0]) @ a for a in filters]
        values.append(math.log(left[1] / left[0]))
    return float(np.mean(sorted(values)[: round(0.95 * len(pairs))]))


def wss(clean: Frame, enhanced: Frame, scale: float) -> float:
    values = []
    for c, e in zip(frames(clean * scale), frames(enhanced * scale), strict=True):
        weights, slopes = [], []
        for x in (c, e):
            level = levels(x)
            slope = [level[k + 1] - level[k] for k in range(24)]
            weights.append([
                20 / (20 + max(level) - level[k]) / (1 + peak(level, slope, k) - level[k])
                for k in range(24)
            ])  # fmt: skip
            slopes.append(slope)
        weight = [(a + b) / 2 for a, b in zip(*weights, strict=True)]
        squares = [(a - b) ** 2 for a, b in zip(*slopes, strict=True)]
        values.append(sum(w * s for w, s in zip(weight, squares, strict=True)) / sum(weight))
    return float(np.mean(sorted(values)[: round(0.95 * len(values))]))


def levels(x: Frame) -> list[float]:
    power = np.abs(DFT @ x) ** 2
    found = []
    for centre, width in zip(_CENTRES, _WIDTHS, strict=True):
        energy = 0.0
        for k in range(512):
            gain = math.exp(-11 * ((k - centre * 512 // 8000) / (width * 512 / 8000)) ** 2)
            gain *= 70 / width
            if gain > math.exp(-30 / 4.606):
                energy += gain * power[k]
        found.append(10 * math.log10(max(energy, 1e-10)))
    return found


def peak(level: list[float], slope: list[float], band: int) -> float:
    """Uphill from a band; going up, the program stops one band before the top."""
    if slope[band] > 0:
        while band < 24 and slope[band] > 0:
            band += 1
        return level[band - 1]
    while band >= 0 and slope[band] <= 0:
        band -= 1
    return level[band + 1]


DFT = np.exp(-2j * np.pi * np.outer(np.arange(512), np.arange(480)) / 1024)
