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

from bsbimamba.data.audio import AudioError, encode, read
from bsbimamba.metrics.signals import FLOOR_DB, levels
from bsbimamba.report.analysis import Analysis
from bsbimamba.report.figures import colour_of, plots
from bsbimamba.report.published import PUBLISHED
from bsbimamba.report.tables import Table, remarks, tables

CLEAN = "clean"
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass
class Utterance:
    """One utterance as it can be listened to.

    A voice is the clean recording, or the first run of a model.

    Attributes:
        why: what is special about it, for those that the page shows; empty for all others.
        pesq: by voice. means: over the runs of each model. Both as texts.
        audio, pictures: by voice, addresses of data or of a file beside.
    """

    name: str
    why: str
    pesq: dict[str, str]
    means: list[str]
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
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    colours = {x.runs[0]: colour_of(analysis, x) for x in analysis.models}
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        tables=[*tables(analysis), _published()],
        plots=[(x, y, _data("image/svg+xml", z.encode())) for x, y, z in plots(analysis)],
        remarks=remarks(analysis),
        utterances=utterances,
        voices=colours | {CLEAN: "var(--muted)"},
        audio=[{"sources": each.audio, "pesq": each.pesq} for each in utterances],
        linked=sum(any(not x.startswith("data:") for x in u.audio.values()) for u in utterances),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
    )


def _published() -> Table:
    """Return what papers report."""
    caption = (
        "No results of this comparison: VoiceBank-DEMAND's test set as the authors report it, the "
        "composite scores on either scale. Empty: not known."
    )
    frame = PUBLISHED.set_index("system")
    return Table("Published", caption, frame.map("{:.2f}".format, na_action="ignore").fillna(""))


def listening(analysis: Analysis, out: Path, budget: float) -> list[Utterance]:
    """Return all utterances that have audio, by name.

    Those with something special about them have spectrograms, and their audio is in the page as
    16-bit wav. So is that of others, until all audio takes `budget` bytes; beyond that, the page in
    the folder `out` plays the files where they lie.
    """
    special = featured(analysis)
    places = {name: place for place, name in enumerate(analysis.utterances)}
    found, used = [], 0
    for name in [*special, *(name for name in places if name not in special)]:
        place = places[name]
        utterance = Utterance(
            name,
            special.get(name, ""),
            {x.runs[0]: _shown(x.scores["pesq_wb"][0, place]) for x in analysis.models},
            [_shown(x.by_file("pesq_wb")[place]) for x in analysis.models],
        )
        files = {x.runs[0]: x.systems[0].files.get(name) for x in analysis.models}
        files[CLEAN] = analysis.clean[name]
        paths = {x: path for x, path in files.items() if isinstance(path, Path)}
        if utterance.why or used < budget:
            signals = _signals(paths)
            # Not FLAC, half as large: Chromium can hang in a jump to near the end of one.
            utterance.audio = {x: _data("audio/wav", encode(y, ".wav")) for x, y in signals.items()}
            utterance.pictures = _pictures(signals) if utterance.why else {}
            used += sum(map(len, utterance.audio.values()))
        else:
            addresses = {x: Path(os.path.relpath(path, out)) for x, path in paths.items()}
            utterance.audio = {x: quote(address.as_posix()) for x, address in addresses.items()}
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
    places = {"Best": known[-1:], "Median": known[len(known) // 2 :][:1], "Worst": known[:1]}
    chosen: dict[str, str] = {}
    for word, found in places.items():
        for place in found:
            text = f"{word} file: {what} {values[place]:{sign}.2f}"
            chosen.setdefault(analysis.utterances[place], text)
    return chosen


def _shown(pesq: float) -> str:
    return f"{pesq:.3f}" if np.isfinite(pesq) else ""


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


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
