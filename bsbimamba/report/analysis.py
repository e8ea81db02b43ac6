"""What the scores of several systems say: means, differences, conditions, doubts; as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from bsbimamba.data.benchmark import NAME, NOISY_PESQ, PESQ_TOLERANCE, TEST_FILES
from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import (
    MARKED_SEEDS,
    Comparison,
    Interval,
    Spread,
    Values,
    compare,
    holm,
    mean_interval,
    set_holm,
    spread,
)
from bsbimamba.report.conditions import Breakdown, find_breakdowns
from bsbimamba.utils import DataError, some

NOISY = "noisy"
# A configuration of this name is what others are compared with, if nobody says otherwise.
_BASELINES = ("bsrnn", "baseline")
# The comparisons that answer the project's question, as (other, reference) by the names of their
# configurations. Both sides read time both ways, so that only the kind of layer differs.
PRIMARY = (("abl3", "bsrnn_bi"), ("abl2", "lstm_dualpath"))


@dataclass(frozen=True)
class System:
    """One trained run, one folder of files, or the noisy recordings.

    Attributes:
        files: its audio by utterance; where there is none, the reason.
        facts: of the network and its training; empty for a folder of files. `model` is the name of
            its configuration, `family` all that runs of one model have in common.
        log: the lines of its training's `metrics.jsonl`.
    """

    name: str
    files: Mapping[str, Path | str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Model:
    """Runs of one model that differ in their seed and in nothing else; mostly one.

    scores: by metric, (runs, files), NaN where a file has no score.
    """

    name: str
    systems: Sequence[System]
    scores: Mapping[str, Values] = field(default_factory=dict)

    @property
    def runs(self) -> list[str]:
        return [system.name for system in self.systems]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the first run, as most are those of all; `hours` is the mean over the runs."""
        hours = [system.facts["hours"] for system in self.systems if "hours" in system.facts]
        mean = {"hours": sum(hours) / len(hours)} if len(hours) == len(self.systems) else {}
        return {
            name: fact for name, fact in self.systems[0].facts.items() if name != "hours"
        } | mean

    @property
    def configuration(self) -> str:
        """The name of its configuration; of a folder of files, which has none, its own."""
        return str(self.facts.get("model", self.name))

    @property
    def seeds(self) -> int:
        """How many trainings there are; 0 for a folder of files and the noisy recordings."""
        return len(self.systems) if self.systems[0].facts else 0

    @cached_property
    def means(self) -> dict[str, Interval | None]:
        """By metric; None where no file has a score."""
        return {metric: mean_interval(scores) for metric, scores in self.scores.items()}

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """By metric."""
        return {metric: spread(scores) for metric, scores in self.scores.items()}

    def by_file(self, metric: str) -> Values:
        """Return means over the runs (files,), NaN where one has no score."""
        return self.scores[metric].mean(axis=0)

    def by_group(self, breakdown: Breakdown, files: list[str]) -> dict[str, Interval | None]:
        """Return PESQ's mean by group."""
        pesq = self.scores["pesq_wb"]
        groups = breakdown.groups.items()
        return {label: mean_interval(pesq[:, np.isin(files, group)]) for label, group in groups}


@dataclass(frozen=True)
class Pair:
    """A comparison of two models by metric; p corrected over the pairs of its table."""

    other: Model
    reference: Model
    comparisons: dict[str, Comparison | None]


