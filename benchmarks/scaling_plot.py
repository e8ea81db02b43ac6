"""The picture of the scaling law: time and memory against the length of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.results import where

if TYPE_CHECKING:
    from benchmarks.scaling import Curve

# Okabe and Ito's colours, told apart by all eyes; the markers say the same again.
_LOOKS = {
    "baseline": ("#0072B2", "o"),
    "abl1": ("#E69F00", "s"),
    "abl2": ("#CC79A7", "D"),
    "abl3": ("#009E73", "^"),
}
_GIB = 2**30
_STYLE: Any = {  # matplotlib types it by a list of all the names there are
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}


def draw(path: Path, result: Mapping[str, Any], curves: Sequence[Curve]) -> None:
    """Write a PNG of the curves over clips: training in full lines, enhancement in broken ones.

    result: says where, when and of what code they were measured.
    """
    shown = [curve for curve in curves if curve.axis == "seconds" and curve.points]
    with mpl.rc_context(_STYLE):
        figure = Figure((10, 4.6), dpi=120, layout="constrained", facecolor="white")
        figure.suptitle(f"Batch 1, AMP {result['amp']}", fontsize=11, color="#444444")
        times, memory = figure.subplots(1, 2)
        for curve in shown:
            sizes = [point.size for point in curve.points]
            _line(times, curve, sizes, [point.seconds for point in curve.points])
            _line(memory, curve, sizes, [point.peak / _GIB for point in curve.points])
        for axis, title in ((times, "time (s)"), (memory, "peak memory (GiB)")):
            axis.set(xscale="log", yscale="log", xlabel="length of the clip (s)")
            axis.set_title(title, loc="left", fontsize=12)
            _slope_one(axis)
            ticks = sorted({point.size for curve in shown for point in curve.points})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.xaxis.minorticks_off()
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        handles, labels = times.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=4,
            fontsize=10,
            title=where(result),
            title_fontsize=8,
        )
        FigureCanvasAgg(figure).print_png(path)


def _line(axis: Axes, curve: Curve, sizes: list[float], costs: list[float]) -> None:
    colour, marker = _LOOKS[curve.network]
    training = curve.use == "training"
    axis.plot(
        sizes, costs, marker=marker, color=colour, markersize=6, linewidth=1.8,
        linestyle="-" if training else ":", markerfacecolor=colour if training else "white",
        label=f"{curve.network}, {curve.use}",
    )  # fmt: skip


def _slope_one(axis: Axes) -> None:
    """A dashed line of slope 1, below all that is drawn."""
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in axis.get_lines()]
    points = np.concatenate(lines)
    ends = np.array([points[:, 0].min(), points[:, 0].max()])
    factor = 0.6 * (points[:, 1] / points[:, 0]).min()
    axis.plot(ends, factor * ends, "--", color="#777777", linewidth=1.2, label="slope 1: linear")
