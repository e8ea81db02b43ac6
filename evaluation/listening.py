"""What the page lets one hear and see: files, their audio, their spectrograms. Free of torch."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE, AudioError, encode, read
from evaluation.analysis import Analysis
from evaluation.metrics import METRICS
from evaluation.models import Model
from evaluation.spectrogram import FLOOR_DB, levels

CLEAN = "clean"


@dataclass
class Source:
    """One system's version of an utterance. audio, picture: addresses, of data or a file beside."""

    audio: str
    picture: str = ""


@dataclass
class Utterance:
    """One utterance as it can be listened to.

    why: what is special about it, for those that the page shows; empty for all others.
    pesq: by source, as shown. means: by model, over its runs.
    """

    name: str
    seconds: float
    why: str = ""
    pesq: Mapping[str, str] = field(default_factory=dict)
    means: Mapping[str, str] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)


def listening(analysis: Analysis, out: Path, budget: float) -> list[Utterance]:
    """All utterances that have audio, those with something special about them first.

    Those have spectrograms and their audio in the page, as 16-bit wav. So have the others, until
    all audio takes `budget` bytes; beyond that, the page in the folder `out` plays the files where
    they lie. Of a model with several seeds the first run is heard.
    """
    special = featured(analysis)
    pesq = _pesq(analysis)
    names = [*special, *(name for name in analysis.utterances if name not in special)]
    found, used = [], 0.0
    for name in names:
        files = _files(analysis, name)
        if not files:
            continue
        utterance = Utterance(name, 0.0, special.get(name, ""), *pesq[name])
        if name in special or used < budget:
            signals = _signals(files)
            utterance.seconds = max((len(x) for x in signals.values()), default=0) / SAMPLE_RATE
            for source, signal in signals.items():
                # Not FLAC, half as large: Chromium can hang in a jump to near the end of one.
                utterance.sources[source] = Source(_data("audio/wav", encode(signal, ".wav")))
            if name in special:
                for source, picture in pictures(signals).items():
                    utterance.sources[source].picture = _data("image/png", picture)
            used += sum(len(each.audio) for each in utterance.sources.values())
        else:
            for source, path in files.items():
                utterance.sources[source] = Source(_address(path, out))
        if utterance.sources:
            found.append(utterance)
    return found


def leader(analysis: Analysis) -> Model | None:
    """The enhancing model of the highest mean PESQ."""
    scored = [
        (mean.mean, model)
        for model in analysis.enhancing
        if (mean := analysis.means[model.name]["pesq_wb"]) is not None
    ]
    return max(scored, key=lambda each: each[0], default=(0.0, None))[1]


def featured(analysis: Analysis) -> dict[str, str]:
    """The utterances that gain most, as much as half of them, and least, with words for it.

    By the PESQ of the leading model above the noisy recording's; without one, by its PESQ.
    """
    model, noisy = leader(analysis), analysis.noisy
    if model is None:
        return {}
    values = model.row_scores("pesq_wb")
    what, sign = f"PESQ of {model.name}", ""
    if noisy is not None:
        values = values - noisy.row_scores("pesq_wb")
        what, sign = f"PESQ of {model.name} against noisy", "+"
    known = [place for place in np.argsort(values, kind="stable") if np.isfinite(values[place])]
    if not known:
        return {}
    places = {"Best": known[-1], "Median": known[len(known) // 2], "Worst": known[0]}
    chosen: dict[str, str] = {}
    for word, place in places.items():
        name = analysis.utterances[place]
        chosen.setdefault(name, f"{word} file: {what} {values[place]:{sign}.2f}")
    return chosen


def pictures(signals: Mapping[str, NDArray]) -> dict[str, bytes]:
    """PNG images of spectrograms by name, without axes, on one scale."""
    images = {}
    for name, level in levels(signals).items():
        content = io.BytesIO()
        matplotlib.image.imsave(
            content, level, vmin=FLOOR_DB, vmax=0, cmap="magma", format="png", origin="lower"
        )
        images[name] = content.getvalue()
    return images


def _files(analysis: Analysis, utterance: str) -> dict[str, Path]:
    """By what they are called: noisy first, then each model's first run, then clean."""
    found = {
        voice(model): path
        for model in analysis.models
        if (path := model.systems[0].files.get(utterance)) is not None
    }
    if utterance in analysis.clean:
        found[clean_name(analysis)] = analysis.clean[utterance]
    return found


def voice(model: Model) -> str:
    """What the sound of a model is called: it is that of one run."""
    if len(model.systems) == 1:
        return model.name
    return f"{model.systems[0].name}, of {model.name}"


def clean_name(analysis: Analysis) -> str:
    """What the clean recordings are called beside the systems, one of which may be called clean."""
    name = CLEAN
    while any(voice(model) == name for model in analysis.models):
        name += "'"
    return name


def _pesq(analysis: Analysis) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """By utterance, as shown: of what is heard, and means over a model's runs."""
    show = METRICS["pesq_wb"].show
    shown: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        name: ({}, {}) for name in analysis.utterances
    }
    for model in analysis.models:
        scores = model.scores("pesq_wb")
        both = zip(shown.values(), scores[0], model.row_scores("pesq_wb"), strict=True)
        for (heard, means), first, mean in both:
            heard[voice(model)] = show(first) if np.isfinite(first) else ""
            means[model.name] = show(mean) if np.isfinite(mean) else ""
    return shown


def _signals(files: Mapping[str, Path]) -> dict[str, NDArray]:
    """What can be read, finite; all made softer alike where one would be clipped."""
    signals = {}
    for name, path in files.items():
        try:
            signal = np.nan_to_num(read(path), posinf=0.0, neginf=0.0)
        except AudioError:
            continue
        if signal.size:
            signals[name] = signal
    peak = max((float(np.abs(x).max()) for x in signals.values()), default=0.0)
    return {name: x / max(1.0, peak) for name, x in signals.items()}


def _address(path: Path, out: Path) -> str:
    """Of a file, from a page in `out`."""
    try:
        relative = os.path.relpath(path, out)
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