class Analysis:
    """All that a report shows of the scores of some systems.

    Attributes:
        models: noisy recordings first, if there are any (`noisy`, else None); `enhancing`: the
            others. systems: all their runs.
        utterances: names of the clean files, sorted.
        baseline: what the others are compared with. comparisons: of each of them with it.
        primary: the comparisons of `PRIMARY` whose models are here.
        breakdowns: with PESQ's means by model and group.
        warnings: reasons to doubt the scores, each a sentence.
    """

    def __init__(
        self,
        systems: Sequence[System],
        rows: pd.DataFrame,
        clean: Mapping[str, Path],
        data: str,
        root: Path | None = None,
        baseline: str | None = None,
    ) -> None:
        """Analyse the rows that `score_files` returns for these systems.

        Args:
            clean: the clean files by utterance.
            data: the corpus' name, for the record. root: see `find_breakdowns`.
            baseline: see `choose_baseline`.
        """
        self.rows, self.clean, self.data = rows, clean, data
        self.utterances = sorted(clean)
        tables = {m: rows.pivot(index="system", columns="utterance", values=m) for m in METRICS}
        self.models = [
            replace(model, scores={
                metric: table.reindex(model.runs, columns=self.utterances).to_numpy()
                for metric, table in tables.items()
            })
            for model in models_of(systems)
        ]  # fmt: skip
        self.systems = [system for model in self.models for system in model.systems]
        self.enhancing = [model for model in self.models if model.name != NOISY]
        self.noisy = next((model for model in self.models if model.name == NOISY), None)
        self.baseline = choose_baseline(self.models, baseline)
        others = [model for model in self.models if model is not self.baseline]
        self.comparisons = _pairs([(model, self.baseline) for model in others])
        self.primary = _pairs(
            [
                (other, reference)
                for pair in PRIMARY
                for other in self.models
                for reference in self.models
                if (other.configuration, reference.configuration) == pair
            ]
        )
        self.warnings: list[str] = []
        snr: dict[str, float] = {}
        if self.noisy:
            self.warnings = doubts(self.utterances, self.noisy.by_file("pesq_wb"))
            snr = dict(zip(self.utterances, self.noisy.by_file("snr"), strict=True))
        self.breakdowns = [
            (each, {model.name: model.by_group(each, self.utterances) for model in self.models})
            for each in find_breakdowns(self.utterances, snr, root)
        ]


def models_of(systems: Sequence[System]) -> list[Model]:
    """Return systems by model, in the order of each one's first, without scores.

    A seed that comes twice is not a second one.
    """
    families: list[list[System]] = []
    for system in systems:
        for family in families if system.facts else ():
            same = system.facts["family"] == family[0].facts.get("family")
            if same and system.facts["seed"] not in [each.facts["seed"] for each in family]:
                family.append(system)
                break
        else:
            families.append([system])
    return [
        Model(f"{x[0].facts['model']} ({len(x)} seeds)" if len(x) > 1 else x[0].name, x)
        for x in families
    ]


def choose_baseline(models: Sequence[Model], name: str | None) -> Model:
    """Return the model that others are compared with.

    name: of a model or of one of its runs. Where None, the model called bsrnn or baseline, else the
    noisy recordings, else the first.

    Raises:
        DataError: there is none of that name.
    """
    for wanted in [name] if name else [*_BASELINES, NOISY]:
        for model in models:
            if wanted in (model.name, *(model.runs if name else [model.configuration])):
                return model
    if name:
        known = ", ".join(model.name for model in models)
        raise DataError(f"there is no {name} to compare with; there are: {known}")
    return models[0]


def summary(analysis: Analysis) -> str:
    """Return everything as JSON text, for programs. A mean that does not exist is null."""
    systems = {}
    for system in analysis.systems:
        rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
        scored = rows[list(METRICS)]
        systems[system.name] = {
            "means": {m: None if math.isnan(x) else x for m, x in scored.mean().items()},
            "scored": scored.count().to_dict(),
            "notes": rows["note"][rows["note"] != ""].to_dict(),
            "facts": system.facts,
        }
    content = {
        "data": analysis.data,
        "files": len(analysis.clean),
        "versions": versions(),
        "warnings": analysis.warnings,
        "systems": systems,
        "models": {
            x.name: {"runs": x.runs, "means": x.means, "spreads": x.spreads}
            for x in analysis.models
        },
        "baseline": analysis.baseline.name,
        "comparisons": {x.other.name: x.comparisons for x in analysis.comparisons},
        "primary": [
            {"other": x.other.name, "reference": x.reference.name, "comparisons": x.comparisons}
            for x in analysis.primary
        ],
        "breakdowns": [asdict(x) | {"pesq_wb": means} for x, means in analysis.breakdowns],
    }
    return json.dumps(content, indent=1, allow_nan=False, default=asdict) + "\n"


