"""`report.html`: one page with the tables, the plots and the sounds, that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import jinja2
import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from data.audio import SAMPLE_RATE, AudioError, encode, read
from evaluation.analysis import Analysis, Model
from evaluation.figures import colour_of, plots
from evaluation.scores import METRICS
from evaluation.signals import FLOOR_DB, levels
from evaluation.tables import published, tables
from evaluation.text import remarks

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass
class Utterance:
    """One utterance as it can be listened to.

    why: what is special about it, for those that the page shows; empty for all others.
    pesq, audio, pictures: by voice; the latter two are addresses, of data or of a file beside.
    means: PESQ over its runs, by model.
    """

    name: str
    why: str
    pesq: dict[str, str]
    means: dict[str, str]
    seconds: float = 0.0
    audio: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


def report(analysis: Analysis, out: Path, budget: float) -> str:
    """Return the page. Names are escaped, whatever they are made of.

    Args:
        out: where the page will lie; files that are not in it are addressed from there.
        budget: bytes of audio after which no more goes into it (see `listening`).
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    utterances = listening(analysis, out, budget)
    voices: dict[str, int | None] = {voice(x): colour_of(analysis, x) for x in analysis.models}
    voices[_clean(analysis)] = None
    # What the script knows: names are numbers there, as not every one is text.
    audio = [
        {
            "seconds": each.seconds,
            "sources": {n: each.audio[x] for n, x in enumerate(voices) if x in each.audio},
            "pesq": {n: each.pesq.get(x, "") for n, x in enumerate(voices)},
        }
        for each in utterances
    ]
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        tables=[*tables(analysis), published()],
        plots=plots(analysis),
        remarks=remarks(analysis),
        utterances=utterances,
        voices=voices,
        audio=audio,
        linked=sum(any(not x.startswith("data:") for x in u.audio.values()) for u in utterances),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
    )


def listening(analysis: Analysis, out: Path, budget: float) -> list[Utterance]:
    """Return all utterances that have audio, by name.

    Those with something special about them have spectrograms, and their audio is in the page as
    16-bit wav. So is that of others, until all audio takes `budget` bytes; beyond that, the page in
    the folder `out` plays the files where they lie. Of several seeds the first run is heard.
    """
    special = featured(analysis)
    places = {name: place for place, name in enumerate(analysis.utterances)}
    found, used = [], 0
    for name in [*special, *(name for name in places if name not in special)]:
        utterance = Utterance(
            name,
            special.get(name, ""),
            {voice(x): _shown(x.scores["pesq_wb"][0, places[name]]) for x in analysis.models},
            {x.name: _shown(x.by_file("pesq_wb")[places[name]]) for x in analysis.models},
        )
        files = {voice(x): x.systems[0].files.get(name) for x in analysis.models}
        paths = {x: path for x, path in files.items() if isinstance(path, Path)}
        paths[_clean(analysis)] = analysis.clean[name]
        if utterance.why or used < budget:
            signals = _signals(paths)
            utterance.seconds = max(map(len, signals.values()), default=0) / SAMPLE_RATE
            for x, signal in signals.items():
                # Not FLAC, half as large: Chromium can hang in a jump to near the end of one.
                utterance.audio[x] = _data("audio/wav", encode(signal, ".wav"))
            if utterance.why:
                utterance.pictures = _pictures(signals)
            used += sum(map(len, utterance.audio.values()))
        else:
            utterance.audio = {x: _address(path, out) for x, path in paths.items()}
        if utterance.audio:
            found.append(utterance)
    return sorted(found, key=lambda each: each.name)


def featured(analysis: Analysis) -> dict[str, str]:
    """Return the utterances that gain most, as much as half of them, and least, and say so.

    By the PESQ of the best model above the noisy recording's; without one, by its PESQ.
    """
    means = [(mean.mean, x) for x in analysis.enhancing if (mean := x.means["pesq_wb"])]
    if not means:
        return {}
    model = max(means, key=lambda each: each[0])[1]
    values, what, sign = model.by_file("pesq_wb"), f"PESQ of {model.name}", ""
    if analysis.noisy:
        values = values - analysis.noisy.by_file("pesq_wb")
        what, sign = f"{what} against noisy", "+"
    known = [place for place in np.argsort(values, kind="stable") if np.isfinite(values[place])]
    if not known:
        return {}
    chosen: dict[str, str] = {}
    for word, place in ("Best", known[-1]), ("Median", known[len(known) // 2]), ("Worst", known[0]):
        name = analysis.utterances[place]
        chosen.setdefault(name, f"{word} file: {what} {values[place]:{sign}.2f}")
    return chosen


def voice(model: Model) -> str:
    """Return what the sound of a model is called: it is that of one run."""
    if len(model.systems) == 1:
        return model.name
    return f"{model.systems[0].name}, of {model.name}"


def _clean(analysis: Analysis) -> str:
    """Return what the clean recordings are called; a system may be called clean."""
    name = "clean"
    while any(voice(model) == name for model in analysis.models):
        name += "'"
    return name


def _shown(pesq: float) -> str:
    return METRICS["pesq_wb"].show(pesq) if np.isfinite(pesq) else ""


def _signals(paths: Mapping[str, Path]) -> dict[str, NDArray]:
    """Return what can be read, finite; all made softer alike where one would be clipped."""
    signals = {}
    for name, path in paths.items():
        try:
            signal = np.nan_to_num(read(path), posinf=0.0, neginf=0.0)
        except AudioError:
            continue
        if signal.size:
            signals[name] = signal
    peak = max((float(np.abs(x).max()) for x in signals.values()), default=0.0)
    return {name: x / max(1.0, peak) for name, x in signals.items()}


def _pictures(signals: Mapping[str, NDArray]) -> dict[str, str]:
    """Return spectrograms by name, without axes, on one scale."""
    pictures = {}
    for name, level in levels(signals).items():
        content = io.BytesIO()
        matplotlib.image.imsave(
            content, level, vmin=FLOOR_DB, vmax=0, cmap="magma", format="png", origin="lower"
        )
        pictures[name] = _data("image/png", content.getvalue())
    return pictures


def _address(path: Path, out: Path) -> str:
    """Return the address of a file for a page in `out`."""
    try:
        relative = os.path.relpath(path, out)
    except ValueError:  # on another drive
        return path.absolute().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
