"""What the scores of several systems say: means, differences, conditions, doubts. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.conditions import Breakdown, find_conditions
from evaluation.metrics import METRICS
from evaluation.models import NOISY, Model, System, models_of, noisy_of
from evaluation.published import BENCHMARK, Benchmark
from evaluation.seeds import Spread, spread
from evaluation.statistics import (
    Comparison,
    Interval,
    compare,
    mean_interval,
    with_holm,
)

# A configuration of this name is what others are compared with, if nobody says otherwise.
_BASELINES = ("bsrnn", "baseline")
# The comparisons that answer the project's question, as (other, reference) by the names of their
# configurations. Both sides read time both ways, so that only the kind of layer differs.
PRIMARY = (("abl3", "bsrnn_bi"), ("abl2", "lstm_dualpath"))
BROKEN_DOWN = ("pesq_wb", "csig", "cbak", "covl", "stoi", "si_sdr")


class AnalysisError(ValueError):
    """What was asked for cannot be compared; the message says why."""


@dataclass(frozen=True)
class Primary:
    """One of the comparisons in `PRIMARY`, by metric."""

    other: Model
    reference: Model
    comparisons: Mapping[str, Comparison | None]


@dataclass(frozen=True)
class Analysis:
    """All that a report shows of scores.

    Attributes:
        data: what was scored, for the record.
        clean: the clean files by utterance.
        models: noisy recordings first, if there are any.
        means, spreads: by model and metric; no mean where no file has a score.
        baseline: what the others are compared with.
        comparisons: by model and metric, without the baseline's; p corrected over the models.
        primary: those of `PRIMARY` whose models are here; p corrected over them.
        breakdowns: with the means by model, metric (some only, `BROKEN_DOWN`) and group.
        warnings: reasons to doubt the scores, each a sentence.
        benchmark: the places of VoiceBank-DEMAND's whole test set among the utterances, or none.
    """

    data: str
    utterances: Sequence[str]
    clean: Mapping[str, Path]
    models: Sequence[Model]
    means: Mapping[str, Mapping[str, Interval | None]]
    spreads: Mapping[str, Mapping[str, Spread]]
    baseline: Model
    comparisons: Mapping[str, Mapping[str, Comparison | None]]
    primary: Sequence[Primary]
    breakdowns: Sequence[
        tuple[Breakdown, Mapping[str, Mapping[str, Mapping[str, Interval | None]]]]
    ]
    warnings: Sequence[str]
    benchmark: Sequence[int]

    @property
    def systems(self) -> list[System]:
        return [system for model in self.models for system in model.systems]

    @property
    def noisy(self) -> Model | None:
        return noisy_of(self.models)

    @property
    def enhancing(self) -> list[Model]:
        """All models but the noisy recordings."""
        return [model for model in self.models if model.name != NOISY]


def analyse(
    systems: Sequence[System],
    data: str,
    clean: Mapping[str, Path],
    root: Path | None = None,
    baseline: str | None = None,
    benchmark: Benchmark = BENCHMARK,
) -> Analysis:
    """Analyse systems that have rows for the same files.

    root: of the corpus, whose tables say under which conditions its files were recorded.
    baseline: the name of a model or of one of its runs; where None, the model called bsrnn or
        baseline, else the noisy recordings, else the first.

    Raises:
        AnalysisError: there is no baseline of that name.
    """
    models = models_of(systems)
    utterances = [row.utterance for row in systems[0].rows]
    chosen = choose_baseline(models, baseline)
    means = {model.name: {m: mean_interval(model.scores(m)) for m in METRICS} for model in models}
    others = [model for model in models if model is not chosen]
    comparisons = _compare_all([(model, chosen) for model in others])
    pairs = [
        (other, reference)
        for names in PRIMARY
        for other, reference in product(models, models)
        if (_configuration(other), _configuration(reference)) == names
    ]
    noisy = noisy_of(models)
    places = benchmark.members(utterances)
    snrs = {}
    if noisy:
        known = zip(utterances, noisy.row_scores("snr"), strict=True)
        snrs = {name: snr for name, snr in known if not math.isnan(snr)}
    return Analysis(
        data=data,
        utterances=utterances,
        clean=clean,
        models=models,
        means=means,
        spreads={model.name: {m: spread(model.scores(m)) for m in METRICS} for model in models},
        baseline=chosen,
        comparisons={model.name: each for model, each in zip(others, comparisons, strict=True)},
        primary=[
            Primary(*pair, each) for pair, each in zip(pairs, _compare_all(pairs), strict=True)
        ],
        breakdowns=[
            (breakdown, _broken_down(breakdown, models, utterances))
            for breakdown in find_conditions(utterances, snrs, root)
        ],
        warnings=_doubts(noisy, places, benchmark),
        benchmark=places,
    )


def choose_baseline(models: Sequence[Model], name: str | None) -> Model:
    """The model that others are compared with; see `analyse`.

    Raises:
        AnalysisError: there is none of that name.
    """
    if name is not None:
        for model in models:
            if name == model.name or name in [system.name for system in model.systems]:
                return model
        known = ", ".join(model.name for model in models)
        raise AnalysisError(f"there is no {name} to compare with; there are: {known}")
    for wanted in _BASELINES:
        for model in models:
            if wanted in (model.name, model.facts.get("model")):
                return model
    return noisy_of(models) or models[0]


def _configuration(model: Model) -> str:
    """Return the name of a run's configuration, or of a folder of files, which has none."""
    return str(model.facts.get("model", model.name))


