"""Systems made for tests, without any audio."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

from bsbimamba.metrics import statistics
from bsbimamba.metrics.scores import METRICS
from bsbimamba.report.analysis import Analysis, System

FACTS = {
    "model": "abl3",
    "family": {"network": "abl3.mbs_net:MBSNet"},
    "parameters": 2_012_345,
    "macs_per_second": 6.25e9,
    "real_time_factor": 0.3125,
    "measured_on": "2 threads of a CPU, 4 s at once",
    "checkpoint": "best.pt",
    "step": 12_000,
    "epochs": 6.221,
    "seed": 3,
    "batch": "6 x 2 s",
    "crops_per_step": 6.0,
    "recipe": "plain",
    "beside_recipe": {"optim.learning_rate": 0.001, "loss.time": 0.5},
    "held_out": ["p226", "p287"],
}
Scored = tuple[System, dict[str, float | None]]


def system(name: str, pesqs: dict[str, float | None], log: Any = (), **facts: Any) -> Scored:
    """PESQ by utterance; None: no score at all, for a reason."""
    return System(name, {}, {**FACTS, **facts} if facts else {}, log), pesqs


def numbered(name: str, gain: float, files: int = 30, seed: int = 0, **facts: Any) -> Scored:
    """Files a0, a1, ...: a common difficulty, this gain, and some chance of one's own."""
    difficulty = np.random.default_rng(99).uniform(1.2, 3, files)
    chance = np.random.default_rng(seed).normal(0, 0.05, files)
    pesqs = difficulty + gain + chance
    return system(name, {f"a{n}": float(pesq) for n, pesq in enumerate(pesqs)}, **facts)


def trained(model: str, *gains: float, **facts: Any) -> list[Scored]:
    """Runs of one configuration, one seed for each gain, in folders called MODEL-SEED."""
    made = []
    for seed, gain in enumerate(gains):
        _, pesqs = numbered("", gain, seed=7)
        own = {"model": model, "family": {"network": model}, "seed": seed, **facts}
        made.append(system(f"{model}-{seed}", pesqs, **own))
    return made


# With SNRs of 0 to 9 dB.
NOISY = system("noisy", {f"a{n}": 0.3 * n for n in range(30)})


def analysed(*systems: Scored, data: str = "corpus", **options: Any) -> Analysis:
    """Analyse them: all scores, PESQ as given and the others not far from it."""
    lines = []
    for each, pesqs in systems:
        for utterance, pesq in pesqs.items():
            note = "PESQ finds no speech" if pesq is None else ""
            values = {m: np.nan if pesq is None else pesq + 0.01 * n for n, m in enumerate(METRICS)}
            row = {"system": each.name, "utterance": utterance, "note": note, "faults": {}}
            lines.append(row | values)
    clean = options.pop("clean", None) or {name: Path(name) for _, x in systems for name in x}
    # Intervals of few draws, so that a test takes no seconds.
    with patch.object(statistics, "RESAMPLES", 199):
        analysis = Analysis(
            [each for each, _ in systems], pd.DataFrame(lines), clean, Path(data), **options
        )
        assert all(model.means for model in analysis.models)  # they are kept
    return analysis
