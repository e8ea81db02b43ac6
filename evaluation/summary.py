"""`summary.json`: everything that was found, for programs. Free of torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from evaluation.analysis import Analysis
from evaluation.metrics import METRICS
from evaluation.models import Model, System
from evaluation.notes import versions

SUMMARY = "summary.json"


def summary(analysis: Analysis) -> str:
    """JSON text. A mean that does not exist is null; `count` says how many files one is over."""
    content = {
        "data": analysis.data,
        "files": len(analysis.utterances),
        "versions": versions(),
        "warnings": list(analysis.warnings),
        "systems": {system.name: _system(system) for system in analysis.systems},
        "models": {model.name: _model(analysis, model) for model in analysis.models},
        "baseline": analysis.baseline.name,
        "comparisons": {
            name: {metric: asdict(found) if found else None for metric, found in each.items()}
            for name, each in analysis.comparisons.items()
        },
        "primary": [
            {
                "other": each.other.name,
                "reference": each.reference.name,
                "comparisons": {
                    metric: asdict(found) if found else None
                    for metric, found in each.comparisons.items()
                },
            }
            for each in analysis.primary
        ],
        "breakdowns": [
            {
                "axis": breakdown.axis,
                "source": breakdown.source,
                "groups": {label: len(names) for label, names in breakdown.groups.items()},
                "means": {
                    name: {
                        metric: {
                            label: asdict(mean) if mean else None for label, mean in groups.items()
                        }
                        for metric, groups in metrics.items()
                    }
                    for name, metrics in means.items()
                },
            }
            for breakdown, means in analysis.breakdowns
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _system(system: System) -> dict[str, Any]:
    scores = {m: [row.scores[m] for row in system.rows if m in row.scores] for m in METRICS}
    return {
        "files": len(system.rows),
        "means": {m: math.fsum(x) / len(x) if x else None for m, x in scores.items()},
        "scored": {m: len(x) for m, x in scores.items()},
        "notes": {row.utterance: row.note for row in system.rows if row.note},
        "facts": dict(system.facts),
    }


def _model(analysis: Analysis, model: Model) -> dict[str, Any]:
    return {
        "runs": [system.name for system in model.systems],
        "means": {
            metric: asdict(mean) if mean else None
            for metric, mean in analysis.means[model.name].items()
        },
        "spreads": {
            metric: asdict(found) for metric, found in analysis.spreads[model.name].items()
        },
    }
