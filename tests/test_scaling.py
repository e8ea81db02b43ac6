"""The scaling law of the cost: what a pass keeps grows linearly; laws of costs that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_networks import NETWORKS, small

from bandsplit.net import BandSplitNet
from benchmarks import generator, scaling
from benchmarks.activations import kept_bytes, peak_bytes, saved_bytes
from benchmarks.generator import Generator, Pass, enough_memory, noise
from benchmarks.laws import fit
from benchmarks.results import where
from benchmarks.scaling import Curve, Point, curves_of, described_curves, table
from training.precision import Precision

CPU = torch.device("cpu")
HOP = 128
ABLATIONS = [name for name in NETWORKS if name != "bsrnn"]


def kept(net: BandSplitNet, batch: int, frames: int) -> int:
    noisy = torch.randn(batch, HOP * (frames - 1))
    return kept_bytes(lambda: net(noisy), CPU)


def saved(net: BandSplitNet, batch: int, frames: int) -> int:
    noisy = torch.randn(batch, HOP * (frames - 1))
    return saved_bytes(lambda: net(noisy), [noisy, *net.parameters()])


def bend(costs: list[int]) -> float:
    """The second difference of three costs, as a share of the first one."""
    one, two, three = costs
    return abs((three - two) - (two - one)) / (two - one)


# Counted


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("count", "tolerance"), [(saved, 0.001), (kept, 0.1)])
def test_what_is_kept_grows_linearly_with_frames(
    name: str, count: Callable[..., int], tolerance: float
) -> None:
    """Each size has one chunk of the scan more than the one before, begun by its last frame.

    The profiler may miss that a block was given back, of which a narrow network has few: by its
    count, less can be told.
    """
    net = small(name)
    count(net, 1, 65)
    costs = [count(net, 1, frames) for frames in (65, 129, 193)]
    assert bend(costs) < tolerance
    # Were there anything quadratic in it, the third would be at 9 / 1, not 3 / 1.
    assert 2.8 < costs[2] / costs[0] < 3.1


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_kept_grows_exactly_with_the_batch(name: str) -> None:
    net = small(name)
    costs = [saved(net, batch, 65) for batch in (1, 2, 3)]
    assert bend(costs) == 0


@pytest.mark.parametrize("name", ABLATIONS)
def test_borders_of_chunks_make_no_more_than_a_step(name: str) -> None:
    """Sizes that begin chunks at uneven distances: the law is bent by a state or two, no more."""
    net = small(name, use_checkpoint=False)
    assert 0 < bend([saved(net, 1, frames) for frames in (40, 80, 120)]) < 0.05


@pytest.mark.parametrize("name", ABLATIONS)
def test_selective_checkpointing_keeps_more_than_a_full_one_and_less_than_none(name: str) -> None:
    modes = {mode: small(name, use_checkpoint=mode) for mode in ("full", True, False)}
    for net in modes.values():
        kept(net, 1, 65)
    assert kept(modes["full"], 1, 65) < kept(modes[True], 1, 65) < kept(modes[False], 1, 65)


def test_kept_and_peak_of_what_is_known() -> None:
    x = torch.zeros(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        passing = torch.zeros(5000)
        return x.exp() + 0 * passing.sum()  # exp keeps its result; the sum of both is not kept

    assert 4000 <= kept_bytes(forward, CPU) < 4500
    assert 24_000 <= peak_bytes(forward, CPU) < 29_000
    assert kept_bytes(lambda: None, CPU) == peak_bytes(lambda: None, CPU) == 0


def test_a_pass_is_the_generators_part_of_a_step() -> None:
    """Its loss is what the learner's own step reports for the same batch."""
    precision = Precision("cpu", "off")
    changes = {"model.channels": 8, "data.batch_size": 2}
    learner = generator.make_learner("abl1", precision, changes)
    clean, noisy = noise(2, 0.25, CPU)
    mine = Generator("abl1", precision, changes).loss(clean, noisy)
    result = learner.step({"clean": clean, "noisy": noisy}, 0)
    assert not result.broken
    assert mine.item() == pytest.approx(result.values["loss"], rel=1e-4)


def test_a_pass_leaves_no_gradients() -> None:
    one = Pass(
        Generator("abl1", Precision("cpu", "off"), {"model.channels": 8}), "training", 1, 0.25
    )
    peak, kept_for_backward = one.weigh() or (0, 0)
    assert 0 < kept_for_backward < peak
    assert one.seconds() > 0
    assert all(p.grad is None for p in one.generator.net.parameters())
    one.use = "enhancement"
    peak_of_enhancing, nothing = one.weigh() or (0, 1)
    assert nothing == 0 < peak_of_enhancing < peak


# Laws


SIZES = [1, 2, 4, 8, 15, 30, 60]


def test_a_proportion_is_linear() -> None:
    law = fit(SIZES, [3 * x for x in SIZES])
    assert law is not None
    assert law.exponent == pytest.approx(1)
    assert law.r2 == pytest.approx(1)
    assert law.slope == pytest.approx(3)
    assert law.intercept == pytest.approx(0, abs=1e-9)
    assert law.unevenness == pytest.approx(0)
    assert law.sizes == 5
    assert law.is_linear_in_time
    assert law.is_linear_in_memory


