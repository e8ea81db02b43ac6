"""The plots of the page, as SVG in the colours of the page it stands in. Free of torch."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from evaluation.analysis import Analysis
from evaluation.conditions import SNR
from evaluation.metrics import METRICS
from evaluation.models import NOISY, Model
from evaluation.published import PUBLISHED
from evaluation.statistics import Interval

# Colours that stand for the page's own, which differ by day and by night.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = [f"#0404{number:02x}" for number in range(8)]
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}
_STYLE: Any = {  # matplotlib types it by a list of all the names there are
    "svg.fonttype": "none",
    # Identifiers are hashes of what they stand for: the same in every run, and two that are the
    # same on one page stand for the same.
    "svg.hashsalt": "plots",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Names are text, whatever signs they are made of.
    "text.parse_math": False,
}
_MARKERS = "osD^vPX*"
_LONGEST_NAME = 40
_METADATA = ("Date", "Creator", "Format", "Type")  # of which a page's plot needs none


def colour_of(analysis: Analysis, model: Model) -> int:
    """The number of a model's colour, the same in all plots and in the player.

    0, a grey, is that of the noisy recordings alone.
    """
    if model.name == NOISY:
        return 0
    return 1 + analysis.enhancing.index(model) % (len(_SERIES) - 1)


def differences(analysis: Analysis, metric: str = "pesq_wb") -> str | None:
    """Each system's difference to the baseline with its interval, below one another."""
    found = [
        (model, comparison.difference)
        for model in analysis.models
        if (comparison := analysis.comparisons.get(model.name, {}).get(metric)) is not None
    ]
    if not found:
        return None

    def draw(axis: Axes) -> None:
        for place, (model, difference) in enumerate(reversed(found)):
            style = _style(analysis, model)
            error = _error([difference])
            axis.errorbar([difference.mean], [place], xerr=error, capsize=3, linewidth=1.8, **style)
        axis.axvline(0, color=_INK, linewidth=1)
        axis.set_yticks(range(len(found)), [_label(model.name) for model, _ in reversed(found)])
        axis.set_ylim(-0.6, len(found) - 0.4)
        axis.grid(axis="y", visible=False)
        heading = METRICS[metric].heading
        axis.set_xlabel(
            f"difference of {heading} to {_label(analysis.baseline.name)}, 95 % interval"
        )

    return _svg((7, 1.1 + 0.36 * len(found)), draw)


def by_group(analysis: Analysis, number: int, metric: str = "pesq_wb") -> str:
    """A metric by the groups of a breakdown: lines over SNR, points over words."""
    breakdown, means = analysis.breakdowns[number]
    labels = list(breakdown.groups)

    def draw(axis: Axes) -> None:
        step = 0.5 / max(1, len(analysis.models))
        for place, model in enumerate(analysis.models):
            groups = [means[model.name][metric][label] for label in labels]
            points = [(x, mean) for x, mean in enumerate(groups) if mean is not None]
            if not points:
                continue
            shift = (place - (len(analysis.models) - 1) / 2) * step
            heights = [mean.mean for _, mean in points]
            axis.errorbar(
                [x + shift for x, _ in points],
                heights,
                yerr=_error([mean for _, mean in points]),
                linestyle="-" if breakdown.axis == SNR else "none",
                linewidth=1.4,
                elinewidth=1.2,
                capsize=2,
                label=_label(model.name),
                **_style(analysis, model),
            )
        tilted = sum(map(len, labels)) > 50
        rotation: dict[str, Any] = {"rotation": 30, "ha": "right"} if tilted else {}
        axis.set_xticks(range(len(labels)), [_label(label) for label in labels], **rotation)
        axis.set_xlabel(breakdown.axis)
        axis.set_ylabel(METRICS[metric].heading)
        axis.grid(axis="x", visible=False)

    return _svg((7, 3.8), draw)


def against_cost(analysis: Analysis, fact: str) -> str | None:
    """PESQ against "parameters" or "macs_per_second"; parameters with systems of other papers."""
    found = [
        (model, model.facts[fact], mean)
        for model in analysis.enhancing
        if fact in model.facts and (mean := analysis.means[model.name]["pesq_wb"]) is not None
    ]
    if not found:
        return None
    scale, label = {
        "parameters": (1e6, "parameters (millions)"),
        "macs_per_second": (1e9, "multiply-accumulates for a second of audio (GMAC)"),
    }[fact]

    def draw(axis: Axes) -> None:
        for model, cost, mean in found:
            style = _style(analysis, model)
            error = _error([mean])
            axis.errorbar(
                [cost / scale], [mean.mean], yerr=error, label=_label(model.name), **style
            )
        if fact == "parameters":
            _published(axis)
            sizes = [cost / scale for _, cost, _ in found]
            axis.set_xlim(min(0.5, 0.7 * min(sizes)), max(16, 1.4 * max(sizes)))
        axis.set_xlabel(label)
        axis.set_ylabel(METRICS["pesq_wb"].heading)

    return _svg((7, 4.4 if fact == "parameters" else 3.2), draw)


