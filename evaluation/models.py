"""What is compared: systems, and the models that they are runs of. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from evaluation.scoring import Row

NOISY = "noisy"


@dataclass(frozen=True)
class System:
    """One trained run, one folder of files, or the noisy recordings.

    Attributes:
        rows: one for every utterance, in the same order for all systems.
        facts: of the network and its training; empty for a folder of files. `model` is the name of
            its configuration, `method` all settings but the seed, as one text.
        files: its audio by utterance.
        run: the folder that it was trained in.
    """

    name: str
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    run: Path | None = None

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
        """Those of the first run; but for the seed and what was measured, they are those of all."""
        return self.systems[0].facts

    def scores(self, metric: str) -> NDArray[np.float64]:
        """(runs, files), NaN where a file has no score."""
        return np.stack([system.values(metric) for system in self.systems])

    def row_scores(self, metric: str) -> NDArray[np.float64]:
        """(files,): means over the runs, NaN where one has no score."""
        return self.scores(metric).mean(axis=0)


def models_of(systems: Sequence[System]) -> list[Model]:
    """Systems by model, in the order of each one's first. A seed that comes twice is no second."""
    families: list[list[System]] = []
    for system in systems:
        method, seed = system.facts.get("method"), system.facts.get("seed")
        for family in families:
            seeds = [other.facts.get("seed") for other in family]
            if method and method == family[0].facts.get("method") and seed not in seeds:
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


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each system: its folder's, with the folder above where that is not enough.

    Raises:
        DataError: two would have the same.
    """
    folders = [folder.resolve() for folder in folders]
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names) or NOISY in names:
        names = [f"{folder.parent.name}-{folder.name}" for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two runs would be called {name}: name each once, or rename a folder")
    return names


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
