"""Plots of trainings: what is drawn where, read off the axes; and the picture outside the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from systems import numbered, trained
from test_figures import as_axes

from evaluation import curves
from evaluation.analysis import Analysis, analyse
from evaluation.drawing import PRINTED, SERIES, colour_of
from evaluation.published import TRAINING


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "svg", as_axes)


@pytest.mark.usefixtures("axes")
def test_curves_are_those_of_the_log():
    analysis = analyse([numbered("noisy", 0), numbered("one", 0.5)], "", {})
    lines = [
        {"step": 10, "epoch": 0, "train": {"loss": 0.5}},
        {"step": 20, "epoch": 0, "train": {"loss": None}},
        {"step": 30, "epoch": 1, "train": {"loss": 0.4}, "valid": {"pesq_wb": 2.5}},
    ]
    scores, losses = curves.training(analysis, {"one": lines, "nobody": lines})
    ((score,), (loss,)) = scores.lines, losses.lines
    assert [tuple(point) for point in score.get_xydata()] == [(30, 2.5)]
    assert [tuple(point) for point in loss.get_xydata()] == [(10, 0.5), (30, 0.4)]
    assert score.get_color() == SERIES[colour_of(analysis, analysis.models[1])]


def validated(*points: tuple[int, float]) -> list[dict[str, Any]]:
    """Lines of a training log."""
    return [{"step": step, "epoch": 0, "valid": {"pesq_wb": pesq}} for step, pesq in points]


HISTORIES = {
    "abl3-0": validated((1000, 2.0), (2000, 2.2), (3000, 2.3)),
    "abl3-1": [*validated((1000, 2.1), (2000, 2.4)), {"step": 2500, "epoch": 1, "valid": {}}],
    "bsrnn-0": validated((500, 1.9)),
}


def of_crops() -> Analysis:
    """abl3 with two seeds of six crops a step and bsrnn with one of twelve."""
    runs = [*trained("abl3", 0.1, 0.2), *trained("bsrnn", 0.0, crops_per_step=12.0)]
    return analyse([numbered("noisy", 0), *runs], "", {})


@pytest.mark.usefixtures("axes")
def test_pesq_stands_over_the_crops_seen():
    """A line for each seed, thin, and one for their mean where all were validated."""
    (axis,) = curves.against_crops(of_crops(), HISTORIES)
    lines = [line for line in axis.lines if line.get_linestyle() == "-"]
    one, other, mean, bsrnn = ([tuple(point) for point in line.get_xydata()] for line in lines)
    assert one == [(6000, 2.0), (12000, 2.2), (18000, 2.3)]
    assert other == [(6000, 2.1), (12000, 2.4)]
    assert mean == [(6000, 2.05), (12000, pytest.approx(2.3))]
    assert bsrnn == [(6000, 1.9)]
    assert lines[0].get_linewidth() == lines[1].get_linewidth() < lines[2].get_linewidth()
    assert len({line.get_color() for line in lines[:3]}) == 1
    assert axis.get_legend_handles_labels()[1] == ["abl3 (2 seeds)", "bsrnn-0"]
    assert axis.get_xscale() == "log"


@pytest.mark.usefixtures("axes")
def test_public_curves_stand_beside_and_say_what_they_are():
    (axis,) = curves.against_crops(of_crops(), HISTORIES)
    assert [text.get_text() for text in axis.texts] == [curve.name for curve in TRAINING]
    dotted = {container.lines[0] for container in axis.containers}
    found = {(round(x), y) for line in dotted for x, y in line.get_xydata()}
    # The public log's first and last epoch, and a discriminator's point of 50 epochs.
    assert {(11600, 2.32), (174000, 2.95), (580000, 3.24)} <= found
    assert (90000, 3.3) in found  # 60 to 120 thousand
    assert "VoiceBank-DEMAND's test set" in axis.get_title(loc="left")
    assert all("/" in curve.source for curve in TRAINING)


def test_the_curve_is_written_in_its_own_colours(tmp_path: Path):
    curves.write_curve(of_crops(), HISTORIES, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "curve.svg"}
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "curve.svg").read_text("utf-8")
    assert "abl3 (2 seeds)</text>" in text
    assert not re.search(r"#0[1-4]0[1-4]0|var\(--", text)
    number = colour_of(of_crops(), of_crops().models[1])
    assert PRINTED[SERIES[number]] in text


def test_nothing_is_drawn_without_a_validation(tmp_path: Path):
    alone = analyse([numbered("noisy", 0)], "", {})
    assert curves.training(alone, {}) is None
    lines = [{"step": 1, "epoch": 0, "train": {"loss": None}}, {"step": 2, "epoch": 0}]
    assert curves.training(alone, {"noisy": lines}) is None
    assert curves.against_crops(of_crops(), {"abl3-0": lines}) is None
    curves.write_curve(of_crops(), {"abl3-0": lines}, tmp_path)
    assert not list(tmp_path.iterdir())