def _published(axis: Axes) -> None:
    """Systems of papers, over a logarithmic axis of millions of parameters, named at its right."""
    known = sorted(
        ((each.pesq, each.parameters, each.name) for each in PUBLISHED if each.parameters),
        reverse=True,
    )
    axis.plot(
        [size for _, size, _ in known], [pesq for pesq, _, _ in known], "x",
        color=_MUTED, markersize=5, label="published, on VoiceBank-DEMAND",
    )  # fmt: skip
    for place, (pesq, size, name) in enumerate(known):
        axis.annotate(
            f"{name} {pesq:.2f}", (size, pesq), (1.03, 0.97 - 0.075 * place),
            textcoords="axes fraction", fontsize=8, color=_MUTED, va="center",
            arrowprops={"arrowstyle": "-", "color": _GRID, "linewidth": 0.7},
            annotation_clip=False,
        )  # fmt: skip
    axis.set_xscale("log")
    ticks = [2.0**power for power in range(-8, 9)]
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def training(
    analysis: Analysis, histories: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str | None:
    """PESQ on held-out utterances, and the training loss, over the steps of each run."""
    runs = [
        (model, histories[system.name])
        for model in analysis.models
        for system in model.systems
        if histories.get(system.name)
    ]
    panels = [
        (title, curves)
        for title, group, name in (
            ("PESQ-WB on held-out utterances", "valid", "pesq_wb"),
            ("training loss", "train", "loss"),
        )
        if (curves := _curves(runs, group, name))
    ]
    if not panels:
        return None

    def draw(*axes: Axes) -> None:
        for axis, (title, curves) in zip(axes, panels, strict=True):
            for model, steps, values in curves:
                marked = _style(analysis, model) | {"marker": "o" if len(steps) < 40 else ""}
                axis.plot(steps, values, linewidth=1.4, label=_label(model.name), **marked)
            axis.set_title(title, fontsize=10, loc="left")
            axis.set_xlabel("step")

    return _svg((7, 3.3), draw, len(panels))


def _curves(
    runs: Sequence[tuple[Model, Sequence[Mapping[str, Any]]]], group: str, name: str
) -> list[tuple[Model, list[int], list[float]]]:
    curves = []
    for model, lines in runs:
        points = [
            (line["step"], value)
            for line in lines
            if (value := line.get(group, {}).get(name)) is not None
        ]
        if points:
            steps, values = zip(*points, strict=True)
            curves.append((model, list(steps), list(values)))
    return curves


def _style(analysis: Analysis, model: Model) -> dict[str, Any]:
    number = colour_of(analysis, model)
    return {"color": _SERIES[number], "marker": _MARKERS[number], "markersize": 5}


def _label(name: str) -> str:
    """A name as a plot can show it: of valid text, on one line, not of a page's length."""
    text = name.encode("utf-8", "backslashreplace").decode()
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    return f" {text}" if text.startswith("_") else text  # matplotlib lists no "_name"


def _error(means: Sequence[Interval]) -> list[list[float]]:
    """The lengths of error bars, down and up; none where an interval says nothing."""
    return [
        [mean.mean - mean.low if mean.is_sound else 0.0 for mean in means],
        [mean.high - mean.mean if mean.is_sound else 0.0 for mean in means],
    ]


def _legend(figure: Figure) -> None:
    """One for all panels, below them: inside, it would cover points."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))  # seeds of one model have one name
    if named:
        columns = max(1, 90 // (8 + max(map(len, named))))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)


def _svg(size: tuple[float, float], draw: Callable[..., None], panels: int = 1) -> str:
    """An SVG element for a page: its colours are the page's variables, its text is text."""
    # What a name is written in may be missing in the font that the widths are taken from.
    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(size, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for axis in axes:
            axis.patch.set_visible(False)
        draw(*axes)
        _legend(figure)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(_METADATA))
    svg = text.getvalue()
    # Without its style, which would be that of the whole page (the page has it for its plots).
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names that every plot would have
    for colour, variable in _VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", svg)
    return svg
