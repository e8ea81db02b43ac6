"""The page's plots: what is drawn where, read off the axes; and what an SVG may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from systems import numbered, system

from evaluation import figures
from evaluation.analysis import Analysis, analyse
from evaluation.drawing import colour_of
from evaluation.published import PUBLISHED


@pytest.fixture
def analysis() -> Analysis:
    """Noisy, one (+0.5) and two (-0.2), by speakers p230 and p231."""
    names = [f"p23{n % 2}_{n:03}" for n in range(30)]

    def renamed(name: str, gain: float, **facts: Any) -> Any:
        values = numbered(name, gain, seed=int(10 * gain) + 5).values("pesq_wb")
        return system(name, dict(zip(names, map(float, values), strict=True)), **facts)

    one = renamed("one", 0.5, family={"is": "one"}, parameters=50_000_000, macs_per_second=3e9)
    two = renamed("two", -0.2, family={"is": "two"}, parameters=900_000)
    return analyse([renamed("noisy", 0), one, two], "corpus", {})


def as_axes(size: tuple[float, float], draw: Callable[..., None], panels: int = 1) -> list[Axes]:
    """Return a plot as its axes, in the place of `drawing.svg`, which returns text."""
    axes = list(Figure(size).subplots(1, panels, squeeze=False)[0])
    draw(*axes)
    return axes


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "svg", as_axes)


def bars(axis: Axes, direction: int) -> np.ndarray:
    """(bars, 2): the ends of the error bars along an axis' direction (0: across, 1: upwards)."""
    found = []
    for container in axis.containers:
        assert isinstance(container, ErrorbarContainer)
        for segment in container.lines[2][0].get_segments():
            found.append((segment[0][direction], segment[1][direction]))
    return np.array(found)


@pytest.mark.usefixtures("axes")
def test_differences_are_where_they_are(analysis: Analysis):
    (axis,) = figures.differences(analysis)
    found = [analysis.comparisons[name]["pesq_wb"].difference for name in ("two", "one")]
    points = [container.lines[0].get_xydata()[0] for container in axis.containers]
    assert [tuple(point) for point in points] == [(d.mean, y) for y, d in enumerate(found)]
    assert bars(axis, 0) == pytest.approx(np.array([(d.low, d.high) for d in found]))
    assert [label.get_text() for label in axis.get_yticklabels()] == ["two", "one"]
    assert "to noisy" in axis.get_xlabel()


@pytest.mark.usefixtures("axes")
def test_groups_have_their_points(analysis: Analysis):
    number = next(n for n, (b, _) in enumerate(analysis.breakdowns) if b.axis == "speaker")
    (axis,) = figures.by_group(analysis, number)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["p230", "p231"]
    _, means = analysis.breakdowns[number]
    for container, name in zip(axis.containers, ("noisy", "one", "two"), strict=True):
        expected = [means[name]["pesq_wb"][label] for label in ("p230", "p231")]
        line = container.lines[0]
        assert list(line.get_ydata()) == [mean.mean for mean in expected]
        assert [round(x) for x in line.get_xdata()] == [0, 1]
        assert line.get_linestyle() == "None"  # no line between words
        assert container.get_label() == name
    first = [means["noisy"]["pesq_wb"][label] for label in ("p230", "p231")]
    assert bars(axis, 1)[:2] == pytest.approx(np.array([(m.low, m.high) for m in first]))


@pytest.mark.usefixtures("axes")
def test_small_groups_have_no_bars():
    values = {f"p23{n % 2}_{n:03}": 1.0 + n for n in range(8)}
    analysis = analyse([system("noisy", values)], "", {})
    (axis,) = figures.by_group(analysis, 0)
    assert all(low == high for low, high in bars(axis, 1))


@pytest.mark.usefixtures("axes")
@pytest.mark.parametrize(
    ("fact", "costs"), [("parameters", [50, 0.9]), ("macs_per_second", [3.0, 6.25])]
)
def test_scores_stand_over_their_cost(analysis: Analysis, fact: str, costs: list[float]):
    (axis,) = figures.against_cost(analysis, fact)
    points = [container.lines[0].get_xydata()[0] for container in axis.containers]
    means = [analysis.means[name]["pesq_wb"].mean for name in ("one", "two")]
    assert [tuple(point) for point in points] == list(zip(costs, means, strict=True))
    low, high = axis.get_xlim()
    assert low < min(costs)
    assert max(costs) < high


@pytest.mark.usefixtures("axes")
def test_papers_figures_are_crosses_beside_their_names(analysis: Analysis):
    (axis,) = figures.against_cost(analysis, "parameters")
    (crosses,) = [line for line in axis.lines if line.get_marker() == "x"]
    expected = {(each.parameters, each.pesq) for each in PUBLISHED if each.parameters}
    assert set(map(tuple, crosses.get_xydata())) == expected
    for text in axis.texts:
        name, _, pesq = text.get_text().rpartition(" ")
        (each,) = [each for each in PUBLISHED if each.name == name]
        assert text.xy == (each.parameters, float(pesq)) == (each.parameters, each.pesq)


def test_colours_are_the_pages_and_grey_is_the_noisy_ones(analysis: Analysis):
    assert [colour_of(analysis, model) for model in analysis.models] == [0, 1, 2]
    alone = analyse([numbered("one", 0)], "", {})
    assert colour_of(alone, alone.models[0]) == 1
    for svg in (figures.differences(analysis), figures.against_cost(analysis, "parameters")):
        assert svg
        assert "var(--series-1)" in svg
        assert not re.search(r"#0[1-4]0[1-4]0", svg)
        assert not re.search(r"<style|<metadata|<script|<g id=", svg)


@pytest.mark.parametrize("name", ["bad\udcff", "_under", "#010101", "a\rb\x01", "ü" * 300, "漢字"])
def test_any_name_can_be_drawn(name: str):
    """Without a warning, all of which are faults in tests."""
    noisy, other = numbered("noisy", 0), numbered(name, 0.5)
    svg = figures.differences(analyse([noisy, other], "", {}))
    assert svg
    svg.encode()
    shown = name.encode("utf-8", "backslashreplace").decode()[:20].strip()
    if shown.isprintable():
        assert shown in svg


def test_a_legend_has_everybody(analysis: Analysis):
    under = system("_under", dict.fromkeys(analysis.utterances, 2.0))
    svg = figures.by_group(analyse([*analysis.systems, under], "", {}), 0)
    assert all(f"{name}</text>" in svg for name in ("noisy", "one", "two", "_under"))


def test_what_is_not_there_is_not_drawn():
    alone = analyse([numbered("noisy", 0)], "", {})
    assert figures.differences(alone) is None
    assert figures.against_cost(alone, "parameters") is None
