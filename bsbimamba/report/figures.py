"""The plots of scores and of trainings, for the page and as a picture; figures of other systems."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import Interval
from bsbimamba.report.analysis import NOISY, SNR, Analysis, Breakdown, Model, System
from bsbimamba.utils import replacing

# Figures of other projects; the files say where they are from.
PUBLISHED = pd.read_csv(Path(__file__).with_name("published.csv"), comment="#")
TRAINING = pd.read_csv(Path(__file__).with_name("curves.csv"), comment="#")
CURVE = "curve.png"
_PESQ = METRICS["pesq_wb"].heading
# Of the noisy recordings and of what matters less, then those of the other models.
_MUTED = "#5d636d"
_SERIES = ("#0b62a8", "#b4470f", "#0f7b5f", "#8a3ba0", "#8a6d00", "#b3265f", "#3b7a1f")
_MARKERS = "sD^vPX*"
_STYLE: Any = {
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), "#d8dbe0"),
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "plots",  # the same plot has the same identifiers in every run
    "text.parse_math": False,  # names are text, whatever signs they are made of
}
_MEANS = "Mean over the files of each one's difference, with its file interval."
_SIZE = (
    "Crosses are figures from papers, measured on VoiceBank-DEMAND's test set after training on "
    "its training set: they compare with points here only where those were."
)
_MACS = "multiply-accumulates a second of audio (GMAC)"
_COMPUTATION = (
    "Counted by one rule for all systems here. Papers count by others, or not at all: none of "
    "theirs are shown."
)
_CROPS = (
    "Validation, on held-out utterances of each run's own training data. Thin: single seeds. "
    "Dotted: public curves, scored on the test set (p232, p257) of the data that they were trained "
    "on (BSRNN: on crops of it), so that only how fast they rise compares. Sources: "
    + "; ".join(TRAINING["source"].unique())
)


@mpl.rc_context(_STYLE)
def plots(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Return the page's plots that show something: titles, captions and SVG images."""
    computation = partial(_against_fact, fact="macs_per_second", unit=1e9, what=_MACS)
    groups = [
        (f"PESQ by {x.axis}", "", partial(_by_group, breakdown=x), 3.8) for x in analysis.breakdowns
    ]
    found = []
    for title, caption, draw, height in (
        ("Differences", _MEANS, _differences, 1.1 + 0.36 * len(analysis.comparisons)),
        *groups,
        ("PESQ and size", _SIZE, _against_size, 4.4),
        ("PESQ and computation", _COMPUTATION, computation, 3.2),
        ("PESQ against crops seen", _CROPS, _against_crops, 4.6),
        ("Training loss", "As logged while training.", _training_loss, 3.3),
    ):
        if figure := _drawn(analysis, draw, (7, height)):
            image = io.StringIO()
            figure.savefig(image, format="svg", metadata={"Date": None})
            found.append((title, caption, image.getvalue()))
    return found


@mpl.rc_context(_STYLE)
def write_curve(analysis: Analysis, folder: Path) -> None:
    """Write PESQ over crops seen as curve.png, unless there is nothing to draw.

    Raises:
        OSError: it cannot be written.
    """
    if figure := _drawn(analysis, _against_crops, (8, 4.8)):
        with replacing(folder / CURVE) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def style_of(analysis: Analysis, model: Model) -> dict[str, Any]:
    """Return how a model is drawn; a grey is the colour of the noisy recordings alone."""
    colour, marker = _MUTED, "o"
    if model.name != NOISY:
        place = analysis.enhancing.index(model) % len(_SERIES)
        colour, marker = _SERIES[place], _MARKERS[place]
    return {"color": colour, "marker": marker, "markersize": 5, "label": model.name}


def _drawn(analysis: Analysis, draw: Any, size: tuple[float, float]) -> Figure | None:
    """Return a figure with its legend below; None where nothing was drawn."""
    figure = Figure(size, layout="constrained")
    axis = figure.subplots()
    draw(analysis, axis)
    if not axis.has_data():
        return None
    if labels := axis.get_legend_handles_labels()[1]:
        columns = max(1, 90 // (8 + max(map(len, labels))))
        figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _draw(
    axis: Axes, places: Sequence[float], means: Sequence[Interval], flat: bool = False, **style: Any
) -> None:
    """Draw means with their intervals, upright or flat; none where an interval says nothing."""
    sides = [(x.mean - x.low, x.high - x.mean) if x.is_sound else (0.0, 0.0) for x in means]
    values, error = [x.mean for x in means], np.transpose(sides)
    if flat:
        axis.errorbar(values, places, xerr=error, capsize=3, **style)
    else:
        axis.errorbar(places, values, yerr=error, capsize=2, **style)


def _differences(analysis: Analysis, axis: Axes) -> None:
    """Draw each system's difference to the baseline with its interval, below one another."""
    names: list[str] = []
    for pair in reversed(analysis.comparisons):
        if comparison := pair.comparisons["pesq_wb"]:
            style = style_of(analysis, pair.other) | {"label": None}
            _draw(axis, [len(names)], [comparison.difference], flat=True, **style)
            names.append(pair.other.name)
    if names:
        axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlabel(f"difference of {_PESQ} to {analysis.baseline.name}, 95 % file interval")


def _by_group(analysis: Analysis, axis: Axes, breakdown: Breakdown) -> None:
    """Draw PESQ by the groups of a breakdown: lines over SNR, points over words."""
    labels, count = list(breakdown.groups), len(analysis.models)
    line = "-" if breakdown.axis == SNR else "none"
    for number, model in enumerate(analysis.models):
        shift = (number - (count - 1) / 2) * 0.5 / count
        means = breakdown.pesq_wb[model.name].values()
        points = {place + shift: mean for place, mean in enumerate(means) if mean}
        if points:
            style = style_of(analysis, model) | {"linestyle": line}
            _draw(axis, list(points), list(points.values()), **style)
    axis.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 8 else 0)
    axis.set_xlabel(breakdown.axis)
    axis.set_ylabel(_PESQ)


