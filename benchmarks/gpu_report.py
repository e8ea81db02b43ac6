"""What `make bench-gpu` has measured, as `docs/gpu.md`; what it has not is called so.

    python -m benchmarks.gpu_report [--results FOLDER] [--out FILE]

Figures come from the benchmarks' files alone, and from one GPU, that of the newest: one of a CPU or
of another card does not count. A benchmark that failed keeps its earlier figures, with their own
date and commit. Where there are none at all, the page that is there stays, and the status is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import memory_12gb, step
from benchmarks.candidates import FOUR, networks
from benchmarks.findings import Finding, verdicts
from benchmarks.results import FOLDER, ROOT, markdown, where
from data.utils import write_text

_MIB = 2**20
_HEAD = """# Measured on a GPU

Written by `python -m benchmarks.gpu_report` from what `make bench-gpu` left in `.cache/bench`,
each section by the run that it names. Times are medians, with the lowest and the highest where
there are two more figures.
"""
Result = Mapping[str, Any]
_FASTER = {"time path": 1.5, "band path": 3.0}  # than mamba-ssm, forward and backward
_MAMBA = "mamba-ssm with flips"


@dataclass(frozen=True)
class Section:
    """A part of the page: what a benchmark's result shows, and which rows it should have.

    command: the module and its arguments.
    """

    title: str
    command: str
    tables: Callable[[Result], str]
    measured: Callable[[Result], set[str]]
    expected: tuple[str, ...]

    def text(self, result: Result | None) -> str:
        """In Markdown, without the title."""
        missing = set(self.expected) - (self.measured(result) if result else set())
        rows = [[name, "not measured"] for name in self.expected if name in missing]
        rest = markdown(["", "result"], rows) if rows else ""
        if result is None:
            return rest
        return "\n".join(
            part for part in (f"{where(result)}.\n", self.tables(result), rest) if part
        )


def _scan(result: Result) -> str:
    parts = []
    for name, shape in result["shapes"].items():
        ours = shape["rows"][result["ours"]]
        rows = []
        for rival, row in shape["rows"].items():
            if "reason" not in row:
                times = (_with_ratio(row[pass_], ours[pass_]) for pass_ in ("forward", "both"))
                peak = "" if row["peak"] is None else f"{row['peak'] / _MIB:,.0f}"
                rows.append([rival, *times, peak])
        title = f"{name}, {shape['size']}, {shape['dtype'].removeprefix('torch.')}"
        parts.append(markdown([title, "forward", "forward + backward", "peak (MiB)"], rows))
        found = _against_mamba(name, shape["rows"].get(_MAMBA, {}), ours)
        for part, share in shape.get("ceilings", {}).items():
            found.append(Finding(f"{name}: {part}, of a copy's rate", 100 * share, "%"))
        parts.append(verdicts([x.row() for x in found]))
    return "\n".join(parts)


def _against_mamba(name: str, theirs: Result, ours: Result) -> list[Finding]:
    """Our time and memory against its, as far as both were measured."""
    found = []
    if theirs.get("both") and ours["both"]:
        what, ratio = f"{name}: speed against mamba-ssm", theirs["both"] / ours["both"]
        found.append(Finding(what, ratio, "x", least=_FASTER[name]))
    if theirs.get("peak") and ours["peak"]:
        what, ratio = f"{name}: memory against mamba-ssm", ours["peak"] / theirs["peak"]
        found.append(Finding(what, ratio, "x", most=1.0))
    return found


def _with_ratio(seconds: float | None, ours: float | None) -> str:
    if seconds is None:
        return "not measured"
    return f"{1e3 * seconds:.2f} ms" + (f" ({seconds / ours:.2f}x)" if ours else "")


def _scanned(result: Result) -> set[str]:
    """Those that every shape has times of."""
    found = [
        {name for name, row in shape["rows"].items() if "reason" not in row}
        for shape in result["shapes"].values()
    ]
    return set.intersection(*found) if found else set()


def _steps(result: Result) -> str:
    labels = "constant labels"
    if result["labels"]:
        labels = f"PESQ labels by {result['pesq_workers']} of {result['cores']} cores"
    sizes = f"{result['batch']} x {result['crop']:g} s, {result['rounds']} rounds, {labels}.\n"
    return f"{sizes}\n{step.tables(result)}"


def _memory(result: Result) -> str:
    return f"{memory_12gb.held(result)}\n\n{memory_12gb.table(result)}"


def _labels(result: Result) -> str:
    low, middle, high = (result["ratio"][name] for name in ("min", "median", "max"))
    verdict = "reached" if middle <= result["target"] else "missed"
    rows = [
        *([name, f"{1e3 * x['median']:.0f} ms"] for name, x in result["seconds"].items()),
        ["labels alone", f"{1e3 * result['labels_alone']:.0f} ms"],
        ["with / without", f"{middle:.3f} ({low:.3f} to {high:.3f})"],
        ["target", f"at most {result['target']}: {verdict}"],
    ]
    title = f"{result['network']}, {result['batch']} x {result['crop']:g} s, {result['amp']}"
    return markdown([f"{title}, {result['workers']} PESQ workers", "a step"], rows)


def _networks(result: Result) -> set[str]:
    return set(result["networks"])


SECTIONS = {
    "scan": Section("The scan", "scan --device cuda", _scan, _scanned, (_MAMBA, "triton")),
    "step": Section("A training step", "step --device cuda", _steps, _networks, tuple(networks())),
    "step_labels": Section(
        "A training step of a large batch, with PESQ labels",
        "step --device cuda --batch 32 --labels --only abl3 baseline",
        _steps,
        _networks,
        ("baseline", "abl3"),
    ),
    "memory_12gb": Section(
        "Memory of a 12 GiB card",
        "memory_12gb",
        _memory,
        lambda result: {row["network"] for row in result["rows"]},
        FOUR,
    ),
    "pesq_pool": Section(
        "What PESQ labels cost",
        "pesq_pool --device cuda",
        _labels,
        lambda result: {"with labels", "without"},
        ("with labels", "without"),
    ),
}


def results(folder: Path) -> dict[str, Result]:
    """Those in a folder that are of the GPU of the newest."""
    paths = {name: folder / f"{name}.json" for name in SECTIONS}
    read = {k: json.loads(v.read_text(encoding="utf-8")) for k, v in paths.items() if v.is_file()}
    found = {name: result for name, result in read.items() if result["cuda"]}
    if not found:
        return {}
    newest = max(found.values(), key=lambda result: datetime.fromisoformat(result["date"]))
    return {k: v for k, v in found.items() if v["device"] == newest["device"]}


def render(found: Mapping[str, Result]) -> str:
    """The page, of results by name."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        text = section.text(found.get(name))
        parts.append(f"## {section.title}\n\n`python -m benchmarks.{section.command}`\n\n{text}")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu.md", metavar="FILE")
    options = parser.parse_args()
    found = results(options.results)
    if not found:
        print(
            f"gpu_report: no result of a GPU in {options.results}; wrote nothing", file=sys.stderr
        )
        return 1
    write_text(options.out, render(found))
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
