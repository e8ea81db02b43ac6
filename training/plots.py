"""Pictures of a run: spectrograms of its samples, curves of its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE
from evaluation.signals import FLOOR_DB, levels

PLOT = "history.png"


def spectrograms(recordings: Mapping[str, NDArray]) -> NDArray[np.uint8]:
    """A picture (height, width, 3) of recordings (s,) by name, above one another, on one scale."""
    figure = Figure((8, 2 * len(recordings) + 0.6), dpi=90)
    figure.subplots_adjust(0.08, 0.09, 0.99, 0.98, hspace=0.1)
    axes = np.atleast_1d(figure.subplots(len(recordings), 1, sharex=True))
    for axis, (name, level) in zip(axes, levels(recordings).items(), strict=True):
        seconds = len(recordings[name]) / SAMPLE_RATE
        picture = axis.imshow(
            level, origin="lower", aspect="auto", cmap="magma", vmin=FLOOR_DB, vmax=0,
            extent=(0, seconds, 0, SAMPLE_RATE / 2000),
        )  # fmt: skip
        axis.set_ylabel(f"{name}\nkHz")
    axes[-1].set_xlabel("s")
    figure.colorbar(picture, ax=list(axes), label="dB", shrink=0.8, pad=0.02)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def plot_history(path: Path, title: str, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the curves of a run's `metrics.jsonl` to a PNG file: losses, PESQ, rate, speed.

    lines: the file's lines, read. Steps that were left out and rollbacks are marked.
    """
    figure = Figure((11, 7), layout="constrained")
    figure.suptitle(title)
    (losses, scores), (rates, speeds) = figure.subplots(2, 2)
    train = [line for line in lines if "train" in line]
    for name in ("loss", "discriminator"):
        _curve(losses, train, "train", name, name)
    losses.set(title="loss", yscale="log")
    _curve(scores, train, "train", "pesq", "training crops", alpha=0.4)
    valid = [line for line in lines if "valid" in line]
    _curve(scores, valid, "valid", "pesq_wb", "held out", marker="o")
    _curve(scores, valid, "valid", "noisy_pesq_wb", "held out, noisy", linestyle="--")
    scores.set(title="PESQ-WB")
    _curve(rates, train, "train", "learning_rate", "learning rate")
    _curve(rates, train, "train", "grad_norm", "gradient norm")
    rates.set(title="learning rate, gradient norm", yscale="log")
    _curve(speeds, [line for line in lines if "speed" in line], "speed", "crops_per_second",
           "crops/s")  # fmt: skip
    speeds.set(title="speed")
    for axis in (losses, scores, rates, speeds):
        for kind, colour in (("skipped", "tab:orange"), ("rollback", "tab:red")):
            for number, line in enumerate(x for x in lines if kind in x):
                label = kind if number == 0 else None
                axis.axvline(line["step"], color=colour, alpha=0.5, linewidth=1, label=label)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=110)


def _curve(
    axis: Any, lines: Sequence[Mapping[str, Any]], group: str, name: str, label: str, **style: Any
) -> None:
    points = [
        (line["step"], value) for line in lines if (value := line[group].get(name)) is not None
    ]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2, **style)