def _against_size(analysis: Analysis, axis: Axes) -> None:
    """Draw PESQ against millions of parameters, with systems of papers."""
    sizes = _against_fact(analysis, axis, "parameters", 1e6, "parameters (millions)")
    if not sizes:
        return
    known = PUBLISHED.sort_values("PESQ-WB", ascending=False)
    label = "published, on VoiceBank-DEMAND"
    axis.plot("parameters (M)", "PESQ-WB", "x", data=known, color=_MUTED, label=label)
    line = {"arrowstyle": "-", "color": mpl.rcParams["grid.color"], "linewidth": 0.7}
    names = zip(known["system"], known["parameters (M)"], known["PESQ-WB"], strict=True)
    for place, (name, size, pesq) in enumerate(names):
        axis.annotate(
            f"{name} {pesq:.2f}", (size, pesq), (1.03, 0.97 - 0.075 * place),
            textcoords="axes fraction", fontsize=8, color=_MUTED, va="center", arrowprops=line,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xlim(min(0.5, 0.7 * min(sizes)), max(16, 1.4 * max(sizes)))
    axis.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
    axis.minorticks_off()


def _against_fact(analysis: Analysis, axis: Axes, fact: str, unit: float, what: str) -> list[float]:
    """Draw PESQ against a fact of each network, and return its values in this unit."""
    values = []
    for model in analysis.enhancing:
        value = model.fact(fact) / unit
        if np.isfinite(value) and (mean := model.means["pesq_wb"]):
            values.append(value)
            _draw(axis, [value], [mean], **style_of(analysis, model))
    axis.set_xlabel(what)
    axis.set_ylabel(_PESQ)
    return values


def _against_crops(analysis: Analysis, axis: Axes) -> None:
    """Draw PESQ in validation over the crops that a run has seen, beside public curves.

    Of several seeds, the thin lines are each one's and the thick one is their mean, where all of
    them were validated.
    """
    for model in analysis.models:
        runs = [
            pesq.set_axis(pesq.index * system.facts["crops_per_step"])
            for system in model.systems
            if len(pesq := _logged(system, "valid", "pesq_wb"))
        ]
        style = style_of(analysis, model)
        for run in runs if len(runs) > 1 else ():
            axis.plot(run, color=style["color"], linewidth=0.6)
        if runs:
            axis.plot(pd.concat(runs, axis=1).dropna().mean(axis=1), linewidth=1.8, **style)
    if not axis.has_data():
        return
    grey: Any = {"color": _MUTED, "linestyle": ":", "linewidth": 1, "marker": "."}
    for name, points in TRAINING.groupby("name", sort=False):
        low, high, ys = points[["from", "to", "PESQ-WB"]].to_numpy().T
        xs = 500 * (low + high)
        axis.errorbar(xs, ys, xerr=500 * (high - low), **grey)
        end = (xs[-1], ys[-1])
        axis.annotate(name, end, (6, -3), textcoords="offset points", fontsize=8, color=_MUTED)
    axis.set_xscale("log")
    axis.set_xlim(right=3 * axis.get_xlim()[1])  # room for the names
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.minorticks_off()
    axis.set_xlabel("two-second crops seen in training")
    axis.set_ylabel(f"{_PESQ}, validation")
    title = "Dotted: public curves of in-domain training, on VoiceBank-DEMAND's test set"
    axis.set_title(title, fontsize=8, loc="left", color=_MUTED)


def _training_loss(analysis: Analysis, axis: Axes) -> None:
    for model in analysis.models:
        style = style_of(analysis, model) | {"marker": ""}
        for system in model.systems:
            if len(loss := _logged(system, "train", "loss")):
                axis.plot(loss, **style)
                style["label"] = None  # one entry of the legend is enough
    axis.set_xlabel("step")


def _logged(system: System, group: str, name: str) -> pd.Series:
    """Return a value of a training log by step, wherever it has one."""
    values = {line["step"]: line.get(group, {}).get(name) for line in system.log}
    return pd.Series(values, dtype=float).dropna()
