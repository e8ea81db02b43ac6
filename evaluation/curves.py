"""Plots of trainings: what validation and loss came to, over steps and over crops seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator

from data.utils import replacing
from evaluation.analysis import Analysis
from evaluation.drawing import MUTED, PRINTED, STYLE, drawn, shown_name, style_of, svg
from evaluation.metrics import METRICS
from evaluation.models import Model
from evaluation.published import TRAINING

# Lines of the training logs, by system.
Histories = Mapping[str, Sequence[Mapping[str, Any]]]


def against_crops(analysis: Analysis, histories: Histories) -> str | None:
    """Draw PESQ on held-out utterances over the crops that a run has seen, beside public curves.

    Of several seeds, the thin lines are each one's and the thick one is their mean, where all of
    them were validated.
    """
    found = _crops(analysis, histories)
    return svg((7, 4.6), partial(_draw_crops, analysis, found, {})) if found else None


def write_curve(analysis: Analysis, histories: Histories, folder: Path) -> None:
    """Write `against_crops` as curve.png and curve.svg, unless there is nothing to draw.

    Raises:
        OSError: they cannot be written.
    """
    found = _crops(analysis, histories)
    if not found:
        return
    style = {name: PRINTED.get(str(value), value) for name, value in STYLE.items()}
    with drawn((8, 4.8), partial(_draw_crops, analysis, found, PRINTED), 1, style) as figure:
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            with replacing(folder / f"curve.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)


def _crops(
    analysis: Analysis, histories: Histories
) -> list[tuple[Model, list[dict[float, float]]]]:
    """Return PESQ by two-second crops of each run, by model."""
    found = []
    for model in analysis.models:
        runs = [
            {step * system.facts["crops_per_step"]: pesq for step, pesq in zip(*curve, strict=True)}
            for system in model.systems
            if "crops_per_step" in system.facts
            for _, *curve in _curves([(model, histories.get(system.name, []))], "valid", "pesq_wb")
        ]
        if runs:
            found.append((model, runs))
    return found


def _draw_crops(
    analysis: Analysis,
    found: Sequence[tuple[Model, Sequence[Mapping[float, float]]]],
    colours: Mapping[str, str],
    axis: Axes,
) -> None:
    """colours: what takes the place of the page's."""
    muted = colours.get(MUTED, MUTED)
    for curve in TRAINING:
        centres = [(low + high) / 2 * 1000 for low, high, _ in curve.points]
        widths = [(high - low) / 2 * 1000 for low, high, _ in curve.points]
        pesqs = [pesq for *_, pesq in curve.points]
        axis.errorbar(
            centres, pesqs, xerr=widths, color=muted, ecolor=muted, linestyle=":", linewidth=1,
            marker=".", markersize=4,
        )  # fmt: skip
        axis.annotate(
            curve.name, (centres[-1], pesqs[-1]), (6, -3), textcoords="offset points",
            fontsize=8, color=muted, annotation_clip=False,
        )  # fmt: skip
    for model, runs in found:
        style = style_of(analysis, model)
        style["color"] = colours.get(style["color"], style["color"])
        if len(runs) > 1:
            for run in runs:
                axis.plot(list(run), list(run.values()), color=style["color"], linewidth=0.6)
        common = [x for x in runs[0] if all(x in run for run in runs)]
        means = [sum(run[x] for run in runs) / len(runs) for x in common]
        axis.plot(common, means, linewidth=1.8, label=shown_name(model.name), **style)
    axis.set_xscale("log")
    axis.set_xlim(right=3 * axis.get_xlim()[1])  # room for the names
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.minorticks_off()
    axis.set_xlabel("two-second crops seen in training")
    axis.set_ylabel(f"{METRICS['pesq_wb'].heading}, validation")
    axis.set_title(
        "Dotted: public curves of in-domain training, on VoiceBank-DEMAND's test set",
        fontsize=8, loc="left", color=muted,
    )  # fmt: skip


def training(analysis: Analysis, histories: Histories) -> str | None:
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
                marked = style_of(analysis, model) | {"marker": "o" if len(steps) < 40 else ""}
                axis.plot(steps, values, linewidth=1.4, label=shown_name(model.name), **marked)
            axis.set_title(title, fontsize=10, loc="left")
            axis.set_xlabel("step")

    return svg((7, 3.3), draw, len(panels))


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
