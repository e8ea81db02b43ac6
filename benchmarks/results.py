"""What benchmarks write down: JSON files, each with what it was measured on."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from data.utils import write_text

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "bench"
_CPU_INFO = Path("/proc/cpuinfo")  # Linux
_PACKAGES = ("numpy", "numba", "triton", "pesq")


def described(benchmark: str, device: torch.device, **settings: Any) -> dict[str, Any]:
    """The head of a result: which benchmark, where, when, of which code, and how it was set."""
    return {
        "benchmark": benchmark,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {name: found for name in _PACKAGES if (found := _version(name))},
        "device": machine(device),
        "cuda": device.type == "cuda",
        "threads": torch.get_num_threads(),
        **settings,
    }


def where(result: Mapping[str, Any]) -> str:
    """The same in words, but for how it was set."""
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    when = f"{result['date'][:10]}, commit {result['commit']}"
    return f"{result['device']}, {when}; {versions}; {threads}"


def machine(device: torch.device) -> str:
    """What is measured on: the card, or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def save(path: Path | None, content: dict[str, Any]) -> None:
    """Write a result, whole or not at all, where a path for it was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1) + "\n")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: bool = False) -> str:
    """A table that Markdown and a terminal show: all but the first column to the right, unless they
    are to the left, as text is."""
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    to_right = [False, *(not left for _ in widths[1:])]
    rule = ["-" * (w - r) + ":" * r for w, r in zip(widths, to_right, strict=True)]
    lines = [
        [x.rjust(w) if r else x.ljust(w) for x, w, r in zip(row, widths, to_right, strict=True)]
        for row in (head, *rows)
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """Of the code; with a "+" where files differ from it, "unknown" without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
