"""Draw the plots of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from evaluation.analysis import Analysis
from evaluation.conditions import SNR
from evaluation.drawing import GRID, INK, MUTED, shown_name, style_of, svg
from evaluation.metrics import METRICS
from evaluation.published import PUBLISHED
from evaluation.statistics import Interval


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
            style = style_of(analysis, model)
            error = _error([difference])
            axis.errorbar([difference.mean], [place], xerr=error, capsize=3, linewidth=1.8, **style)
        axis.axvline(0, color=INK, linewidth=1)
        axis.set_yticks(range(len(found)), [shown_name(model.name) for model, _ in reversed(found)])
        axis.set_ylim(-0.6, len(found) - 0.4)
        axis.grid(axis="y", visible=False)
        heading = METRICS[metric].heading
        axis.set_xlabel(
            f"difference of {heading} to {shown_name(analysis.baseline.name)}, 95 % file interval"
        )

    return svg((7, 1.1 + 0.36 * len(found)), draw)


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
                label=shown_name(model.name),
                **style_of(analysis, model),
            )
        tilted = sum(map(len, labels)) > 50
        rotation: dict[str, Any] = {"rotation": 30, "ha": "right"} if tilted else {}
        axis.set_xticks(range(len(labels)), [shown_name(label) for label in labels], **rotation)
        axis.set_xlabel(breakdown.axis)
        axis.set_ylabel(METRICS[metric].heading)
        axis.grid(axis="x", visible=False)

    return svg((7, 3.8), draw)


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
            style = style_of(analysis, model)
            error = _error([mean])
            axis.errorbar(
                [cost / scale], [mean.mean], yerr=error, label=shown_name(model.name), **style
            )
        if fact == "parameters":
            _published(axis)
            sizes = [cost / scale for _, cost, _ in found]
            axis.set_xlim(min(0.5, 0.7 * min(sizes)), max(16, 1.4 * max(sizes)))
        axis.set_xlabel(label)
        axis.set_ylabel(METRICS["pesq_wb"].heading)

    return svg((7, 4.4 if fact == "parameters" else 3.2), draw)


def _published(axis: Axes) -> None:
    """Systems of papers, over a logarithmic axis of millions of parameters, named at its right."""
    known = sorted(
        ((each.pesq, each.parameters, each.name) for each in PUBLISHED if each.parameters),
        reverse=True,
    )
    axis.plot(
        [size for _, size, _ in known], [pesq for pesq, _, _ in known], "x",
        color=MUTED, markersize=5, label="published, on VoiceBank-DEMAND",
    )  # fmt: skip
    for place, (pesq, size, name) in enumerate(known):
        axis.annotate(
            f"{name} {pesq:.2f}", (size, pesq), (1.03, 0.97 - 0.075 * place),
            textcoords="axes fraction", fontsize=8, color=MUTED, va="center",
            arrowprops={"arrowstyle": "-", "color": GRID, "linewidth": 0.7},
            annotation_clip=False,
        )  # fmt: skip
    axis.set_xscale("log")
    ticks = [2.0**power for power in range(-8, 9)]
    axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def _error(means: Sequence[Interval]) -> list[list[float]]:
    """The lengths of error bars, down and up; none where an interval says nothing."""
    return [
        [mean.mean - mean.low if mean.is_sound else 0.0 for mean in means],
        [mean.high - mean.mean if mean.is_sound else 0.0 for mean in means],
    ]
