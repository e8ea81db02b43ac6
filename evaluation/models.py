"""What is compared: systems, and the models that they are runs of. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.utils import DataError
from evaluation.scoring import Row

NOISY = "noisy"


@dataclass(frozen=True)
class System:
    """One trained run, one folder of files, or the noisy recordings.

    Attributes:
        rows: one for every utterance, in the same order for all systems.
        extra: those of its files that have no clean one.
        facts: of the network and its training; empty for a folder of files. `model` is the name of
            its configuration, `family` all that runs of one model have in common.
        files: its audio by utterance.
    """

    name: str
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    extra: Sequence[Row] = ()

    def values(self, metric: str) -> NDArray[np.float64]:
        """Scores (n,), NaN where a file has none."""
        return np.array([row.scores.get(metric, math.nan) for row in self.rows])


@dataclass(frozen=True)
class Model:
    """Runs of one model that differ in their seed and in nothing else; mostly one."""

    name: str
    systems: Sequence[System]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the first run; but for the seed and what was measured, they are those of all.

        `hours` is the mean over the runs, left out where it is not known of all.
        """
        facts = dict(self.systems[0].facts)
        hours = [system.facts.get("hours", math.nan) for system in self.systems]
        if facts.pop("hours", None) is not None and np.isfinite(hours).all():
            facts["hours"] = float(np.mean(hours))
        return facts

    @property
    def seeds(self) -> int:
        """How many trainings there are; 0 for a folder of files and the noisy recordings."""
        return len(self.systems) if self.systems[0].facts else 0

    def scores(self, metric: str) -> NDArray[np.float64]:
        """(runs, files), NaN where a file has no score."""
        return np.stack([system.values(metric) for system in self.systems])

    def row_scores(self, metric: str) -> NDArray[np.float64]:
        """(files,): means over the runs, NaN where one has no score."""
        return self.scores(metric).mean(axis=0)


def noisy_of(models: Sequence[Model]) -> Model | None:
    """The noisy recordings among them."""
    return next((model for model in models if model.name == NOISY), None)


def models_of(systems: Sequence[System]) -> list[Model]:
    """Systems by model, in the order of each one's first. A seed that comes twice is no second."""
    families: list[list[System]] = []
    for system in systems:
        common, seed = system.facts.get("family"), system.facts.get("seed")
        for family in families:
            seeds = [other.facts.get("seed") for other in family]
            if common and common == family[0].facts.get("family") and seed not in seeds:
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


def kept_apart(systems: Sequence[System]) -> list[tuple[str, str, list[str]]]:
    """Runs of one configuration and of different seeds that are no two seeds of one model.

    Each with the run that it is not pooled with, and what they differ in.
    """
    found = []
    for place, system in enumerate(systems):
        for other in systems[:place]:
            one, two = other.facts, system.facts
            if one.get("model") == two.get("model") and one.get("seed") != two.get("seed"):
                a, b = one["family"], two["family"]
                differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
                if differing:
                    found.append((system.name, other.name, differing))
                    break
    return found


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each system: its folder's; where that is not enough, with the folder above.

    paths: of folders, or of files in them, whose name is added where the folder's is not enough.

    Raises:
        DataError: two would have the same.
    """
    paths = [_resolved(path) for path in paths]
    folders = [path.parent if path.is_file() else path for path in paths]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names) or NOISY in names:
        names = [f"{folder.parent.name}-{folder.name}" for folder in folders]
    if len(set(names)) < len(names):
        names = [
            f"{name}-{path.stem}" if path.is_file() else name
            for name, path in zip(names, paths, strict=True)
        ]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two runs would be called {name}: name each once, or rename a folder")
    return names


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links: whoever reads it says so
        return path.absolute()


def without_gain(systems: Sequence[System]) -> list[str]:
    """The systems whose PESQ is not above that of the noisy recordings, the first of `systems`.

    In the mean of the files for which the noisy side has a score. A system that has none for one of
    them is not above.
    """
    noisy, *others = systems
    before = noisy.values("pesq_wb")
    there = np.isfinite(before)
    return [
        system.name
        for system in others
        if not (system.values("pesq_wb")[there] - before[there]).sum() > 0
    ]
