"""The plots of scores and of trainings, for the page and as a picture."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from data.utils import replacing
from evaluation.analysis import NOISY, Analysis, Model
from evaluation.conditions import SNR, Breakdown
from evaluation.published import PUBLISHED, TRAINING
from evaluation.scores import METRICS
from evaluation.statistics import Interval

CURVE = "curve.png"
_PESQ = METRICS["pesq_wb"].heading
# Ink, lines and series, of which the first is also that of what matters less. In the page they
# stand for its own colours, which differ by day and by night.
_PRINTED = ("#1b1d21", "#d8dbe0", [
    "#5d636d", "#0b62a8", "#b4470f", "#0f7b5f", "#8a3ba0", "#8a6d00", "#b3265f", "#3b7a1f",
])  # fmt: skip
_PAGE = ("#010101", "#030303", [f"#0404{number:02x}" for number in range(8)])
_VARIABLES = {_PAGE[0]: "--ink", _PAGE[1]: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_PAGE[2])
}
_MUTED = "C0"
_MARKERS = "osD^vPX*"
_LONGEST_NAME = 40

Draw = Callable[..., None]


def plots(analysis: Analysis) -> list[tuple[str, str, str]]:
    """Return the page's plots: titles, captions and SVG elements; those that show something."""
    sources = "; ".join(dict.fromkeys(source for _, source, _ in TRAINING))
    found = [
        (
            "Differences",
            "Mean over the files of each one's difference, with its file interval.",
            _differences(analysis),
        ),
        *((f"PESQ by {x.axis}", "", _by_group(analysis, x, y)) for x, y in analysis.breakdowns),
        (
            "PESQ and size",
            "Crosses are figures from papers, measured on VoiceBank-DEMAND's test set after "
            "training on its training set: they compare with points here only where those were.",
            _against_cost(analysis, "parameters"),
        ),
        (
            "PESQ and computation",
            "Counted by one rule for all systems here. Papers count by others, or not at all: none "
            "of theirs are shown.",
            _against_cost(analysis, "macs_per_second"),
        ),
        (
            "PESQ against crops seen",
            "Validation, on held-out utterances of each run's own training data. Thin: single "
            "seeds. Dotted: public curves, scored on the test set (p232, p257) of the data that "
            "they were trained on (BSRNN: on crops of it), so that only how fast they rise "
            f"compares. Sources: {sources}.",
            _svg((7, 4.6), draw) if (draw := _against_crops(analysis)) else "",
        ),
        ("Training", "As logged while training.", _training(analysis)),
    ]
    return [each for each in found if each[2]]


def write_curve(analysis: Analysis, folder: Path) -> None:
    """Write PESQ over crops seen as curve.png, unless there is nothing to draw.

    Raises:
        OSError: it cannot be written.
    """
    if draw := _against_crops(analysis):
        with _drawn((8, 4.8), draw, 1, _PRINTED) as figure, replacing(folder / CURVE) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


def _svg(size: tuple[float, float], draw: Draw, panels: int = 1) -> str:
    """Return an SVG element. Its colours are the page's variables, its text is text."""
    text = io.StringIO()
    with _drawn(size, draw, panels, _PAGE) as figure:
        for patch in (figure.patch, *(axis.patch for axis in figure.axes)):
            patch.set_visible(False)
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(text, metadata=metadata)
    element = text.getvalue()
    # Without its style, which would be that of the whole page (the page has it for its plots).
    element = re.sub(r"<style.*?</style>", "", element[element.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)  # names that every plot would have
    for colour, variable in _VARIABLES.items():
        element = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", element)
    return element


def colour_of(analysis: Analysis, model: Model) -> int:
    """Return the number of a model's colour; 0, a grey, is that of the noisy recordings alone."""
    if model.name == NOISY:
        return 0
    return 1 + analysis.enhancing.index(model) % 7


@contextmanager
def _drawn(size: tuple[float, float], draw: Draw, panels: int, colours: Any) -> Iterator[Figure]:
    """Draw a figure with one legend below it, to be written inside the context."""
    ink, line, series = colours
    style: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor"), ink),
        **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), ink),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), line),
        **dict.fromkeys(("xtick.color", "ytick.color"), series[0]),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
        **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
        "axes.prop_cycle": cycler(color=series),
        "font.family": ["sans-serif"],
        "grid.linewidth": 0.6,
        "legend.fontsize": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "plots",  # the same plot has the same identifiers in every run
        "text.parse_math": False,  # names are text, whatever signs they are made of
    }
    # A font may lack what a name is written in.
    with warnings.catch_warnings(), mpl.rc_context(style):
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(size, layout="constrained")
        draw(*figure.subplots(1, panels, squeeze=False)[0])
        named: dict[str, Any] = {}  # seeds of one model have one name
        for axis in figure.axes:
            handles, labels = axis.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        if named:
            columns = max(1, 90 // (8 + max(map(len, named))))
            figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)
        yield figure


