"""Report the results of a benchmark: tables, and JSON files with the machine and the versions."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from bsbimamba.utils import hardware, source, write_text

MIB = 2**20
_PACKAGES = ("numpy", "numba", "triton", "mambapy", "mamba_ssm", "mamba-ssm", "pesq")


def described(benchmark: str, device: torch.device, **settings: Any) -> dict[str, Any]:
    """Return the head of a result: benchmark, date, commit, versions, machine, settings."""
    code = source()
    return {
        "benchmark": benchmark,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": code.get("commit", "unknown")[:10] + "+" * code.get("dirty", False),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {each.name: each.version for each in distributions() if each.name in _PACKAGES},
        "device": hardware(device),
        **settings,
    }


def report(result: Mapping[str, Any], text: str, path: Path | None) -> None:
    """Print a result's text, and below it the machine, date and versions.

    path: a JSON file to write the whole result to; None: no file.
    """
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    when = f"{result['date'][:10]}, commit {result['commit']}"
    print(f"{text}\n{result['device']}; {when}; {versions}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(result, indent=1) + "\n")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the most of some values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, aligned for a terminal: the first column to the left, the others
    to the right."""
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    first, *others = widths
    rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
    lines = [
        [row[0].ljust(first), *(x.rjust(w) for x, w in zip(row[1:], others, strict=True))]
        for row in (head, *rows)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))
