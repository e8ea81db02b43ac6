"""What a table of scores rests on, in sentences. Free of torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from data.audio import SAMPLE_RATE
from data.utils import some
from evaluation.analysis import Analysis
from evaluation.metrics import METRICS, PACKAGES
from evaluation.models import System, kept_apart
from evaluation.scoring import COMMON_PART, samples_cut

_LISTED = 4
_some = partial(some, most=_LISTED)


def notes(analysis: Analysis) -> list[str]:
    """Doubts, then all else."""
    return [*(f"Warning: {text}" for text in analysis.warnings), *remarks(analysis)]


def remarks(analysis: Analysis) -> list[str]:
    """Files without a score, how the networks were trained, what the figures are."""
    lines = []
    for system in analysis.systems:
        lines += _files(system)
    for name, other, settings in kept_apart(analysis.systems):
        lines.append(
            f"{name} and {other} are no two seeds of one model, as they differ in "
            f"{_some(settings)}."
        )
    trained = [system for system in analysis.systems if system.facts]
    lines += [f"{system.name}: {_training(system.facts)}" for system in trained]
    if trained:
        lines.append(
            "best.pt is chosen by PESQ on the held-out speakers, last.pt not at all; averaged "
            "weights; no PCS, no PESQ loss."
        )
    speeds = Counter(s.facts["measured_on"] for s in trained if "measured_on" in s.facts)
    lines += [f"RTF (seconds for a second of audio) and memory: measured on {on}." for on in speeds]
    lines.append(
        "File intervals and tests over files are about more files like these. They do not cover "
        "other speakers or other seeds."
    )
    single = [model.name for model in analysis.models if model.facts and len(model.systems) == 1]
    if single:
        lines.append(
            f"Of {_some(single)} there is only one seed: differences may be chance of the training."
        )
    lines.append(
        "CSIG, CBAK and COVL are on Loizou's scale; many papers give the float scale, which is "
        "about 0.1 higher for noisy speech, up to 0.5 for enhanced speech, and stands beside. STOI "
        "is that of the script which VoiceBank-DEMAND is scored with."
    )
    lines.append(", ".join(f"{name} {v}" for name, v in versions().items()) + ".")
    return lines


def versions() -> dict[str, str]:
    """Of the packages that the scores come from."""
    found = {}
    for name in (*PACKAGES, "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def failed(system: System) -> list[str]:
    """The utterances that lack a score, files without a clean one among them."""
    rows = [*system.rows, *system.extra]
    return [row.utterance for row in rows if len(row.scores) < len(METRICS)]


def _files(system: System) -> list[str]:
    lines = []
    lacking = failed(system)
    if lacking:
        lines.append(
            f"{system.name}: {len(lacking)} of {len(system.rows) + len(system.extra)} files "
            f"without all scores ({_some(lacking)}), for reasons in per_file.csv; a mean is over "
            "those that have the score."
        )
    cut = {row.utterance: samples_cut(row.note) for row in system.rows if COMMON_PART in row.note}
    if cut:
        most = max(cut.values()) / SAMPLE_RATE
        lines.append(
            f"{system.name}: {len(cut)} files are not as long as the clean ones, by up to "
            f"{most:.3f} s ({_some(list(cut))}); the common part is scored, which is not what is "
            "scored of others."
        )
    others = [row for row in system.rows if row.note and COMMON_PART not in row.note]
    noted = [row.utterance for row in others if len(row.scores) == len(METRICS)]
    if noted:
        lines.append(f"{system.name}: {len(noted)} with a note in per_file.csv ({_some(noted)}).")
    return lines


def _training(facts: Mapping[str, Any]) -> str:
    """How a network was trained, in one sentence."""
    changes = [f"{name} {value}" for name, value in facts["beside_recipe"].items()]
    return (
        f"{facts['checkpoint']}, {facts['epochs']:.2f} epochs of batches of {facts['batch']}, "
        f"seed {facts['seed']}, recipe {' with '.join([facts['recipe'], *changes])}, "
        f"held out {_some(facts['held_out'])}{_made(facts)}."
    )


def _made(facts: Mapping[str, Any]) -> str:
    """Where, by what and for how long a network was trained, as far as it is known."""
    if "sessions" not in facts:
        return ""
    hours = facts.get("hours", math.nan)
    spent = f"{60 * hours:.1f} minutes" if hours < 0.5 else f"{hours:.2f} hours"
    spent = "hours not known" if math.isnan(hours) else spent
    several = f" in {facts['sessions']} sessions" if facts["sessions"] > 1 else ""
    return (
        f"; {spent} on {_some(facts['devices'])}{several}, torch {_some(facts['torch'])}, commit "
        f"{_some(facts['commits'])}"
    )