def _style_of(analysis: Analysis, model: Model) -> dict[str, Any]:
    number = colour_of(analysis, model)
    return {"color": f"C{number}", "marker": _MARKERS[number], "markersize": 5}


def _shown(name: str) -> str:
    """Return a name as a plot can show it: of valid text, on one line, not of a page's length."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    return f" {text}" if text.startswith("_") else text  # matplotlib lists no "_name"


def _error(means: Sequence[Interval]) -> list[list[float]]:
    """Return the lengths of error bars, down and up; none where an interval says nothing."""
    sides = [(x.mean - x.low, x.high - x.mean) if x.is_sound else (0.0, 0.0) for x in means]
    return [list(side) for side in zip(*sides, strict=True)]


def _differences(analysis: Analysis) -> str:
    """Draw each system's difference to the baseline with its interval, below one another."""
    found = [
        (pair.other, comparison.difference)
        for pair in reversed(analysis.comparisons)
        if (comparison := pair.comparisons["pesq_wb"])
    ]

    def draw(axis: Axes) -> None:
        for place, (model, mean) in enumerate(found):
            style = _style_of(analysis, model)
            axis.errorbar(
                [mean.mean], [place], xerr=_error([mean]), capsize=3, linewidth=1.8, **style
            )
        axis.axvline(0, color=mpl.rcParams["text.color"], linewidth=1)
        axis.set_yticks(range(len(found)), [_shown(model.name) for model, _ in found])
        axis.set_ylim(-0.6, len(found) - 0.4)
        axis.grid(axis="y", visible=False)
        baseline = _shown(analysis.baseline.name)
        axis.set_xlabel(f"difference of {_PESQ} to {baseline}, 95 % file interval")

    return _svg((7, 1.1 + 0.36 * len(found)), draw) if found else ""


def _by_group(
    analysis: Analysis, breakdown: Breakdown, means: Mapping[str, Mapping[str, Interval | None]]
) -> str:
    """Draw PESQ by the groups of a breakdown: lines over SNR, points over words."""
    labels = list(breakdown.groups)

    def draw(axis: Axes) -> None:
        step = 0.5 / len(analysis.models)
        for place, model in enumerate(analysis.models):
            points = [(x, m) for x, y in enumerate(labels) if (m := means[model.name][y])]
            if points:
                shift = (place - (len(analysis.models) - 1) / 2) * step
                axis.errorbar(
                    [x + shift for x, _ in points],
                    [mean.mean for _, mean in points],
                    yerr=_error([mean for _, mean in points]),
                    linestyle="-" if breakdown.axis == SNR else "none",
                    linewidth=1.4,
                    capsize=2,
                    label=_shown(model.name),
                    **_style_of(analysis, model),
                )
        tilted: Any = {"rotation": 30, "ha": "right"} if sum(map(len, labels)) > 50 else {}
        axis.set_xticks(range(len(labels)), [_shown(label) for label in labels], **tilted)
        axis.set_xlabel(breakdown.axis)
        axis.set_ylabel(_PESQ)
        axis.grid(axis="x", visible=False)

    return _svg((7, 3.8), draw)


def _against_cost(analysis: Analysis, fact: str) -> str:
    """Draw PESQ against "parameters", with systems of papers, or "macs_per_second"."""
    found = [
        (model, model.facts[fact], mean)
        for model in analysis.enhancing
        if fact in model.facts and (mean := model.means["pesq_wb"])
    ]
    sized = fact == "parameters"
    scale = 1e6 if sized else 1e9

    def draw(axis: Axes) -> None:
        for model, cost, mean in found:
            label, style = _shown(model.name), _style_of(analysis, model)
            axis.errorbar([cost / scale], [mean.mean], yerr=_error([mean]), label=label, **style)
        if sized:
            _published(axis)
            sizes = [cost / scale for _, cost, _ in found]
            axis.set_xlim(min(0.5, 0.7 * min(sizes)), max(16, 1.4 * max(sizes)))
        axis.set_xlabel(
            "parameters (millions)" if sized else "multiply-accumulates a second of audio (GMAC)"
        )
        axis.set_ylabel(_PESQ)

    return _svg((7, 4.4 if sized else 3.2), draw) if found else ""


