"""The plots of scores and of trainings, for the page and as a picture."""

import io
from collections.abc import Mapping
from functools import partial
from itertools import count
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
from bsbimamba.report.analysis import NOISY, SNR, Analysis, Model
from bsbimamba.utils import replacing

# Curves of other projects; the file says where they are from.
TRAINING = pd.read_csv(Path(__file__).with_name("curves.csv"), comment="#")
_PESQ = METRICS["pesq_wb"].heading
# Of the noisy recordings and of what matters less, then those of the other models.
_MUTED = "#5d636d"
_SERIES = ("#0b62a8", "#b4470f", "#0f7b5f", "#8a3ba0", "#8a6d00", "#b3265f", "#3b7a1f")
_MARKERS = "sD^vPX*"
_SMALL: Any = {"fontsize": 8, "color": _MUTED}
_STYLE: Any = {
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), "#d8dbe0"),
    "svg.fonttype": "none",
    "svg.hashsalt": "plots",  # the same plot has the same identifiers in every run
    "text.parse_math": False,  # names are text, whatever signs they are made of
}
_CROPS = (
    "On held-out utterances of each run's training data, a line a seed. Dotted: public curves "
    "on the test set of what they trained on (BSRNN: crops): only how fast they rise compares. "
    f"Sources: {'; '.join(TRAINING['source'].unique())}"
)


def plots(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Return the page's plots that show something: titles, captions and SVG images."""
    differences = {
        x.other.name: {f"difference to {analysis.baseline.name}": found.difference}
        for x in analysis.comparisons
        if (found := x.comparisons["pesq_wb"])
    }
    wanted: list[tuple[str, str, Any]] = [
        ("Differences", "", partial(_by_group, what="", means=differences)),
        *(
            (f"PESQ by {x.axis}", "", partial(_by_group, what=x.axis, means=x.pesq_wb))
            for x in analysis.breakdowns
        ),
        ("PESQ against crops seen", _CROPS, _against_crops),
    ]
    drawn = [(title, caption, _drawn(analysis, draw, "svg")) for title, caption, draw in wanted]
    return [(title, caption, image.decode()) for title, caption, image in drawn if image]


def write_curve(analysis: Analysis, folder: Path) -> None:
    """Write PESQ over crops seen as curve.png, unless there is nothing to draw."""
    if image := _drawn(analysis, _against_crops, "png"):
        with replacing(folder / "curve.png") as temporary:
            temporary.write_bytes(image)


def style_of(analysis: Analysis, model: Model) -> dict[str, Any]:
    """Return how a model is drawn; a grey is the colour of the noisy recordings alone."""
    colour, marker = _MUTED, "o"
    if model.name != NOISY:
        place = analysis.enhancing.index(model) % len(_SERIES)
        colour, marker = _SERIES[place], _MARKERS[place]
    return {"color": colour, "marker": marker, "markersize": 5, "label": model.name}


@mpl.rc_context(_STYLE)
def _drawn(analysis: Analysis, draw: Any, kind: str) -> bytes:
    """Return a plot with its legend below as an image; b"" where nothing was drawn."""
    figure, image = Figure((7, 4.4), layout="constrained"), io.BytesIO()
    axis = figure.subplots()
    draw(analysis, axis)
    if not axis.has_data():
        return b""
    if labels := axis.get_legend_handles_labels()[1]:
        columns = max(1, 90 // (8 + max(map(len, labels))))
        figure.legend(loc="outside lower center", ncols=columns)
    figure.savefig(image, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return image.getvalue()


def _by_group(
    analysis: Analysis, axis: Axes, what: str, means: Mapping[str, Mapping[str, Interval | None]]
) -> None:
    """Draw PESQ by model and group with its intervals: lines over SNR, points over words."""
    known = [model for model in analysis.models if model.name in means]
    for number, model in enumerate(known):
        shift = (number - (len(known) - 1) / 2) * 0.5 / len(known)
        groups = zip(count(shift), means[model.name].values(), strict=False)
        if points := {place: mean for place, mean in groups if mean}:
            found = points.values()
            sides = [(x.mean - x.low, x.high - x.mean) if x.is_sound else (0, 0) for x in found]
            style = style_of(analysis, model) | {"linestyle": "-" if what == SNR else "none"}
            values = [x.mean for x in found]
            axis.errorbar(list(points), values, yerr=np.transpose(sides), capsize=2, **style)
    if known and not what:
        axis.axhline(0, color="black", linewidth=1)
    labels = list(next(iter(means.values()), ()))
    axis.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 8 else 0)
    axis.set_xlabel(what)
    axis.set_ylabel(_PESQ)


def _against_crops(analysis: Analysis, axis: Axes) -> None:
    """Draw PESQ in validation over the crops that a run has seen, beside public curves."""
    for model in analysis.models:
        style = style_of(analysis, model) | {"marker": ".", "markersize": 3}
        for system in model.systems:
            values = {x["step"]: x.get("valid", {}).get("pesq_wb") for x in system.log}
            logged = pd.Series(values, dtype=float).dropna()
            if len(logged):
                axis.plot(logged.index * system.facts["crops_per_step"], logged, **style)
                style["label"] = None  # one entry of the legend is enough
    if not axis.has_data():
        return
    grey: Any = {"color": _MUTED, "linestyle": ":", "linewidth": 1, "marker": "."}
    for name, points in TRAINING.groupby("name", sort=False):
        low, high, ys = points[["from", "to", "PESQ-WB"]].to_numpy().T
        xs = 500 * (low + high)
        axis.errorbar(xs, ys, xerr=500 * (high - low), **grey)
        axis.annotate(name, (xs[-1], ys[-1]), (6, -3), textcoords="offset points", **_SMALL)
    axis.set_xscale("log")
    axis.set_xlim(right=3 * axis.get_xlim()[1])  # room for the names
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.minorticks_off()
    axis.set_xlabel("two-second crops seen in training")
    axis.set_ylabel(f"{_PESQ}, validation")
    axis.set_title("Dotted: public curves, on VoiceBank-DEMAND's test set", loc="left", **_SMALL)
