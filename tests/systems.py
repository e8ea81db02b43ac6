"""Systems made for tests, without any audio."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.models import System
from evaluation.scoring import Row

FACTS = {
    "model": "abl3",
    "family": {"network": "abl3.mbs_net:MBSNet"},
    "parameters": 2_012_345,
    "macs_per_second": 6.25e9,
    "real_time_factor": 0.3125,
    "peak_memory": 123_400_000,
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


def row(system: str, utterance: str, pesq_wb: float, note: str = "") -> Row:
    """All scores, PESQ as given and the others not far from it."""
    scores = {name: pesq_wb + 0.01 * place for place, name in enumerate(METRICS)}
    return Row(system, utterance, scores, note)


def system(name: str, pesqs: dict[str, float | None], **facts: Any) -> System:
    """PESQ by utterance; None: no score at all, for a reason."""
    rows = [
        Row(name, utterance, {}, "PESQ finds no speech")
        if pesq is None
        else row(name, utterance, pesq)
        for utterance, pesq in pesqs.items()
    ]
    return System(name, rows, {**FACTS, **facts} if facts else {})


def numbered(name: str, gain: float, files: int = 30, seed: int = 0, **facts: Any) -> System:
    """Files a0, a1, ...: a common difficulty, this gain, and some chance of one's own."""
    difficulty = np.random.default_rng(99).uniform(1.2, 3, files)
    chance = np.random.default_rng(seed).normal(0, 0.05, files)
    pesqs = difficulty + gain + chance
    return system(name, {f"a{n}": float(pesq) for n, pesq in enumerate(pesqs)}, **facts)


def trained(model: str, *gains: float, **facts: Any) -> list[System]:
    """Runs of one configuration, one seed for each gain, in folders called MODEL-SEED."""
    own = {**FACTS, "model": model, "family": {"network": model}, **facts}
    return [
        System(f"{model}-{seed}", rows, {**own, "seed": seed})
        for seed, gain in enumerate(gains)
        for rows in [numbered("", gain, seed=7).rows]
    ]
