"""What follows from the measured steps, with its target: DESIGN's, at the sizes it is set for."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from benchmarks.candidates import BATCH, CROP, Candidate, Network
from benchmarks.results import markdown

_LESS_MEMORY = 70.0  # %
_CHECKPOINTING_TIME = 10.0  # %
_CROPS_PER_SECOND = 385.0
_PEAK = 4.0  # GB
_SPEED = {False: 1.2, True: 2.0}  # on a CPU, and on a GPU


class Run(Protocol):
    """What is known of a candidate; see `benchmarks.step.Measured`."""

    seconds: list[dict[str, float]]
    saved: int
    peak: int
    resident: int


@dataclass(frozen=True)
class Finding:
    """A value with its spread, and what it should be: at least `least`, or at most `most`."""

    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None

    @property
    def verdict(self) -> str:
        """ "reached" or "missed"; nothing where there is no target."""
        if self.least is None and self.most is None:
            return ""
        low = self.least is None or self.value >= self.least
        high = self.most is None or self.value <= self.most
        return "reached" if low and high else "missed"

    def row(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {**asdict(self), "verdict": self.verdict}


def findings(
    runs: Mapping[Candidate, Run],
    networks: Mapping[str, Network],
    gpu: bool,
    batch: int,
    crop: float,
    labels: bool,
) -> list[dict[str, Any]]:
    """All that the runs at hand allow. Times are compared round by round.

    Targets, and so verdicts, only where batch and crop are those that they are set for.
    """
    found: list[Finding] = []
    for name, network in networks.items():
        if network.default is not None:
            found += _of_checkpointing(name, runs)
    for rival, least in (("looped", _SPEED[gpu]), ("baseline", None)):
        if "abl3" in networks and rival in networks:
            for amp in ("off", "bf16"):
                ours, theirs = (
                    runs[Candidate(name, networks[name].default, amp)] for name in ("abl3", rival)
                )
                what = f"speed of abl3 against {rival}, AMP {amp}"
                found.append(Finding(what, *_speed(theirs, ours), least=least))
    if gpu:
        for name, network in networks.items():
            run = runs[Candidate(name, network.default, "bf16")]
            total = (run.peak + run.resident) / 1e9
            found.append(Finding(f"{name}: memory at most, AMP bf16", total, "GB", most=_PEAK))
    if (batch, crop) != (BATCH, CROP):
        found = [replace(x, least=None, most=None) for x in found]
    if gpu and labels:
        least = _CROPS_PER_SECOND if crop == CROP else None
        for name, network in networks.items():
            run = runs[Candidate(name, network.default, "bf16")]
            rates = [batch / x["step"] for x in run.seconds]
            what = f"{name}: throughput with labels, AMP bf16, batch {batch}"
            found.append(Finding(what, *_spread(rates, "crops/s"), least=least))
    return [x.row() for x in found]


def verdicts(found: list[dict[str, Any]]) -> str:
    """Findings as a table; nothing where there are none."""
    rows = [_cells(x) for x in found]
    return markdown(["", "found", "target", ""], rows) if rows else ""


def _of_checkpointing(name: str, runs: Mapping[Candidate, Run]) -> list[Finding]:
    """What checkpointing and AMP save and cost one network, together and each alone."""
    neither, amp, checkpoint, both = (
        runs[Candidate(name, mode, amp)] for mode in (False, True) for amp in ("off", "bf16")
    )
    found = []
    for label, run, least in (("checkpointing and AMP", both, _LESS_MEMORY), ("AMP", amp, None)):
        for kind in ("peak", "saved"):
            what = {"peak": "peak memory", "saved": "activations"}[kind]
            saved = 100 * (1 - getattr(run, kind) / getattr(neither, kind))
            found.append(Finding(f"{name}: {what} saved by {label}", saved, "%", least=least))
    for precision, slow, fast in (("off", checkpoint, neither), ("bf16", both, amp)):
        costs = [100 * (x - 1) for x in _ratios(slow, fast)]
        what = f"{name}: time that checkpointing costs, AMP {precision}"
        found.append(Finding(what, *_spread(costs, "%"), most=_CHECKPOINTING_TIME))
    return found


def _speed(slow: Run, fast: Run) -> tuple[float, str, float, float]:
    return _spread(_ratios(slow, fast), "x")


def _ratios(one: Run, other: Run) -> list[float]:
    return [x["step"] / y["step"] for x, y in zip(one.seconds, other.seconds, strict=True)]


def _spread(values: list[float], unit: str) -> tuple[float, str, float, float]:
    return statistics.median(values), unit, min(values), max(values)


def _cells(x: Mapping[str, Any]) -> list[str]:
    places = 2 if x["unit"] in ("x", "GB") else 1
    value = f"{x['value']:.{places}f}"
    if x["low"] is not None:
        value += f" ({x['low']:.{places}f} to {x['high']:.{places}f})"
    target = ""
    if x["least"] is not None:
        target = f"at least {x['least']:g} {x['unit']}"
    elif x["most"] is not None:
        target = f"at most {x['most']:g} {x['unit']}"
    return [x["what"], f"{value} {x['unit']}", target, x["verdict"]]
