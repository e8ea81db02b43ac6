"""`report.html`: one page with the tables, the plots and the sounds, that needs nothing else."""

import base64
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from matplotlib.image import imsave
from numpy.typing import NDArray

from bsbimamba.data.audio import AudioError, encode, read
from bsbimamba.metrics.signals import FLOOR_DB, levels
from bsbimamba.report.analysis import Analysis
from bsbimamba.report.figures import plots, style_of
from bsbimamba.report.tables import Table, html, remarks, tables

CLEAN = "clean"
PUBLISHED = Path(__file__).with_name("published.csv")
BUDGET = 16 << 20  # bytes of sound in the page
_PUBLISHED = (
    "VoiceBank-DEMAND's test set as the authors report it; composite scores on either scale."
)


def report(analysis: Analysis, out: Path) -> str:
    """Return the page that will lie in `out`. Names are escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    listed = listening(analysis, out)
    means = {x.name: map(_shown, x.by_file("pesq_wb")) for x in analysis.models}
    files = pd.DataFrame(means, analysis.utterances)
    papers = pd.read_csv(PUBLISHED, comment="#", index_col="system")
    published = papers.map("{:.2f}".format, na_action="ignore").fillna("")
    colours = {x.runs[0]: style_of(analysis, x)["color"] for x in analysis.models}
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        html=html,
        tables=[*tables(analysis), Table("Published", _PUBLISHED, published)],
        plots=[(x, y, _data("image/svg+xml", z.encode())) for x, y, z in plots(analysis)],
        remarks=remarks(analysis),
        listed=listed,
        files=Table("Files", "", files.loc[[each["name"] for each in listed]]),
        voices=colours | {CLEAN: "var(--muted)"},
    )


def listening(analysis: Analysis, out: Path) -> list[dict[str, Any]]:
    """Return all utterances that have audio, by name, as the page's script takes them.

    A voice is the clean recording, or the first run of a model. Audio goes into the page as 16-bit
    wav until all of it takes `BUDGET` bytes; beyond that, the page in the folder `out` plays the
    files where they lie. What is special has spectrograms, and its audio is always in the page.

    Returns:
        Of each utterance `name`; `why` it is special, or ""; by voice `pesq` as a text, and
        `sources` and `pictures`, addresses of data or of a file beside.
    """
    special = featured(analysis)
    found, used = [], 0
    for name in sorted(analysis.utterances, key=lambda name: name not in special):
        files = {x.runs[0]: x.systems[0].files.get(name) for x in analysis.models}
        files[CLEAN] = analysis.clean[name]
        paths = {x: path for x, path in files.items() if isinstance(path, Path)}
        pictures = {}
        if name in special or used < BUDGET:
            signals = _signals(paths)
            # Not FLAC, half as large: Chromium can hang in a jump to near the end of one.
            sources = {x: _data("audio/wav", encode(y, ".wav")) for x, y in signals.items()}
            pictures = _pictures(signals) if name in special else {}
            used += sum(map(len, sources.values()))
        else:
            beside = {x: Path(os.path.relpath(path, out)).as_posix() for x, path in paths.items()}
            sources = {x: quote(address) for x, address in beside.items()}
        place = analysis.utterances.index(name)
        pesq = {x.runs[0]: _shown(x.scores["pesq_wb"][0, place]) for x in analysis.models}
        texts = {"name": name, "why": special.get(name, ""), "pesq": pesq}
        found.append(texts | {"sources": sources, "pictures": pictures})
    return sorted((each for each in found if each["sources"]), key=lambda each: each["name"])


def featured(analysis: Analysis) -> dict[str, str]:
    """Return the utterances that gain most, as much as half of them, and least, and say so.

    By the PESQ of the best model above the noisy recording's; without one, by its PESQ.
    """
    known = {x.name: x.by_file("pesq_wb") for x in analysis.enhancing if x.means["pesq_wb"]}
    if not known:
        return {}
    scores = pd.DataFrame(known, analysis.utterances)
    best = scores.mean().idxmax()
    values, what, sign = scores[best], f"PESQ of {best}", ""
    if analysis.noisy:
        values = values - analysis.noisy.by_file("pesq_wb")
        what, sign = f"{what} against noisy", "+"
    values = values.dropna().sort_values(kind="stable")
    places = {"Worst": 0, "Median": len(values) // 2, "Best": len(values) - 1}
    return {
        values.index[place]: f"{word} file: {what} {values.iloc[place]:{sign}.2f}"
        for word, place in places.items()
        if len(values)
    }


def _shown(pesq: float) -> str:
    return f"{pesq:.3f}" if np.isfinite(pesq) else ""


def _signals(paths: Mapping[str, Path]) -> dict[str, NDArray]:
    """Return what can be read, finite; all made softer alike where one would be clipped."""
    signals = {}
    for name, path in paths.items():
        with suppress(AudioError):
            signals[name] = np.nan_to_num(read(path), posinf=0.0, neginf=0.0)
    peak = max((np.abs(x).max(initial=1.0) for x in signals.values()), default=1.0)
    return {name: x / peak for name, x in signals.items()}


def _pictures(signals: Mapping[str, NDArray]) -> dict[str, str]:
    """Return spectrograms by name, without axes, on one scale."""
    pictures = {}
    for name, level in levels(signals).items():
        content = io.BytesIO()
        imsave(content, level, vmin=FLOOR_DB, vmax=0, cmap="magma", format="png", origin="lower")
        pictures[name] = _data("image/png", content.getvalue())
    return pictures


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
