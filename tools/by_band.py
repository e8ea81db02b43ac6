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
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bandsplit.bands import WIDTHS
from bandsplit.stft import BINS, stft
from data.audio import SAMPLE_RATE, AudioError, Signal, read
from data.corpus import find_recordings
from data.utils import DataError, carry_out, show
from data.workers import stop_by_signals
from evaluation.conditions import snr_bins
from evaluation.distortion import snr
from evaluation.signals import MetricError
from evaluation.statistics import Interval, mean_interval

# Bands of the three decoder widths of ablation 3, and all of them.
_BINS = np.array(WIDTHS)
REGIONS = {
    "low": _BINS <= 3,
    "middle": (_BINS > 3) & (_BINS <= 8),
    "high": _BINS > 8,
    "all": _BINS > 0,
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


def compared(clean: Path, noisy: Path, one: Path, other: Path) -> tuple[Array, dict[str, float]]:
    """How much higher the SNR of each band is for `one`, (files, k) in dB, and the noisy SNRs by
    file, in the same order.

    Raises:
        DataError: a folder is empty, or lacks a file of another, or one cannot be decoded.
    """
    folders = [(folder, find_recordings(folder)) for folder in (clean, noisy, one, other)]
    names = sorted(folders[0][1])
    for folder, files in folders:
        if missing := [name for name in names if name not in files]:
            raise DataError(f"{folder} lacks {missing[0]}, which is in {clean} ({len(missing)} do)")
    differences, levels = [], {}
    for name in tqdm(names, desc="comparing", unit="file", disable=None):
        speech, mixed, first, second = (_read(files[name]) for _, files in folders)
        differences.append(band_snr(speech, first) - band_snr(speech, second))
        length = min(len(speech), len(mixed))
        try:
            levels[name] = snr(speech[:length], mixed[:length])
        except MetricError:  # no noise, or no speech: of no bin
            levels[name] = math.nan
    return np.array(differences), levels


def _read(path: Path) -> Signal:
    try:
        return read(path)
    except AudioError as error:
        raise DataError(f"{path}: {error}") from None


def table(differences: Array, levels: Mapping[str, float]) -> str:
    """The means of a comparison by region and noisy SNR, as Markdown."""
    places = {name: place for place, name in enumerate(levels)}
    groups = {"all files": list(levels)} | {
        f"{label} dB": names for label, names in snr_bins(levels).items()
    }
    columns = [f"{label} ({len(names)})" for label, names in groups.items()]
    lines = ["| bands | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, region in REGIONS.items():
        means = _means(differences[:, region])
        cells = [
            _cell(mean_interval(means[None, [places[each] for each in names]]))
            for names in groups.values()
        ]
        lines.append(f"| {name}, {_range(region)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _means(x: Array) -> Array:
    """(n, k) to (n,), over what is not NaN; NaN where all is."""
    counts = np.isfinite(x).sum(axis=1)
    return np.where(counts > 0, np.nansum(x, axis=1) / np.maximum(counts, 1), np.nan)


def _range(region: NDArray[np.bool_]) -> str:
    edges = np.cumsum([0, *WIDTHS]).clip(max=BINS - 1) * SAMPLE_RATE / 2 / (BINS - 1) / 1000
    bands = np.flatnonzero(region)
    return f"{edges[bands[0]]:.1f} to {edges[bands[-1] + 1]:.1f} kHz"


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
