"""What the scores of several systems say: means, differences, conditions, doubts; as JSON."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.benchmark import NAME, NOISY_PESQ, PESQ_TOLERANCE, TEST_FILES
from data.utils import DataError
from evaluation.conditions import Breakdown, find_breakdowns
from evaluation.scores import METRICS, PACKAGES
from evaluation.statistics import (
    Comparison,
    Interval,
    Spread,
    Values,
    compare,
    mean_interval,
    spread,
    with_holm,
)

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
    def facts(self) -> dict[str, Any]:
        """Those of the first run, as most are those of all; `hours` is the mean over the runs."""
        hours = [system.facts.get("hours", math.nan) for system in self.systems]
        mean = {} if np.isnan(hours).any() else {"hours": float(np.mean(hours))}
        return {k: v for k, v in self.systems[0].facts.items() if k != "hours"} | mean

    @property
    def configuration(self) -> str:
        """The name of its configuration; of a folder of files, which has none, its own."""
        return str(self.facts.get("model", self.name))

    @property
    def seeds(self) -> int:
        """How many trainings there are; 0 for a folder of files and the noisy recordings."""
        return len(self.systems) if self.facts else 0

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


@dataclass(frozen=True)
class Pair:
    """A comparison of two models by metric; p corrected over the pairs of its table."""

    other: Model
    reference: Model
    comparisons: Mapping[str, Comparison | None]


@dataclass(frozen=True)
class Analysis:
    """All that a report shows of scores.

    Attributes:
        data: what was scored, for the record. clean: the clean files by utterance.
        rows: of `per_file.csv`.
        models: noisy recordings first, if there are any.
        baseline: what the others are compared with. comparisons: of each of them with it.
        primary: the comparisons of `PRIMARY` whose models are here.
        breakdowns: with PESQ's means by model and group.
        warnings: reasons to doubt the scores, each a sentence.
    """

    data: str
    clean: Mapping[str, Path]
    rows: pd.DataFrame
    models: Sequence[Model]
    baseline: Model
    comparisons: Sequence[Pair]
    primary: Sequence[Pair]
    breakdowns: Sequence[tuple[Breakdown, Mapping[str, Mapping[str, Interval | None]]]]
    warnings: Sequence[str]

    @property
    def utterances(self) -> list[str]:
        return sorted(self.clean)

    @property
    def systems(self) -> list[System]:
        return [system for model in self.models for system in model.systems]

    @property
    def noisy(self) -> Model | None:
        return next((model for model in self.models if model.name == NOISY), None)

    @property
    def enhancing(self) -> list[Model]:
        """All models but the noisy recordings."""
        return [model for model in self.models if model.name != NOISY]


def analyse(
    systems: Sequence[System],
    rows: pd.DataFrame,
    clean: Mapping[str, Path],
    data: str,
    root: Path | None = None,
    baseline: str | None = None,
) -> Analysis:
    """Analyse the rows that `score_or_recall` returns for these systems.

    Args:
        data: the corpus' name, for the record. root: see `find_breakdowns`.
        baseline: see `choose_baseline`.
    """
    names = sorted(clean)
    tables = {m: rows.pivot(index="system", columns="utterance", values=m) for m in METRICS}
    models = []
    for model in models_of(systems):
        runs = [system.name for system in model.systems]
        scores = {m: table.reindex(runs, columns=names).to_numpy() for m, table in tables.items()}
        models.append(replace(model, scores=scores))
    reference = choose_baseline(models, baseline)
    primary = [
        (a, b)
        for names_of_both in PRIMARY
        for a, b in product(models, models)
        if (a.configuration, b.configuration) == names_of_both
    ]
    noisy = next((model for model in models if model.name == NOISY), None)
    snr = dict(zip(names, noisy.by_file("snr"), strict=True)) if noisy else {}
    breakdowns = []
    for each in find_breakdowns(names, snr, root):
        members = {label: np.isin(names, group) for label, group in each.groups.items()}
        means = {
            model.name: {
                label: mean_interval(model.scores["pesq_wb"][:, there])
                for label, there in members.items()
            }
            for model in models
        }
        breakdowns.append((each, means))
    return Analysis(
        data=data,
        clean=clean,
        rows=rows,
        models=models,
        baseline=reference,
        comparisons=_pairs([(model, reference) for model in models if model is not reference]),
        primary=_pairs(primary),
        breakdowns=breakdowns,
        warnings=doubts(names, noisy.by_file("pesq_wb")) if noisy else [],
    )


def models_of(systems: Sequence[System]) -> list[Model]:
    """Return systems by model, in the order of each one's first.

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
    taken = {system.name for system in systems}
    models = []
    for family in families:
        name = family[0].name
        if len(family) > 1:
            name = f"{family[0].facts['model']} ({len(family)} seeds)"
            while name in taken:
                name += "'"
            taken.add(name)
        models.append(Model(name, family))
    return models


