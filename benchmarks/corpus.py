"""The embedded corpus beside real recordings: what training on it lacks shows as a difference here.

    python -m benchmarks.corpus [--split train] [--root DIR ...] [--files N] [--pairs]

A column for the embedded corpus and one for each root: a folder of clean files, or a corpus with
the folders clean and noisy. `--pairs` adds PESQ-WB and STOI of the noisy side, by input SNR.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pesq import pesq
from pystoi import stoi
from scipy.fft import irfft, rfft
from scipy.ndimage import label
from scipy.signal import welch

from data import synthesise
from data.audio import EXTENSIONS, SAMPLE_RATE, read
from data.levels import active_level

_FRAME, _HOP = 640, 160  # 40 and 10 ms
_BANDS = (80, 250, 500, 1000, 2000, 4000, 8000)
Signal = NDArray[np.float64]


def pitch(signal: Signal) -> tuple[Signal, Signal]:
    """F0 in Hz of the voiced frames, and their harmonics-to-noise ratio in dB.

    Boersma's method ("Accurate short-term analysis of the fundamental frequency", IFA Proceedings
    17, 1993) without its path finding: the autocorrelation over that of the window.
    """
    window = np.hanning(_FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_HOP] * window
    power = np.abs(rfft(frames, 2 * _FRAME)) ** 2
    expected = irfft(np.abs(rfft(window, 2 * _FRAME)) ** 2)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 65)
    curve = irfft(power)
    curve = curve[:, lags] / (curve[:, :1] + 1e-12) / (expected[lags] / expected[0])
    best = curve.max(1)
    # The shortest lag that is nearly as good: multiples of the period are as good as itself.
    lag = lags[np.argmax(curve > 0.93 * best[:, None], axis=1)]
    loud = np.square(frames).mean(1) > 1e-2 * np.square(frames).mean(1).max()
    voiced = loud & (best > 0.75)
    strength = np.clip(best[voiced], 0, 0.9999)
    return SAMPLE_RATE / lag[voiced], 10 * np.log10(strength / (1 - strength))


def roughness(signal: Signal) -> float:
    """How far the spectrum between 4 and 7 kHz is one of noise: 1 for noise, less for a buzz.

    The standard deviation of the envelope's derivative in time would do as well; this is the
    coefficient of variation that neighbouring bins of 40 ms spectra have, over that of noise.
    """
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_HOP] * np.hanning(_FRAME)
    loud = np.square(frames).mean(1) > 1e-2 * np.square(frames).mean(1).max()
    power = np.abs(rfft(frames[loud]))[:, 160:280] ** 2
    pulses = np.abs(rfft(power - power.mean(1, keepdims=True), axis=1))[:, 1:]
    return float(np.median(pulses.max(1) / np.sqrt(np.mean(pulses**2, axis=1))))


def describe(signal: Signal) -> dict[str, float]:
    """Figures of one clean utterance."""
    level = active_level(signal)
    frames = signal[: len(signal) // _HOP * _HOP].reshape(-1, _HOP)
    levels = 10 * np.log10(np.square(frames).mean(1) + 1e-12) - level
    speaking = np.flatnonzero(levels > -20)
    inside = levels[speaking[0] : speaking[-1] + 1]
    gaps, count = label(inside < -25)
    lengths = np.bincount(gaps.ravel())[1:] * 0.01
    seconds = len(signal) / SAMPLE_RATE
    found = {
        "seconds": seconds,
        "active level (dBFS)": level,
        "crest (dB)": 20 * np.log10(np.abs(signal).max()) - level,
        "silence before (s)": speaking[0] * 0.01,
        "silence after (s)": (len(levels) - speaking[-1]) * 0.01,
        "share spoken": float(np.mean(inside > -15)),
        "pauses > 80 ms a second": float(np.sum(lengths > 0.08)) / seconds,
        "longest pause (s)": float(lengths.max()) if count else 0.0,
        "floor (dB)": float(np.percentile(levels, 3)),
        "spread of levels (dB)": float(np.std(inside[inside > -25])),
    }
    f0, harmonic = pitch(signal)
    if len(f0) > 20:
        middle = float(np.median(f0))
        found |= {
            "F0 (Hz)": middle,
            "F0 range (semitones, 10 to 90 %)": float(
                np.ptp(12 * np.log2(np.percentile(f0, [10, 90])))
            ),
            "harmonics to noise (dB)": float(np.median(harmonic)),
            "voiced": len(f0) / len(frames),
        }
    found["buzz above 4 kHz"] = roughness(signal)
    frequency, power = welch(signal, SAMPLE_RATE, nperseg=1024)
    total = power[frequency > 80].sum()
    for low, high in pairwise(_BANDS):
        part = power[(frequency >= low) & (frequency < high)].sum()
        found[f"{low} to {high} Hz (dB)"] = 10 * np.log10(part / total)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="train")
    parser.add_argument("--root", nargs="*", type=Path, default=[])
    parser.add_argument("--synthetic", type=Path, default=synthesise.FOLDER)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--pairs", action="store_true")
    options = parser.parse_args()
    roots = [options.synthetic / options.split, *options.root]
    columns, scores = [], []
    for root in roots:
        clean = root / "clean" if (root / "clean").is_dir() else root
        files = sorted(path for path in clean.rglob("*") if path.suffix in EXTENSIONS)
        files = files[:: max(1, len(files) // options.files)]
        signals = [read(path).astype(float) for path in files]
        columns.append([describe(x) for x in signals if len(x) >= 2 * SAMPLE_RATE])
        if options.pairs and (root / "noisy").is_dir():
            scores.append((root, [_score(path, root / "noisy" / path.name) for path in files]))
    print("| | " + " | ".join(root.parent.name + "/" + root.name for root in roots) + " |")
    print("|---|" + "---:|" * len(roots))
    for name in columns[0][0]:
        cells = []
        for column in columns:
            values = [found[name] for found in column if name in found]
            low, middle, high = np.percentile(values, [5, 50, 95])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    for root, found in scores:
        print(f"\n{root}: SNR, files, PESQ-WB, STOI")
        table = np.array(found)
        for snr in np.unique(table[:, 0]):
            rows = table[table[:, 0] == snr]
            print(f"{snr:5.1f} {len(rows):4d} {rows[:, 1].mean():.3f} {rows[:, 2].mean():.3f}")
        print(f"  all {len(table):4d} {table[:, 1].mean():.3f} {table[:, 2].mean():.3f}")


def _score(clean_path: Path, noisy_path: Path) -> tuple[float, float, float]:
    """Input SNR to the nearest 2.5 dB, PESQ-WB, STOI."""
    clean, noisy = read(clean_path).astype(float), read(noisy_path).astype(float)
    snr = active_level(clean) - 10 * np.log10(np.mean(np.square(noisy - clean)))
    return (
        2.5 * round(snr / 2.5),
        pesq(SAMPLE_RATE, clean, noisy, "wb"),
        stoi(clean, noisy, SAMPLE_RATE),
    )


if __name__ == "__main__":
    main()
