"""What the scores of several systems say: means, differences, groups of files, doubts; as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from bsbimamba.data import benchmark
from bsbimamba.data.corpus import is_table, list_pairs
from bsbimamba.metrics import statistics
from bsbimamba.metrics.scores import HAS_DNSMOS, METRICS
from bsbimamba.metrics.statistics import Comparison, Interval, Values, mean_interval
from bsbimamba.utils import DataError

NOISY = "noisy"
# Of the packages that the scores come from.
_USED = ["pesq", "pystoi", *["speechmos", "onnxruntime"] * HAS_DNSMOS, "numpy", "scipy", "torch"]
VERSIONS = {name: version(name) for name in _USED}
# The comparisons that answer the project's question, as (other, reference) by the names of their
# configurations. Both sides read time both ways, so that only the kind of layer differs.
PRIMARY = (("abl3", "bsrnn_bi"), ("abl2", "lstm_dualpath"))

SNR, NOISE, SPEAKER = "input SNR (dB)", "noise", "speaker"
# Of VCTK and VoiceBank-DEMAND (p232_001), and of LibriSpeech (1089-134686-0001).
_SPEAKER = r"^(?:.*/)?([a-z]\d{1,3}(?=_\d{3})|\d+(?=-\d+-\d{4}))"
_MOST_GROUPS = 40  # more columns than this are no table
_EDGES = (-math.inf, -5, 0, 5, 10, 15, 20, math.inf)  # dB; a bin holds its lower edge
_BINS = ("below -5", "-5 to 0", "0 to 5", "5 to 10", "10 to 15", "15 to 20", "20 and above")


@dataclass(frozen=True)
class System:
    """One trained run, one folder of files, or the noisy recordings.

    files: its audio by utterance; where there is none, the reason. facts: of the network and its
    training, none of a folder of files; `model` is the name of its configuration, `family` all that
    runs of one model have in common. log: the lines of its training's `metrics.jsonl`.
    """

    name: str
    files: Mapping[str, Path | str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, Any]] = ()


@dataclass
class Model:
    """Runs of one model that differ in their seed and in nothing else; mostly one.

    runs: their names. scores: by metric, (runs, files), NaN where a file has no score.
    """

    name: str
    systems: Sequence[System]
    scores: Mapping[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        facts = self.systems[0].facts
        self.runs = [system.name for system in self.systems]
        # The name of its configuration; of a folder of files, which has none, its own.
        self.configuration = facts.get("model", self.name)
        # How many trainings there are; none for a folder of files and the noisy recordings.
        self.seeds = len(self.systems) if facts else 0

    @cached_property
    def means(self) -> dict[str, Interval | None]:
        """By metric; None where no file has a score."""
        return {metric: mean_interval(scores) for metric, scores in self.scores.items()}

    @cached_property
    def run_means(self) -> dict[str, list[float]]:
        """By metric, of each run, over the files that all runs have."""
        return {metric: statistics.run_means(scores) for metric, scores in self.scores.items()}

    def by_file(self, metric: str) -> Values:
        """Return means over the runs (files,), NaN where one has no score."""
        return self.scores[metric].mean(axis=0)

    def fact(self, name: str) -> float:
        """Return the mean over the runs of a number among their facts, NaN where one lacks it."""
        return float(np.mean(np.array([x.facts.get(name) for x in self.systems], float)))


@dataclass
class Pair:
    """A comparison of two models by metric; p corrected over the pairs of its table."""

    other: Model
    reference: Model
    comparisons: dict[str, Comparison | None]


@dataclass
class Breakdown:
    """The utterances of a test in groups: PESQ by model and group.

    axis: SNR, NOISE or SPEAKER. source: where that is from. groups: the utterances by label.
    """

    axis: str
    source: str
    groups: dict[str, list[str]]
    pesq_wb: dict[str, dict[str, Interval | None]] = field(default_factory=dict)


class Analysis:
    """All that a report shows of the scores of some systems.

    Attributes:
        models: noisy recordings first, if there are any (`noisy`, else None); `enhancing`: the
            others. systems: all their runs.
        utterances: names of the clean files, sorted.
        comparisons: of each model with the `baseline`; `primary`: those of `PRIMARY`.
        warnings: reasons to doubt the scores, each a sentence.
    """

    def __init__(
        self,
        systems: Sequence[System],
        rows: pd.DataFrame,
        clean: Mapping[str, Path],
        data: Path,
        baseline: str | None = None,
    ) -> None:
        """Analyse `rows`, as of `score_files`, and the `clean` files by utterance of a corpus."""
        self.rows, self.clean = rows, clean
        # Tables are published: they do not say where the data lie on this machine.
        self.data = "/".join(data.resolve().parts[-2:])
        self.utterances = sorted(clean)
        self.models = models_of(systems)
        table = rows.pivot(index="system", columns="utterance", values=list(METRICS))
        for model in self.models:
            model.scores = {
                metric: table[metric].reindex(model.runs, columns=self.utterances).to_numpy()
                for metric in METRICS
            }
        self.systems = [system for model in self.models for system in model.systems]
        self.enhancing = [model for model in self.models if model.name != NOISY]
        self.noisy = next((model for model in self.models if model.name == NOISY), None)
        self.baseline = choose_baseline(self.models, baseline)
        others = [model for model in self.models if model is not self.baseline]
        self.comparisons = _compare([(model, self.baseline) for model in others])
        every = product(self.models, self.models)
        self.primary = _compare([x for x in every if tuple(y.configuration for y in x) in PRIMARY])
        noisy = self.noisy.by_file if self.noisy else None
        self.warnings = doubts(self.utterances, noisy("pesq_wb")) if noisy else []
        for name, found in rows.groupby("system", sort=False):
            self.warnings += fault_warnings(f"{name}", found.set_index("utterance")["faults"])
        snr = pd.Series(noisy("snr") if noisy else math.nan, self.utterances)
        self.breakdowns = find_breakdowns(snr, data)
        for breakdown, model in product(self.breakdowns, self.models):
            breakdown.pesq_wb[model.name] = {
                label: mean_interval(model.scores["pesq_wb"][:, np.isin(self.utterances, group)])
                for label, group in breakdown.groups.items()
            }


def models_of(systems: Sequence[System]) -> list[Model]:
    """Return systems by model, in the order of each one's first, without scores.

    A seed that comes twice is not a second one.
    """
    models: dict[str, list[System]] = {}
    for system in systems:
        group = models.setdefault(str(system.facts.get("family", system.name)), [])
        if system.facts and system.facts["seed"] in [each.facts["seed"] for each in group]:
            group = models.setdefault(system.name, [])
        group.append(system)
    return [
        Model(f"{x[0].facts['model']} ({len(x)} seeds)" if len(x) > 1 else x[0].name, x)
        for x in models.values()
    ]


def choose_baseline(models: Sequence[Model], name: str | None) -> Model:
    """Return the model of this name, or that has a run of it, to compare others with.

    Without a name: the model called bsrnn or baseline, else the noisy recordings, else the first.
    Raise DataError if there is none of that name.
    """
    for wanted, model in product([name] if name else ["bsrnn", "baseline", NOISY], models):
        if wanted in (model.name, *(model.runs if name else [model.configuration])):
            return model
    if name:
        known = ", ".join(model.name for model in models)
        raise DataError(f"there is no {name} to compare with; there are: {known}")
    return models[0]


def find_breakdowns(snr: pd.Series, root: Path) -> list[Breakdown]:
    """Return what utterances can be broken down by, without means; not a single group or too many.

    A table of pairs or VoiceBank's log of the test set says it, if it knows all files; else the
    measured SNR and the speakers in the files' names.

    snr: in dB as measured, NaN where it is not, by utterance, below the folder of clean files.
    root: of the corpus, the folder of its clean files, or a table of pairs.
    """
    source, known = _listed(root)
    facts = [known.get(u) or known.get(PurePosixPath(u).name, [None] * 3) for u in snr.index]
    listed = pd.DataFrame(facts, snr.index, [SNR, NOISE, SPEAKER]).replace("", None)
    others = pd.DataFrame({SNR: snr, NOISE: None})
    others[SPEAKER] = snr.index.str.extract(_SPEAKER, expand=False)
    found = []
    for axis, other in ((SNR, "measured"), (NOISE, ""), (SPEAKER, "the files' names")):
        is_listed = listed[axis].notna().all()
        column = (listed if is_listed else others)[axis]
        if axis == SNR:
            finite = column.astype(float).clip(upper=1e6)  # a clean recording has an infinite SNR
            column = pd.cut(finite, _EDGES, right=False, labels=_BINS)
        groups = {str(x): list(y.index) for x, y in column.groupby(column, observed=True)}
        if 1 < len(groups) <= _MOST_GROUPS:
            found.append(Breakdown(axis, source if is_listed else other, groups))
    return found


def _listed(root: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the corpus' table or log, and SNR, noise and speaker by utterance."""
    if is_table(root):
        listing = list_pairs(root, "test")
        facts = {x: (snr, noise, listing.speakers[x]) for x, (noise, snr) in listing.noises.items()}
        return root.name, facts
    log: dict[str, tuple[str, float]] = {}
    for place, folder in product((root, *root.absolute().parents[:2]), ("", benchmark.LOG_FOLDER)):
        log = log or benchmark.read_log(place / folder / benchmark.TEST_LOG)
    return benchmark.TEST_LOG, {x: (snr, noise, None) for x, (noise, snr) in log.items()}