def choose_baseline(models: Sequence[Model], name: str | None) -> Model:
    """Return the model that others are compared with.

    name: of a model or of one of its runs. Where None, the model called bsrnn or baseline, else the
    noisy recordings, else the first.

    Raises:
        DataError: there is none of that name.
    """
    if name is not None:
        for model in models:
            if name in (model.name, *(system.name for system in model.systems)):
                return model
        known = ", ".join(model.name for model in models)
        raise DataError(f"there is no {name} to compare with; there are: {known}")
    for wanted in (*_BASELINES, NOISY):
        for model in models:
            if wanted in (model.name, model.configuration):
                return model
    return models[0]


def summary(analysis: Analysis) -> str:
    """Return everything as JSON text, for programs. A mean that does not exist is null."""
    systems = {}
    for system in analysis.systems:
        rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
        scored = rows[list(METRICS)]
        systems[system.name] = {
            "files": len(analysis.clean),
            "means": {m: None if math.isnan(x) else x for m, x in scored.mean().items()},
            "scored": {m: int(count) for m, count in scored.count().items()},
            "notes": {name: note for name, note in rows["note"].items() if note},
            "facts": system.facts,
        }
    content = {
        "data": analysis.data,
        "files": len(analysis.clean),
        "versions": versions(),
        "warnings": analysis.warnings,
        "systems": systems,
        "models": {
            x.name: {"runs": [y.name for y in x.systems], "means": x.means, "spreads": x.spreads}
            for x in analysis.models
        },
        "baseline": analysis.baseline.name,
        "comparisons": {x.other.name: x.comparisons for x in analysis.comparisons},
        "primary": [
            {"other": x.other.name, "reference": x.reference.name, "comparisons": x.comparisons}
            for x in analysis.primary
        ],
        "breakdowns": [
            {"axis": x.axis, "source": x.source, "groups": x.groups, "pesq_wb": means}
            for x, means in analysis.breakdowns
        ],
    }
    return json.dumps(content, indent=1, allow_nan=False, default=asdict) + "\n"


def versions() -> dict[str, str]:
    """Return those of the packages that the scores come from."""
    return {name: version(name) for name in (*PACKAGES, "torch")}


def doubts(utterances: Sequence[str], pesq: Values) -> list[str]:
    """Return why the noisy files of VoiceBank-DEMAND's whole test set cannot be right, if so.

    Any right copy has a known mean PESQ. The set is recognised by its number of files a speaker.
    pesq: (files,), of the noisy files.
    """
    matches = [re.fullmatch(r"(?:.*/)?(p\d+)_\d{3}", name) for name in utterances]
    speakers = [match[1] if match and match[1] in TEST_FILES else "" for match in matches]
    if Counter(filter(None, speakers)) != TEST_FILES:
        return []
    found = pesq[[bool(speaker) for speaker in speakers]]
    count, known = int(np.isfinite(found).sum()), f"{NOISY_PESQ:.2f} ± {PESQ_TOLERANCE:.2f}"
    start = f"The noisy files are those of {NAME}'s test set, but "
    if count < len(found):
        return [
            f"{start}only {count} of {len(found)} have a PESQ, whose mean should be {known}: "
            "something is wrong with the files."
        ]
    if abs(found.mean() - NOISY_PESQ) > PESQ_TOLERANCE:
        return [
            f"{start}their PESQ is {found.mean():.3f} instead of {known}. Clean and noisy files "
            "are paired wrongly, resampled badly, of another rate than their headers say, or cut: "
            "no score of this table can be trusted."
        ]
    return []


def _pairs(pairs: Sequence[tuple[Model, Model]]) -> list[Pair]:
    """Compare each (other, reference) in every metric; p corrected over the pairs."""
    found: list[dict[str, Comparison | None]] = [{} for _ in pairs]
    for name, metric in METRICS.items():
        tested = [
            compare(b.scores[name], a.scores[name], metric.tie, metric.higher_is_better)
            for a, b in pairs
        ]
        for each, comparison in zip(found, with_holm(tested), strict=True):
            each[name] = comparison
    return [Pair(*pair, each) for pair, each in zip(pairs, found, strict=True)]
