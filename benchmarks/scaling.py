"""The scaling law of the cost: time and memory against the length of a clip, and the batch.

    python -m benchmarks.scaling [--networks baseline abl3] [--json FILE] [--plot FILE]

Both should grow linearly. For each network: the generator's part of a training step
(`benchmarks.generator`) and enhancement at batch 1 over clips of 1 to 60 s; the former also over
batches of 1 s. Times are medians, all networks and sizes in turn; what is longer than 8 s of sound
is timed once. Memory is counted (`benchmarks.activations`): "peak" is what a pass takes at most,
"kept" what a forward pass leaves for its backward pass. Sizes for which there is not enough
memory are left out, which is said. About 7 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.candidates import FOUR
from benchmarks.generator import Generator, Pass, enough_memory
from benchmarks.laws import START, Law, fit
from benchmarks.results import described, save, where
from training.precision import Precision

USES = (("training", "seconds"), ("enhancement", "seconds"), ("training", "batch"))
_LENGTHS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # s
_BATCHES = (1, 2, 4, 8, 16)
_ONCE = 8.0  # seconds of sound beyond which a pass is timed once
_MIB = 2**20


@dataclass
class Point:
    """What a pass over one size costs.

    size: the clip's length in seconds, or the batch. peak, kept: bytes (enhancement keeps 0).
    times: seconds of each pass.
    """

    size: float
    peak: int
    kept: int
    times: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(self.times)


@dataclass
class Curve:
    """The points of one network in one use, "training" or "enhancement", over one axis.

    axis: "seconds" of a clip at batch 1, or "batch" of clips of 1 s. left_out: sizes for which
    there was not enough memory.
    """

    network: str
    use: str
    axis: str
    points: list[Point] = field(default_factory=list)
    left_out: list[float] = field(default_factory=list)

    def law(self, cost: str) -> Law | None:
        """The law of "seconds", "peak" or "kept"; None where there are too few sizes for one."""
        return fit([p.size for p in self.points], [getattr(p, cost) for p in self.points])


def measure(
    networks: Sequence[str],
    precision: Precision,
    lengths: Sequence[float],
    batches: Sequence[int],
    rounds: int,
) -> list[Curve]:
    """The curves of networks (folders), sizes growing."""
    generators = {name: Generator(name, precision) for name in networks}
    curves = [Curve(name, use, axis) for name in networks for use, axis in USES]
    timed: list[tuple[Point, Pass, int]] = []
    for curve in curves:
        for size in sorted(batches if curve.axis == "batch" else lengths):
            batch, seconds = (int(size), 1.0) if curve.axis == "batch" else (1, size)
            one = Pass(generators[curve.network], curve.use, batch, seconds)
            last = curve.points[-1] if curve.points else Point(size, 0, 0)
            forecast = last.peak * size / last.size
            memory = one.weigh() if enough_memory(forecast, precision.device) else None
            if memory is None:
                curve.left_out.append(size)
                continue
            curve.points.append(Point(size, *memory))
            timed.append((curve.points[-1], one, rounds if batch * seconds <= _ONCE else 1))
    for number in range(rounds):
        for point, one, wanted in timed:
            if number < wanted:
                point.times.append(one.seconds())
    return curves


def described_curves(precision: Precision, curves: Sequence[Curve]) -> dict[str, Any]:
    """Everything measured, for a file, the laws left out: they follow from it."""
    head = described("scaling", precision.device, amp=precision.amp)
    return {**head, "curves": [dataclasses.asdict(curve) for curve in curves]}


def curves_of(result: Mapping[str, Any]) -> list[Curve]:
    """Those that `described_curves` wrote."""
    return [
        Curve(**{**curve, "points": [Point(**point) for point in curve["points"]]})
        for curve in result["curves"]
    ]


def table(curves: Sequence[Curve]) -> str:
    """The measurements and laws as text."""
    lines = []
    for curve in curves:
        over = "clips at batch 1" if curve.axis == "seconds" else "batches of 1 s"
        lines.append(f"\n{curve.network}, {curve.use}, {over}")
        size = "s" if curve.axis == "seconds" else "batch"
        lines.append(f"{size:>8}{'ms':>10}{'peak':>13}{'kept':>13}")
        for point in curve.points:
            row = f"{point.size:8g}{1000 * point.seconds:10.1f}{point.peak / _MIB:9.0f} MiB"
            lines.append(row + (f"{point.kept / _MIB:9.0f} MiB" if point.kept else ""))
        if curve.left_out:
            sizes = ", ".join(f"{size:g}" for size in curve.left_out)
            lines.append(f"left out, not enough memory: {sizes}")
        lines += _laws(curve)
    return "\n".join(lines).lstrip()


def _laws(curve: Curve) -> list[str]:
    unit = "s" if curve.axis == "seconds" else "item"
    time, memory = curve.law("seconds"), curve.law("peak")
    if time is None or memory is None:
        return [f"no law: fewer than three sizes of {START:g} or more"]
    slope, offset = 1000 * time.slope, 1000 * time.intercept
    lines = [
        f"time ~ size^{time.exponent:.3f} (R^2 {time.r2:.4f}); {slope:.1f} ms a {unit} "
        f"{offset:+.1f} ms: {_verdict(time.is_linear_in_time)}",
    ]
    costs = {"peak": memory, "kept": curve.law("kept") if curve.use == "training" else None}
    for name, law in costs.items():
        if law:
            slope, offset = law.slope / _MIB, law.intercept / _MIB
            lines.append(
                f"{name} ~ size^{law.exponent:.3f} (R^2 {law.r2:.4f}); {slope:.1f} MiB a {unit} "
                f"{offset:+.1f} MiB, increments equal within {100 * law.unevenness:.1f} %: "
                f"{_verdict(law.is_linear_in_memory, law.is_at_most_linear_in_memory)}"
            )
    return lines


def _verdict(is_linear: bool, is_at_most_linear: bool = False) -> str:
    if is_linear:
        return "linear"
    return "no more than linear" if is_at_most_linear else "NOT linear"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.read:
        result = json.loads(options.read.read_text(encoding="utf-8"))
        curves = curves_of(result)
    else:
        precision = Precision(options.device, options.amp)
        curves = measure(
            options.networks, precision, options.lengths, options.batches, options.rounds
        )
        result = described_curves(precision, curves)
        save(options.json, result)
    print(f"{where(result)}; AMP {result['amp']}\n\n{table(curves)}")
    if options.plot:
        from benchmarks.scaling_plot import draw

        draw(options.plot, result, curves)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--amp", default="off", choices=("auto", "bf16", "fp16", "off"))
    parser.add_argument(
        "--networks", nargs="+", default=("baseline", "abl1", "abl3"), choices=FOUR,
        help="abl2 costs what abl3 does, and is left out unless asked for",
    )  # fmt: skip
    parser.add_argument("--lengths", type=float, nargs="+", default=_LENGTHS, metavar="SECONDS")
    parser.add_argument("--batches", type=int, nargs="+", default=_BATCHES, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a PNG there")
    parser.add_argument("--read", type=Path, metavar="FILE", help="such JSON, instead of measuring")
    options = parser.parse_args(arguments)
    if min(*options.lengths, *options.batches, options.rounds) <= 0:
        parser.error("--lengths, --batches and --rounds take numbers above 0")
    return options


if __name__ == "__main__":
    main()