def _published(axis: Axes) -> None:
    """Draw systems of papers over a logarithmic axis of millions of parameters."""
    known = sorted(((row[2], row[1], row[0]) for row in PUBLISHED), reverse=True)
    pesqs, sizes, _ = zip(*known, strict=True)
    label = "published, on VoiceBank-DEMAND"
    axis.plot(sizes, pesqs, "x", color=_MUTED, markersize=5, label=label)
    line = {"arrowstyle": "-", "color": mpl.rcParams["grid.color"], "linewidth": 0.7}
    for place, (pesq, size, name) in enumerate(known):
        axis.annotate(
            f"{name} {pesq:.2f}", (size, pesq), (1.03, 0.97 - 0.075 * place),
            textcoords="axes fraction", fontsize=8, color=_MUTED, va="center", arrowprops=line,
            annotation_clip=False,
        )  # fmt: skip
    axis.set_xscale("log")
    ticks = [2.0**power for power in range(-8, 9)]
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def _against_crops(analysis: Analysis) -> Draw | None:
    """Return what draws PESQ in validation over the crops that a run has seen, by public curves.

    Of several seeds, the thin lines are each one's and the thick one is their mean, where all of
    them were validated.
    """
    found = {
        model.name: runs
        for model in analysis.models
        if (runs := [
            {step * system.facts["crops_per_step"]: pesq for step, pesq in points}
            for system in model.systems
            if (points := _logged(system.log, "valid", "pesq_wb"))
        ])
    }  # fmt: skip

    def draw(axis: Axes) -> None:
        for name, _, points in TRAINING:
            xs = [500 * (low + high) for low, high, _ in points]
            widths = [500 * (high - low) for low, high, _ in points]
            axis.errorbar(
                xs, [pesq for *_, pesq in points], xerr=widths, color=_MUTED, linestyle=":",
                linewidth=1, marker=".", markersize=4,
            )  # fmt: skip
            axis.annotate(
                name, (xs[-1], points[-1][2]), (6, -3), textcoords="offset points", fontsize=8,
                color=_MUTED, annotation_clip=False,
            )  # fmt: skip
        for model in analysis.models:
            runs = found.get(model.name, [])
            style = _style_of(analysis, model)
            for run in runs if len(runs) > 1 else ():
                axis.plot(list(run), list(run.values()), color=style["color"], linewidth=0.6)
            if runs:
                common = [x for x in runs[0] if all(x in run for run in runs)]
                means = [sum(run[x] for run in runs) / len(runs) for x in common]
                axis.plot(common, means, linewidth=1.8, label=_shown(model.name), **style)
        axis.set_xscale("log")
        axis.set_xlim(right=3 * axis.get_xlim()[1])  # room for the names
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.minorticks_off()
        axis.set_xlabel("two-second crops seen in training")
        axis.set_ylabel(f"{_PESQ}, validation")
        title = "Dotted: public curves of in-domain training, on VoiceBank-DEMAND's test set"
        axis.set_title(title, fontsize=8, loc="left", color=_MUTED)

    return draw if found else None


def _training(analysis: Analysis) -> str:
    """Draw PESQ on held-out utterances, and the training loss, over the steps of each run."""
    panels = [
        (title, curves)
        for title, group, name in (
            ("PESQ-WB on held-out utterances", "valid", "pesq_wb"),
            ("training loss", "train", "loss"),
        )
        if (curves := [
            (model, points)
            for model in analysis.models
            for system in model.systems
            if (points := _logged(system.log, group, name))
        ])
    ]  # fmt: skip

    def draw(*axes: Axes) -> None:
        for axis, (title, curves) in zip(axes, panels, strict=True):
            for model, points in curves:
                style = _style_of(analysis, model) | {"marker": "o" if len(points) < 40 else ""}
                axis.plot(
                    *zip(*points, strict=True), linewidth=1.4, label=_shown(model.name), **style
                )
            axis.set_title(title, fontsize=10, loc="left")
            axis.set_xlabel("step")

    return _svg((7, 3.3), draw, len(panels)) if panels else ""


def _logged(log: Sequence[Any], group: str, name: str) -> list[tuple[int, float]]:
    """Return (step, value) wherever a training log has the value."""
    found = [(line["step"], line.get(group, {}).get(name)) for line in log]
    return [(step, value) for step, value in found if value is not None]
