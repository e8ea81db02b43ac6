"""The files that an evaluation leaves: `per_file.csv`, `summary.json`, `table.md`."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS
from evaluation.scoring import Row

_HEADINGS = {
    "pesq_wb": ("PESQ-WB", "{:.3f}"),
    "stoi": ("STOI", "{:.4f}"),
    "estoi": ("ESTOI", "{:.4f}"),
    "si_sdr": ("SI-SDR (dB)", "{:.2f}"),
}


@dataclass(frozen=True)
class System:
    """Everything known of one system. facts: of its training, empty for a folder of files."""

    name: str
    rows: Sequence[Row]
    facts: dict[str, Any] = field(default_factory=dict)

    def values(self, metric: str) -> list[float]:
        """The scores that there are, in the files' order."""
        return [row.scores[metric] for row in self.rows if metric in row.scores]

    def mean(self, metric: str) -> float | None:
        """Over the files that have that score; None where none has."""
        values = self.values(metric)
        return math.fsum(values) / len(values) if values else None


def write_report(out: Path, systems: Sequence[System], data: str) -> str:
    """Write the three files into the folder `out` and return the table, in Markdown.

    systems: of different names, each with a row for the same files.
    data: what was scored, for the record.
    """
    table = _table(systems, data)
    _write(out / "per_file.csv", _per_file(systems))
    _write(out / "summary.json", json.dumps(_summary(systems, data), indent=1) + "\n")
    _write(out / "table.md", table)
    return table


def _per_file(systems: Sequence[System]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["system", "utterance", *METRICS, "note"])
    for system in systems:
        for row in system.rows:
            scores = [f"{row.scores[m]:.6f}" if m in row.scores else "" for m in METRICS]
            writer.writerow([system.name, row.utterance, *scores, row.note])
    # `csv` puts no quotes around a carriage return, which readers take for the end of a line.
    return text.getvalue().replace("\r", "\\r")


def _summary(systems: Sequence[System], data: str) -> dict[str, Any]:
    return {
        "data": data,
        "versions": _versions(),
        "systems": {
            system.name: {
                "files": len(system.rows),
                "means": {m: system.mean(m) for m in METRICS},
                "scored": {m: len(system.values(m)) for m in METRICS},
                "notes": {row.utterance: row.note for row in system.rows if row.note},
                "facts": system.facts,
            }
            for system in systems
        },
    }


def _table(systems: Sequence[System], data: str) -> str:
    lines = [
        "| system | parameters | steps | " + " | ".join(h for h, _ in _HEADINGS.values()) + " |",
        "|---|---:|---:|" + "---:|" * len(_HEADINGS),
    ]
    for system in systems:
        cells = [
            _escape(system.name),
            f"{system.facts['parameters']:,}" if "parameters" in system.facts else "",
            f"{system.facts['step']:,}" if "step" in system.facts else "",
        ]
        for metric, (_, form) in _HEADINGS.items():
            mean = system.mean(metric)
            cells.append("none" if mean is None else form.format(mean))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Means over the {len(systems[0].rows)} files of {_escape(data)}."]
    for system in systems:
        lacking = sum(len(row.scores) < len(METRICS) for row in system.rows)
        if lacking:
            lines.append(
                f"{_escape(system.name)}: {lacking} without all scores, for reasons in "
                "per_file.csv; a mean is over those that have the score."
            )
        noted = sum(bool(row.note) for row in system.rows) - lacking
        if noted:
            lines.append(f"{_escape(system.name)}: {noted} with a note in per_file.csv.")
    trained = [system for system in systems if system.facts]
    if trained:
        parts = [
            f"{_escape(s.name)}: {s.facts['checkpoint']}, seed {s.facts['seed']}, "
            f"recipe {s.facts['recipe']}"
            for s in trained
        ]
        lines += [
            "; ".join(parts) + ".",
            "best.pt is chosen by PESQ on held-out speakers, last.pt not at all; averaged weights; "
            "one seed each; no PCS, no PESQ loss.",
        ]
    lines.append(", ".join(f"{name} {v}" for name, v in _versions().items()) + ".")
    return "\n".join(lines) + "\n"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("pesq", "pystoi", "numpy")}


def _escape(text: str) -> str:
    """For a cell of a table in Markdown, on one line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").splitlines())


def _write(path: Path, text: str) -> None:
    # Names that are no valid text, which a file system may hold, are written with escapes.
    content = text.encode("utf-8", "backslashreplace")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
