"""What `make bench-gpu` has measured, as `docs/gpu.md`; what it has not is called so.

    python -m benchmarks.gpu_report [--results FOLDER] [--out FILE]

Figures come from the benchmarks' files alone, and from a GPU alone: one of a CPU does not count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import memory_12gb, step
from benchmarks.candidates import FOUR, networks
from benchmarks.results import FOLDER, ROOT, markdown
from data.files import write_text

_MIB = 2**20
_HEAD = """# Measured on a GPU

Written by `python -m benchmarks.gpu_report` from what `make bench-gpu` left in `.cache/bench`.
Times are medians, with the lowest and the highest where there are two more figures.
"""
Result = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the page: what a benchmark's result shows, and which rows it should have."""

    title: str
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
        return "\n".join(part for part in (_where(result), self.tables(result), rest) if part)


def _where(result: Result) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    return (
        f"{result['device']}, {result['date'][:10]}, commit {result['commit']}; {versions}; "
        f"{result['threads']} threads.\n"
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
    return "\n".join(parts)


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
    labels = "PESQ labels" if result["labels"] else "constant labels"
    sizes = f"{result['batch']} x {result['crop']:g} s, {result['rounds']} rounds, {labels}.\n"
    return f"{sizes}\n{step.tables(result)}"


def _memory(result: Result) -> str:
    limit = f"PyTorch was held to {result['limit_bytes'] / _MIB:,.0f} MiB.\n"
    return f"{limit}\n{memory_12gb.table(result)}"


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


SECTIONS = {
    "scan": Section("The scan", _scan, _scanned, ("mamba-ssm with flips", "triton")),
    "step": Section(
        "A training step", _steps, lambda result: set(result["networks"]), tuple(networks())
    ),
    "memory_12gb": Section(
        "Memory of a 12 GiB card",
        _memory,
        lambda result: {row["network"] for row in result["rows"]},
        FOUR,
    ),
    "pesq_pool": Section(
        "What PESQ labels cost",
        _labels,
        lambda result: {"with labels", "without"},
        ("with labels", "without"),
    ),
}


def render(folder: Path) -> str:
    """The page, of the results in a folder."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        path = folder / f"{name}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        text = section.text(found if found and found["cuda"] else None)
        parts.append(f"## {section.title}\n\n`python -m benchmarks.{name}`\n\n{text}")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--results", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gpu.md", metavar="FILE")
    options = parser.parse_args()
    write_text(options.out, render(options.results))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
