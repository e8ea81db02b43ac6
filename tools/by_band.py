"""Where one system is better than another: by band, and by the SNR of the noisy recording.

    python -m tools.by_band --clean DIR --noisy DIR --one DIR --other DIR

For every file and band, the SNR there of what a system has made: the power of the clean spectrum
to that of the difference, over all frames. Shown is how much higher it is for ONE than for OTHER,
in dB: means over files with 95 % bootstrap intervals, for the bands of abl3's three decoder widths
and by the noisy recording's SNR. A band of a file that is silent in the clean recording does not
count; SNRs are limited to -20 to 40 dB, so that no almost silent band decides a mean.

Status 0: done; 2: something is wrong with the folders; 130: interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bandsplit.bands import BANDS, WIDTHS
from bandsplit.stft import BINS, stft
from data.audio import SAMPLE_RATE, AudioError, Signal, read
from data.console import carry_out, show
from data.errors import DataError
from data.listing import find_recordings
from data.workers import stop_by_signals
from evaluation.statistics import Interval, mean_interval

EDGES = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)  # dB of the noisy; a bin holds its lower edge
# Bands of the three decoder widths of ablation 3, and all of them.
REGIONS = {
    "low": slice(0, 11),
    "middle": slice(11, 23),
    "high": slice(23, BANDS),
    "all": slice(0, BANDS),
}
_LIMITS = (-20.0, 40.0)  # dB
_SILENT = 1e-8  # of the recording's mean power in a band: nothing to be compared

Array = NDArray[np.float64]


def band_snr(clean: Signal, enhanced: Signal) -> Array:
    """The SNR of each band, (k,) in dB, of recordings (s,); NaN where the clean one is silent.

    The longer of the two is cut.
    """
    length = min(len(clean), len(enhanced))
    pair = torch.from_numpy(np.stack([clean[:length], enhanced[:length]]))
    speech, found = stft(pair.double())
    starts = np.cumsum([0, *WIDTHS[:-1]])

    def powers(spectrum: torch.Tensor) -> Array:
        each = spectrum.abs().square().sum(dim=-1).numpy()
        return np.add.reduceat(each, starts)

    signal, error = powers(speech), powers(speech - found)
    audible = signal > _SILENT * signal.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(audible, (10 * np.log10(signal / error)).clip(*_LIMITS), np.nan)


def compared(clean: Path, noisy: Path, one: Path, other: Path) -> tuple[Array, Array]:
    """How much higher the SNR of each band is for `one`, (files, k) in dB, and the noisy SNRs.

    Raises:
        DataError: a folder is empty, or lacks a file of another.
    """
    folders = [(folder, find_recordings(folder)) for folder in (clean, noisy, one, other)]
    names = sorted(folders[0][1])
    for folder, files in folders:
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{folder} lacks {missing[0]}, which is in {clean} ({len(missing)} do)")
    differences, levels = [], []
    for name in tqdm(names, desc="comparing", unit="file", disable=None):
        speech, mixed, first, second = (_read(files[name]) for _, files in folders)
        differences.append(band_snr(speech, first) - band_snr(speech, second))
        length = min(len(speech), len(mixed))
        noise = mixed[:length].astype(float) - speech[:length]
        with np.errstate(divide="ignore"):
            levels.append(10 * np.log10(np.sum(np.square(speech, dtype=float)) / np.sum(noise**2)))
    return np.array(differences), np.array(levels)


def _read(path: Path) -> Signal:
    try:
        return read(path)
    except AudioError as error:
        raise DataError(f"{path}: {error}") from None


def table(differences: Array, levels: Array) -> str:
    """The means of a comparison by region and noisy SNR, as Markdown."""
    bins = [("all files", np.ones(len(levels), bool))]
    for low, high in pairwise((-np.inf, *EDGES, np.inf)):
        inside = (levels >= low) & ((levels < high) | (high == np.inf))
        if inside.any():
            bins.append((f"{low:g} to {high:g} dB", inside))
    lines = ["| bands | " + " | ".join(f"{name} ({inside.sum()})" for name, inside in bins) + " |"]
    lines.append("|---|" + "---:|" * len(bins))
    for name, region in REGIONS.items():
        with np.errstate(invalid="ignore"):
            means = np.nanmean(differences[:, region], axis=1)
        cells = [_cell(mean_interval(means[None, inside])) for _, inside in bins]
        lines.append(f"| {name}, {_range(region)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _range(region: slice) -> str:
    edges = np.cumsum([0, *WIDTHS]) * SAMPLE_RATE / 2 / (BINS - 1)
    return f"{edges[region.start] / 1000:.1f} to {min(edges[region.stop], 8000) / 1000:.1f} kHz"


def _cell(found: Interval | None) -> str:
    if found is None:
        return ""
    interval = f" ({found.low:+.2f} to {found.high:+.2f})" if found.is_sound else ""
    return f"{found.mean:+.2f}{interval}"


def _compare(options: argparse.Namespace) -> int:
    found = compared(options.clean, options.noisy, options.one, options.other)
    show(table(*found))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.by_band",
        description="Where one system is better than another, by band and SNR.",
        allow_abbrev=False,
    )
    for name in ("clean", "noisy", "one", "other"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    return carry_out("by_band", partial(_compare, parser.parse_args(arguments)))


if __name__ == "__main__":
    stop_by_signals()
    raise SystemExit(main())
