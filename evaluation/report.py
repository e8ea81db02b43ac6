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

from data.files import replacing
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
        lines += [_escape(f"{system.name}: {_training(system.facts)}") for system in trained]
        lines.append(
            "best.pt is chosen by PESQ on the held-out speakers, last.pt not at all; averaged "
            "weights; one seed each; no PCS, no PESQ loss."
        )
    lines.append(", ".join(f"{name} {v}" for name, v in _versions().items()) + ".")
    return "\n".join(lines) + "\n"


def _training(facts: dict[str, Any]) -> str:
    """How a network was trained, in one sentence."""
    changes = [f"{name} {value}" for name, value in facts["beside_recipe"].items()]
    held_out = facts["held_out"]
    more = f" and {len(held_out) - 4} more" if len(held_out) > 4 else ""
    return (
        f"{facts['checkpoint']}, {facts['epochs']:.2f} epochs of batches of {facts['batch']}, "
        f"seed {facts['seed']}, recipe {' with '.join([facts['recipe'], *changes])}, "
        f"held out {', '.join(held_out[:4])}{more}."
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("pesq", "pystoi", "numpy", "torch")}


def _escape(text: str) -> str:
    """For a cell of a table in Markdown, on one line."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").splitlines())


def _write(path: Path, text: str) -> None:
    # Names that are no valid text, which a file system may hold, are written with escapes.
    content = text.encode("utf-8", "backslashreplace")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