def test_a_square_is_not() -> None:
    law = fit(SIZES, [x**2 for x in SIZES])
    assert law is not None
    assert law.exponent == pytest.approx(2)
    assert law.r2 == pytest.approx(1)
    assert not law.is_linear_in_time
    assert not law.is_linear_in_memory


def test_an_offset_is_told_from_a_slope() -> None:
    """Memory that does not grow lowers the exponent, but leaves increments equal."""
    law = fit(SIZES, [100 + 5 * x for x in SIZES])
    assert law is not None
    assert law.intercept == pytest.approx(100)
    assert law.slope == pytest.approx(5)
    assert law.exponent < 0.9
    assert not law.is_linear_in_time
    assert law.is_linear_in_memory


@pytest.mark.parametrize(("extra", "linear"), [(0.04, True), (0.06, False)])
def test_increments_may_differ_by_five_percent(extra: float, linear: bool) -> None:
    law = fit([4, 5, 6], [4, 5, 6 + extra])
    assert law is not None
    assert law.is_linear_in_memory is linear


def test_small_sizes_play_no_part_and_few_make_no_law() -> None:
    law = fit([1, 2, 4, 8, 16], [900, 800, 4, 8, 16])
    assert law is not None
    assert law.exponent == pytest.approx(1)
    assert fit([1, 2, 4, 8], [1, 2, 4, 8]) is None
    shrinking = fit([4, 8, 16], [3, 2, 1])
    assert shrinking is not None
    assert math.isinf(shrinking.unevenness)
    assert not shrinking.is_linear_in_memory
    assert shrinking.is_at_most_linear_in_memory


def test_what_costs_the_more_the_more_of_it_there_is_is_more_than_linear() -> None:
    """A flat start, as of what is computed in pieces, may be followed by a line, not by a curve."""
    for costs, expected in (([10, 10, 10, 15, 30, 60], True), ([10, 10, 20, 60, 120, 240], False)):
        law = fit([2, 4, 8, 15, 30, 60], costs, start=2)
        assert law is not None
        assert not law.is_linear_in_memory
        assert law.is_at_most_linear_in_memory is expected, law


# The command


def test_json_holds_everything(tmp_path: Path) -> None:
    curve = Curve("abl3", "training", "seconds", [Point(4, 9, 5, [1.0, 3.0, 2.0])], [60.0])
    result = json.loads(json.dumps(described_curves(Precision("cpu", "off"), [curve])))
    assert {"device", "date", "commit", "versions", "threads", "amp"} <= result.keys()
    curves = curves_of(result)
    assert curves == [curve]
    assert curves[0].points[0].seconds == 2


def test_the_table_says_what_the_law_is_and_what_was_left_out() -> None:
    points = [Point(x, round(x**2 * 2**20), round(x * 2**20), [x]) for x in (4, 8, 16)]
    text = table([Curve("abl3", "training", "seconds", points, [60.0])])
    assert "left out, not enough memory: 60" in text
    time, peak, kept_line = text.splitlines()[-3:]
    assert time.startswith("time ~ size^1.000 (R^2 1.0000)")
    assert time.endswith(": linear")
    assert peak.startswith("peak ~ size^2.000")
    assert peak.endswith("NOT linear")
    assert kept_line.endswith(": linear")


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "_MEMORY_INFO", tmp_path / "meminfo")
    assert enough_memory(1e30, CPU)  # nobody knows
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:  10 kB\n")
    assert enough_memory(8000, CPU)
    assert not enough_memory(9000, CPU)
    assert enough_memory(9000, torch.device("cuda"))


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def narrow(name: str, precision: Precision) -> Generator:
        return Generator(name, precision, {"model.channels": 8})

    monkeypatch.setattr(scaling, "Generator", narrow)
    found, plot = tmp_path / "found.json", tmp_path / "plot.png"
    sizes = ["--lengths", "0.4", "0.25", "0.3", "--batches", "1", "2", "--rounds", "2"]
    places = ["--json", str(found), "--plot", str(plot)]
    scaling.main(["--device", "cpu", "--networks", "abl1", *sizes, *places])
    printed = capsys.readouterr().out
    result = json.loads(found.read_text())
    assert printed.startswith(where(result))
    curves = curves_of(result)
    assert [(c.network, c.use, c.axis) for c in curves] == [("abl1", *x) for x in scaling.USES]
    for curve in curves:
        assert [point.size for point in curve.points] == (
            [1, 2] if curve.axis == "batch" else [0.25, 0.3, 0.4]
        )
        assert all(len(point.times) == 2 and point.peak > 0 for point in curve.points)
        assert all((point.kept > 0) == (curve.use == "training") for point in curve.points)
    with Image.open(plot) as picture:
        assert 1000 < picture.width < 1400
    scaling.main(["--read", str(found)])
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--lengths", "-1"], ["--batches", "0"]])
def test_sizes_below_1_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scaling.main(wrong)