def versions() -> dict[str, str]:
    """Return those of the packages that the scores come from."""
    return {name: version(name) for name in ("pesq", "pystoi", "numpy", "scipy", "torch")}


def doubts(utterances: Sequence[str], pesq: Values) -> list[str]:
    """Return why the noisy files of VoiceBank-DEMAND's whole test set cannot be right, if so.

    Any right copy has a known mean PESQ. The set is recognised by its number of files a speaker.
    pesq: (files,), of the noisy files.
    """
    speakers = [PurePosixPath(name).name.partition("_")[0] for name in utterances]
    members = np.isin(speakers, list(TEST_FILES))
    if Counter(np.compress(members, speakers).tolist()) != TEST_FILES:
        return []
    count, mean = int(np.isfinite(pesq[members]).sum()), float(np.nanmean(pesq[members]))
    if count == members.sum() and abs(mean - NOISY_PESQ) <= PESQ_TOLERANCE:
        return []
    return [
        f"The noisy files are those of {NAME}'s test set, but the PESQ of {count} of its "
        f"{members.sum()} files is {mean:.3f} instead of {NOISY_PESQ:.2f} ± {PESQ_TOLERANCE:.2f}. "
        "Clean and noisy files are paired wrongly, resampled badly, of another rate than their "
        "headers say, or cut: no score of this table can be trusted."
    ]


def marks_of(analysis: Analysis, metrics: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return "▲", "▼" or "" by model and metric, wherever the seeds were tested.

    A mark is a difference to the baseline at 5 %, by the test over seeds after Holm's correction
    over all pairs of model and metric that have at least `MARKED_SEEDS` seeds a side.
    """
    tested = [
        ((pair.other.name, metric), found.difference.mean, found.over_seeds.p)
        for pair in analysis.comparisons
        for metric in metrics
        if (found := pair.comparisons[metric])
        and found.over_seeds
        and min(found.over_seeds.seeds) >= MARKED_SEEDS
    ]
    marks = {}
    for (place, difference, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        better = (difference > 0) == METRICS[place[1]].higher_is_better
        marks[place] = "" if p >= 0.05 else "▲" if better else "▼"
    return marks


def reasons_apart(systems: Sequence[System]) -> list[str]:
    """Say where runs of one configuration and of two seeds are not two seeds of one model."""
    lines = []
    for one, two in combinations(systems, 2):
        a, b = one.facts["family"], two.facts["family"]
        keys = sorted(key for key in {**a, **b} if a.get(key) != b.get(key))
        same = one.facts["model"] == two.facts["model"] and one.facts["seed"] != two.facts["seed"]
        if same and keys:
            names = f"{one.name} and {two.name}"
            why = f"they differ in {some(keys, 4)}"
            lines.append(f"{names} are no two seeds of one model: {why}.")
    return lines


def _pairs(pairs: Sequence[tuple[Model, Model]]) -> list[Pair]:
    """Compare each (other, reference) in every metric; p corrected over the pairs."""
    made: list[Pair] = [Pair(other, reference, {}) for other, reference in pairs]
    for name, metric in METRICS.items():
        found = [
            compare(b.scores[name], a.scores[name], metric.tie, metric.higher_is_better)
            for a, b in pairs
        ]
        set_holm([each for each in found if each])
        set_holm([each.over_seeds for each in found if each and each.over_seeds])
        for pair, comparison in zip(made, found, strict=True):
            pair.comparisons[name] = comparison
    return made