def _compare_all(pairs: Sequence[tuple[Model, Model]]) -> list[dict[str, Comparison | None]]:
    """Compare each (other, reference) in every metric; p corrected over the pairs."""
    found: list[dict[str, Comparison | None]] = [{} for _ in pairs]
    for name, metric in METRICS.items():
        tested = with_holm([
            compare(
                reference.scores(name), other.scores(name), metric.tie, metric.higher_is_better
            )
            for other, reference in pairs
        ])  # fmt: skip
        for each, comparison in zip(found, tested, strict=True):
            each[name] = comparison
    return found


def _broken_down(
    breakdown: Breakdown, models: Sequence[Model], utterances: Sequence[str]
) -> dict[str, dict[str, dict[str, Interval | None]]]:
    """Means by model, metric and group."""
    place = {name: number for number, name in enumerate(utterances)}
    groups = {
        label: np.array([place[name] for name in names])
        for label, names in breakdown.groups.items()
    }

    def means(scores: NDArray[np.float64]) -> dict[str, Interval | None]:
        return {label: mean_interval(scores[:, members]) for label, members in groups.items()}

    return {
        model.name: {metric: means(model.scores(metric)) for metric in BROKEN_DOWN}
        for model in models
    }


def _doubts(noisy: Model | None, places: Sequence[int], benchmark: Benchmark) -> list[str]:
    """Whether the noisy side of the benchmark's test set scores as it is known to."""
    if noisy is None or not places:
        return []
    found = noisy.row_scores("pesq_wb")[places]
    count = np.isfinite(found).sum()
    expected = f"{benchmark.noisy_pesq:.2f} ± {benchmark.tolerance:.2f}"
    if count < len(places):
        return [
            f"The noisy files are those of {benchmark.name}, but only {count} of {len(places)} "
            f"have a PESQ, whose mean should be {expected}: something is wrong with the files."
        ]
    if abs(found.mean() - benchmark.noisy_pesq) > benchmark.tolerance:
        return [
            f"The noisy files are those of {benchmark.name}, but their PESQ is {found.mean():.3f} "
            f"instead of {expected}. Clean and noisy files are paired wrongly, resampled badly, of "
            "another rate than their headers say, or cut: no score of this table can be trusted."
        ]
    return []
