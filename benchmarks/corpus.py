"""The embedded corpus beside recordings: what it lacks shows as a difference.

    python -m benchmarks.corpus [--synthetic DIR] [--split train] [--root DIR ...] [--files N]

A column for the embedded corpus and one for each root: a folder of clean files, or one that holds
the folders clean and noisy, of whose pairs PESQ-WB and STOI are told by input SNR. A cell is the
median over the files of 2 s or more, and the range from the 5th to the 95th percentile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.ndimage import label
from scipy.signal import welch

from data import synthesise
from data.audio import SAMPLE_RATE, find_audio, read
from data.levels import active_level
from data.sound import Signal, filtered
from evaluation.intelligibility import stoi_pystoi
from evaluation.metrics import pesq_wb

_FRAME, _HOP = 640, 160  # 40 and 10 ms
_BANDS = (80, 250, 500, 1000, 2000, 4000, 8000)


def pitch(signal: Signal) -> tuple[Signal, Signal, Signal]:
    """Of the voiced frames: F0 in Hz, the harmonics-to-noise ratio in dB, and that above 4 kHz.

    Boersma's method ("Accurate short-term analysis of the fundamental frequency", IFA Proceedings
    17, 1993) without its path finding: the autocorrelation over that of the window.
    """
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 65)
    curve, energy = _autocorrelation(signal, lags)
    best = curve.max(1)
    voiced = (energy > 0.01 * energy.max()) & (best > 0.75)
    curve, best = curve[voiced], best[voiced]
    # The shortest lag that is nearly as good: multiples of the period are as good as itself.
    at = np.argmax(curve > 0.93 * best[:, None], axis=1)
    high, _ = _autocorrelation(filtered(signal, SAMPLE_RATE, lambda f: (f > 4000) * 1.0), lags)
    # A lag is a whole number of samples, a wide peak of the envelope several of those.
    near = np.clip(at[:, None] + np.arange(-4, 5), 0, len(lags) - 1)
    around = np.take_along_axis(high[voiced], near, 1)
    return SAMPLE_RATE / lags[at], _ratio(best), _ratio(around.max(1, initial=0.0))


def _autocorrelation(signal: Signal, lags: NDArray[np.int64]) -> tuple[Signal, Signal]:
    """Of every frame at `lags`, 1 for a periodic signal, (frame, lag); and the frames' energies."""
    window = np.hanning(_FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_HOP] * window
    curve = irfft(np.abs(rfft(frames, 2 * _FRAME)) ** 2)
    expected = irfft(np.abs(rfft(window, 2 * _FRAME)) ** 2)
    curve /= expected / expected[0]
    return curve[:, lags] / (curve[:, :1] + 1e-12), curve[:, 0]


def _ratio(strength: Signal) -> Signal:
    """Periodic to other energy in dB, of autocorrelations at the period."""
    strength = np.clip(strength, 1e-3, 1 - 1e-3)
    return 10 * np.log10(strength / (1 - strength))


def describe(signal: Signal) -> dict[str, float]:
    """Figures of one clean utterance."""
    level = active_level(signal)
    frames = signal[: len(signal) // _HOP * _HOP].reshape(-1, _HOP)
    levels = 10 * np.log10(np.square(frames).mean(1) + 1e-12) - level
    speaking = np.flatnonzero(levels > -20)
    inside = levels[speaking[0] : speaking[-1] + 1]
    pauses, count = label(inside < -25)
    lengths = 0.01 * np.bincount(pauses.ravel())[1:]
    seconds = len(signal) / SAMPLE_RATE
    found = {
        "seconds": seconds,
        "active level (dBFS)": level,
        "crest factor (dB)": 20 * np.log10(np.abs(signal).max()) - level,
        "silence before (s)": 0.01 * speaking[0],
        "silence after (s)": 0.01 * (len(levels) - speaking[-1]),
        "share of frames above -15 dB": float(np.mean(inside > -15)),
        "spread of levels above -25 dB (dB)": float(np.std(inside[inside > -25])),
        "pauses of 80 ms and more, a second": float(np.sum(lengths > 0.08)) / seconds,
        "longest pause (s)": float(lengths.max()) if count else 0.0,
        "noise floor (dB)": float(np.percentile(levels, 3)),
    }
    f0, harmonic, high = pitch(signal)
    if len(f0) > 20:
        found |= {
            "F0 (Hz)": float(np.median(f0)),
            "F0 range (semitones, 10 to 90 %)": float(
                np.ptp(12 * np.log2(np.percentile(f0, [10, 90])))
            ),
            "voiced": len(f0) / len(frames),
            "harmonics to noise (dB)": float(np.median(harmonic)),
            "the same above 4 kHz (dB)": float(np.median(high)),
        }
    frequency, power = welch(signal, SAMPLE_RATE, nperseg=1024)
    for low, high_edge in pairwise(_BANDS):
        part = power[(frequency >= low) & (frequency < high_edge)].sum()
        found[f"{low} to {high_edge} Hz (dB)"] = 10 * np.log10(part / power[frequency > 80].sum())
    return found


def scores(clean: Signal, noisy: Signal) -> tuple[float, float, float]:
    """Input SNR to the nearest 2.5 dB, PESQ-WB, STOI."""
    snr = active_level(clean) - 10 * np.log10(np.mean(np.square(noisy - clean)))
    return 2.5 * round(snr / 2.5), pesq_wb(clean, noisy), stoi_pystoi(clean, noisy)


def _print_table(names: Sequence[str], columns: Sequence[Sequence[dict[str, float]]]) -> None:
    print("| | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for figure in columns[0][0]:
        cells = []
        for column in columns:
            values = [found[figure] for found in column if figure in found]
            low, middle, high = np.percentile(values, [5, 50, 95])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {figure} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--synthetic", type=Path, default=synthesise.FOLDER)
    parser.add_argument("--split", default="train", help="of the embedded corpus")
    parser.add_argument("--root", nargs="*", type=Path, default=[])
    parser.add_argument("--files", type=int, default=100, help="most files of each")
    options = parser.parse_args()
    names, columns = [], []
    for root in [options.synthetic / options.split, *options.root]:
        clean = root / "clean" if (root / "clean").is_dir() else root
        files = find_audio(clean)
        noisy = find_audio(root / "noisy") if (root / "noisy").is_dir() else {}
        figures, pairs = [], []
        for name in list(files)[:: max(1, len(files) // options.files)]:
            signal = read(files[name]).astype(float)
            if len(signal) >= 2 * SAMPLE_RATE:
                figures.append(describe(signal))
                if name in noisy:
                    pairs.append(scores(signal, read(noisy[name]).astype(float)))
        names.append("/".join(root.parts[-2:]))
        columns.append(figures)
        for snr in sorted({pair[0] for pair in pairs}):
            level = np.array([pair[1:] for pair in pairs if pair[0] == snr])
            print(f"{names[-1]}, {snr} dB, {len(level)} files: PESQ-WB, STOI", level.mean(0))
        if pairs:
            print(f"{names[-1]}: PESQ-WB, STOI", np.array(pairs)[:, 1:].mean(0))
    _print_table(names, columns)


if __name__ == "__main__":
    main()
