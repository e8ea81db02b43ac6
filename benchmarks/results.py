"""What all benchmarks share: runs taken in turn, tables, and JSON files that name the machine."""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from bsbimamba.utils import hardware, source, write_text

MIB = 2**20
_PACKAGES = ("torch", "numpy", "numba", "triton", "mambapy", "mamba_ssm", "mamba-ssm", "pesq")
K = TypeVar("K")
V = TypeVar("V")


def command_line(page: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks. page: the docstring of the module."""
    about = (page or "").partition("\n\n")[0]
    parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    return parser


def in_turn(runs: Mapping[K, Callable[[], V]], rounds: int) -> dict[K, list[V]]:
    """Call all functions once a round; return the results of each.

    So, a change of the machine's speed affects all of them.
    """
    found: dict[K, list[V]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the least and the most of some values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table in plain text: numbers to three digits, None as nothing.

    rows: values by column.
    """
    cells = pd.DataFrame(list(rows), dtype=object).fillna("")
    digits = lambda x: f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"  # noqa: E731
    return cells.to_string(index=False, float_format=digits) + "\n"


def report(text: str, path: Path | None, device: torch.device, **result: Any) -> None:
    """Print a result's text, and below it the machine, date, commit and versions.

    path: a JSON file to write these and the whole result to; None: no file.
    """
    code, installed = source(), {x.name: x.version for x in distributions()}
    head = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": code.get("commit", "unknown")[:10] + "+" * code.get("dirty", False),
        "device": hardware(device),
        "python": platform.python_version(),
        **{name: installed[name] for name in _PACKAGES if name in installed},
    }
    print(f"{text}\n" + ", ".join(f"{name} {value}" for name, value in head.items()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(head | result, indent=1) + "\n")
