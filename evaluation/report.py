"""The files that an evaluation leaves: `per_file.csv`, `summary.json`, `table.md`."""

from __future__ import annotations

import csv
import io
import json
import math
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

    def mean(self, metric: str) -> float:
        """Over the files that have that score; NaN where none has."""
        values = self.values(metric)
        return math.fsum(values) / len(values) if values else math.nan

    def values(self, metric: str) -> list[float]:
        """The scores that there are, in the files' order."""
        return [row.scores[metric] for row in self.rows if metric in row.scores]

    @property
    def unscored(self) -> list[Row]:
        """Files that lack a score."""
        return [row for row in self.rows if len(row.scores) < len(METRICS)]


def write_report(out: Path, systems: Sequence[System], data: str) -> str:
    """Write the three files into `out` (made if missing) and return the table, in Markdown.

    data: what was scored, for the record.
    """
    out.mkdir(parents=True, exist_ok=True)
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
    return text.getvalue()


def _summary(systems: Sequence[System], data: str) -> dict[str, Any]:
    return {
        "data": data,
        "versions": _versions(),
        "systems": {
            system.name: {
                "files": len(system.rows),
                "means": {m: _number(system.mean(m)) for m in METRICS},
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
            system.name.replace("|", "\\|"),
            f"{system.facts['parameters']:,}" if "parameters" in system.facts else "",
            f"{system.facts['step']:,}" if "step" in system.facts else "",
        ]
        for metric, (_, form) in _HEADINGS.items():
            mean = system.mean(metric)
            cells.append("none" if math.isnan(mean) else form.format(mean))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"Means over the {len(systems[0].rows)} files of {data}."]
    for system in systems:
        if system.unscored:
            lines.append(f"{system.name}: {len(system.unscored)} files lack scores (per_file.csv).")
    trained = [system for system in systems if system.facts]
    if trained:
        parts = [
            f"{s.name}: {s.facts['checkpoint']}, seed {s.facts['seed']}, recipe {s.facts['recipe']}"
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


def _number(x: float) -> float | None:
    return None if math.isnan(x) else x


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