def summary(analysis: Analysis) -> str:
    """Return everything as JSON text, for programs. A mean that does not exist is null."""
    systems = {}
    for system in analysis.systems:
        rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
        systems[system.name] = {
            "means": {m: None if math.isnan(x) else x for m, x in rows[[*METRICS]].mean().items()},
            "scored": rows[[*METRICS]].count().to_dict(),
            "notes": rows["note"][rows["note"] != ""].to_dict(),
            "facts": system.facts,
        }
    content = {
        "data": analysis.data,
        "files": len(analysis.clean),
        "versions": VERSIONS,
        "warnings": analysis.warnings,
        "systems": systems,
        "models": {
            x.name: {"runs": x.runs, "means": x.means, "run_means": x.run_means}
            for x in analysis.models
        },
        "baseline": analysis.baseline.name,
        "comparisons": {x.other.name: x.comparisons for x in analysis.comparisons},
        "primary": [
            {"other": x.other.name, "reference": x.reference.name, "comparisons": x.comparisons}
            for x in analysis.primary
        ],
        "breakdowns": analysis.breakdowns,
    }
    return json.dumps(content, indent=1, allow_nan=False, default=asdict) + "\n"


def doubts(utterances: Sequence[str], pesq: Values) -> list[str]:
    """Return why the noisy files of VoiceBank-DEMAND's whole test set cannot be right, if so.

    Any right copy has a known mean PESQ. The set is recognised by its number of files a speaker.
    pesq: (files,), of the noisy files.
    """
    scores = pd.Series(pesq, [PurePosixPath(name).name.partition("_")[0] for name in utterances])
    scores = scores[scores.index.isin(list(benchmark.TEST_FILES))]
    right, tolerance = benchmark.NOISY_PESQ, benchmark.PESQ_TOLERANCE
    is_whole = scores.groupby(level=0).size().to_dict() == benchmark.TEST_FILES
    if not is_whole or (scores.notna().all() and abs(scores.mean() - right) <= tolerance):
        return []
    return [
        f"The noisy files are those of {benchmark.NAME}'s test set, but the PESQ of "
        f"{scores.count()} of its {len(scores)} files is {scores.mean():.3f} instead of "
        f"{right:.2f} ± {tolerance:.2f}. Files are paired wrongly, resampled badly, of another "
        "rate than their headers say, or cut: no score here can be trusted."
    ]


def fault_warnings(system: str, faults: pd.Series) -> list[str]:
    """Return a sentence for each kind of fault in a system's files, `find_faults` by utterance."""
    texts = []
    for kind in dict.fromkeys(kind for found in faults for kind in found):
        hit = {utterance: found[kind] for utterance, found in faults.items() if kind in found}
        first, text = next(iter(hit.items()))
        texts.append(f"{system}: {len(hit)} of {len(faults)} files, such as {first}: {text}.")
    return texts


def _compare(models: Sequence[tuple[Model, Model]]) -> list[Pair]:
    """Compare each (other, reference) in every metric; p corrected over the pairs."""
    pairs = [Pair(other, reference, {}) for other, reference in models]
    for name, metric in METRICS.items():
        for pair in pairs:
            scores = pair.reference.scores[name], pair.other.scores[name]
            found = statistics.compare(*scores, metric.tie, metric.higher_is_better)
            pair.comparisons[name] = found
        tests = [test for pair in pairs if (test := pair.comparisons[name])]
        statistics.set_holm(tests)
        statistics.set_holm([test.over_seeds for test in tests if test.over_seeds])
    return pairs
