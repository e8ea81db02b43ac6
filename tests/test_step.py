"""How a training step is measured: its phases, its operators, and what is made of the figures."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, repeat
from pathlib import Path

import pytest
import torch
from numpy.typing import NDArray

from benchmarks.candidates import Candidate, ConstantPool, Network, candidates, networks, noise
from benchmarks.findings import Finding, findings
from benchmarks.phases import PHASES, Clock, count_launches, operators
from benchmarks.results import markdown, save
from benchmarks.step import Measured, measure, tables
from training.learner import Learner

NARROW = {"channels": 12}
ORDER = [
    "data",
    "forward",
    "backward",
    "discriminator",
    "labels",
    "discriminator",
    "optimizer",
    "labels",
]
CPU = torch.device("cpu")


def narrow(name: str, **settings: object) -> Learner:
    network = networks()[name]
    config = replace(network.config, **settings)
    candidate = Candidate(name, network.default, "off")
    return candidate.learner(Network(network.kind, config), "cpu", 2, 0.25, **NARROW)


def heard(learner: Learner) -> list[str]:
    """The phases of its second step."""
    marks: list[str] = []
    learner.step(noise(2, 0.25), 0)
    learner.mark = marks.append
    learner.step(noise(2, 0.25), 1)
    return marks


def test_marks_come_in_the_documented_order() -> None:
    marks = heard(narrow("abl1"))
    assert [name for name, _ in groupby(marks)] == ORDER
    assert marks.count("backward") == 2
    assert set(ORDER) == set(PHASES)


def test_pieces_alternate() -> None:
    run = replace(networks()["abl1"].config.run, accumulate=2)
    marks = heard(narrow("abl1", run=run))
    assert marks[:6] == ["data", *2 * ["forward", "backward"], "backward"]


def test_without_a_discriminator_nobody_waits_for_labels() -> None:
    loss = replace(networks()["abl1"].config.loss, metric=0.0)
    marks = heard(narrow("abl1", loss=loss))
    assert marks == [
        "data",
        "forward",
        "backward",
        "backward",
        "discriminator",
        "optimizer",
        "labels",
    ]


def test_a_listener_changes_nothing() -> None:
    quiet, listened = narrow("abl1"), narrow("abl1")
    heard(listened)
    for number in range(2):
        quiet.step(noise(2, 0.25), number)
    for x, y in zip(quiet.model.parameters(), listened.model.parameters(), strict=True):
        assert torch.equal(x, y)


def test_phases_sum_to_the_step() -> None:
    learner, clock = narrow("abl1"), Clock(CPU)
    learner.step(noise(2, 0.25), 0)
    learner.mark = clock
    clock.begin()
    time.sleep(0.05)  # the loader
    learner.step(noise(2, 0.25), 1)
    seconds = clock.end()
    phases = [seconds[name] for name in PHASES]
    assert all(x > 0 for x in phases)
    assert 0.9 * seconds["step"] <= sum(phases) <= seconds["step"]
    assert seconds["data"] >= 0.05


def test_operators_are_counted_forward_and_backward() -> None:
    x = torch.ones(3, requires_grad=True)
    assert operators(lambda: x.sin().cos()) == 2

    def both() -> None:
        x.sin().backward(torch.ones(3))

    # ones, sin; cos and a product; a detached gradient.
    assert operators(both) == 5


def test_launches_are_known_by_their_names() -> None:
    names = [
        "cudaLaunchKernel",
        "cuLaunchKernelEx",
        "cudaGraphLaunch",
        "cudaMemcpyAsync",
        "aten::mm",
    ]
    assert count_launches(names) == 3


def test_every_network_has_the_rows_that_its_class_allows() -> None:
    for name, network in networks().items():
        modes = {(x.checkpoint, x.amp) for x in candidates(name, network)}
        expected = {(None, "off"), (None, "bf16")}
        if "use_checkpoint" in inspect.signature(network.kind).parameters:
            expected = {(m, a) for m in (False, True) for a in ("off", "bf16")} | {("full", "bf16")}
        assert modes == expected


def test_what_is_measured_is_complete(tmp_path: Path) -> None:
    chosen = {name: networks()[name] for name in ("abl1", "baseline")}
    batch = noise(1, 0.25)
    result = measure(chosen, CPU, 1, 0.25, 2, None, repeat(batch), **NARROW)
    path = tmp_path / "new" / "step.json"
    save(path, result)
    assert [x.name for x in path.parent.iterdir()] == ["step.json"]
    found = json.loads(path.read_text())
    assert {"date", "commit", "versions", "device", "threads"} <= found.keys()
    assert (found["batch"], found["crop"], found["rounds"]) == (1, 0.25, 2)
    rows = sum(len(candidates(name, network)) for name, network in chosen.items())
    assert len(found["rows"]) == rows
    for row in found["rows"]:
        assert row["seconds"].keys() == {"step", *PHASES}
        step = row["seconds"]["step"]
        assert 0 < step["min"] <= step["median"] <= step["max"]
        assert row["crops_per_second"] == 1 / step["median"]
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert row["resident_bytes"] > 0
        assert row["operators"] > 100
    assert found["networks"]["abl1"]["parameters"] == 1_790_000
    verdicts = {x["verdict"] for x in found["findings"]}
    assert verdicts <= {"reached", "missed", ""}
    assert tables(found).count("\n| abl1 ") == 6


class Fake:
    def __init__(self, step: float, saved: int, peak: int) -> None:
        self.seconds = [{"step": step}, {"step": 2 * step}]
        self.saved, self.peak, self.resident = saved, peak, 10**8


def faked() -> tuple[dict[str, Network], dict[Candidate, Fake]]:
    runs = {
        Candidate("abl3", False, "off"): Fake(1.0, 1000, 2000),
        Candidate("abl3", True, "off"): Fake(1.25, 700, 1500),
        Candidate("abl3", False, "bf16"): Fake(0.5, 500, 1000),
        Candidate("abl3", True, "bf16"): Fake(0.5, 200, 900),
        Candidate("looped", None, "off"): Fake(2.5, 1, 1),
        Candidate("looped", None, "bf16"): Fake(0.5, 1, 5 * 10**9),
    }
    return {name: networks()[name] for name in ("abl3", "looped")}, runs


def test_findings_are_ratios_with_targets() -> None:
    chosen, runs = faked()
    found = {x["what"]: x for x in findings(runs, chosen, True, 6, 2.0, True)}

    def of(what: str) -> tuple[float, str]:
        return round(found[what]["value"], 6), found[what]["verdict"]

    assert of("abl3: activations saved by checkpointing and AMP") == (80, "reached")
    assert of("abl3: peak memory saved by checkpointing and AMP") == (55, "missed")
    assert of("abl3: activations saved by AMP") == (50, "")
    assert of("abl3: time that checkpointing costs, AMP off") == (25, "missed")
    assert of("abl3: time that checkpointing costs, AMP bf16") == (0, "reached")
    assert of("speed of abl3 against looped, AMP off") == (2, "reached")
    assert of("speed of abl3 against looped, AMP bf16") == (1, "missed")
    assert of("looped: memory at most, AMP bf16") == (5.1, "missed")
    assert of("abl3: throughput with labels, AMP bf16, batch 6") == (9, "missed")  # of 12 and 6
    on_cpu = {x["what"] for x in findings(runs, chosen, False, 6, 2.0, False)}
    assert not any("memory at most" in what or "throughput" in what for what in on_cpu)


@pytest.mark.parametrize(("batch", "crop"), [(1, 2.0), (32, 2.0), (6, 1.0)])
def test_other_sizes_have_no_targets_but_the_crops_a_second(batch: int, crop: float) -> None:
    chosen, runs = faked()
    found = findings(runs, chosen, True, batch, crop, True)
    judged = {x["what"] for x in found if x["verdict"] or x["least"] or x["most"]}
    label = f"throughput with labels, AMP bf16, batch {batch}"
    assert judged == ({f"{name}: {label}" for name in chosen} if crop == 2 else set())
    assert len(found) == len(findings(runs, chosen, True, 6, 2.0, True))


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [({}, ""), ({"least": 2.0}, "reached"), ({"least": 2.1}, "missed"), ({"most": 1.9}, "missed")],
)
def test_a_target_that_is_met_exactly_is_reached(limits: dict, verdict: str) -> None:
    assert Finding("", 2.0, "x", **limits).verdict == verdict


def test_tables_are_aligned() -> None:
    table = markdown(["", "ms"], [["a", "1.0"], ["long", "22.5"]])
    assert table == "|      |   ms |\n| ---- | ---: |\n| a    |  1.0 |\n| long | 22.5 |\n"
    text = markdown(["", "says"], [["a", "b"]], left=True)
    assert text == "|     | says |\n| --- | ---- |\n| a   | b    |\n"
    assert markdown(["", "n"], [["a", "1"]]) == "|     |   n |\n| --- | --: |\n| a   |   1 |\n"


class SlowPool(ConstantPool):
    """Has every label a while after it is asked for."""

    def label(self, clean: NDArray, enhanced: NDArray) -> Callable[[], NDArray]:
        labels = super().label(clean, enhanced)

        def slow() -> NDArray:
            time.sleep(0.1)
            return labels()

        return slow


def test_with_labels_each_turn_waits_for_its_own() -> None:
    network = networks()["abl1"]
    candidate = Candidate("abl1", True, "off")
    run = Measured(candidate.learner(network, "cpu", 1, 0.25, SlowPool(1), **NARROW))
    run.time(repeat(noise(1, 0.25)), labels=True)
    assert len(run.seconds) == 2
    assert all(x["labels"] >= 0.1 for x in run.seconds)
    assert run.learner.discriminator.pending is None
