"""`report.html`: one page with the tables, the plots and the sounds, that needs nothing else.

Free of torch.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from evaluation import curves, figures
from evaluation.analysis import Analysis
from evaluation.drawing import colour_of
from evaluation.listening import Utterance, clean_name, listening, voice
from evaluation.notes import remarks
from evaluation.published import TRAINING
from evaluation.seeds import MARKED_SEEDS
from evaluation.tables import MAIN, marks_of, published, tables
from evaluation.text import MARKS, TEMPLATES, environment

REPORT = "report.html"


def report(
    analysis: Analysis,
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    out: Path,
    budget: float,
) -> str:
    """The page. Names are escaped, whatever they are made of.

    Args:
        histories: lines of the training logs, by system.
        out: where the page will lie; files that are not in it are addressed from there.
        budget: bytes of audio after which no more goes into it (see `listening`).
    """
    templates = environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    utterances = listening(analysis, out, budget)
    sources = _sources(analysis)
    script = TEMPLATES.joinpath("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    plots = [
        ("Differences", figures.differences(analysis)),
        *(
            (f"PESQ by {breakdown.axis}", figures.by_group(analysis, number))
            for number, (breakdown, _) in enumerate(analysis.breakdowns)
        ),
        ("PESQ and size", figures.against_cost(analysis, "parameters")),
        ("PESQ and computation", figures.against_cost(analysis, "macs_per_second")),
        (_CROPS, curves.against_crops(analysis, histories)),
        ("Training", curves.training(analysis, histories)),
    ]
    return templates.get_template("report.html.j2").render(
        analysis=analysis,
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        tables=[*tables(analysis), published()],
        marks=MARKS,
        marked=bool(marks_of(analysis, MAIN)),
        marked_seeds=MARKED_SEEDS,
        plots=[(title, svg) for title, svg in plots if svg],
        captions=_CAPTIONS,
        remarks=remarks(analysis),
        featured=[utterance for utterance in utterances if utterance.why],
        utterances=utterances,
        by_name=sorted(enumerate(utterances), key=lambda each: each[1].name),
        sources=sources,
        audio=[_audio(utterance, sources) for utterance in utterances],
        linked=sum(map(_is_linked, utterances)),
        script=script,
        script_digest=f"sha256-{digest}",
        style=TEMPLATES.joinpath("report.css").read_text(encoding="utf-8"),
    )


_CROPS = "PESQ against crops seen"
_CAPTIONS = {
    "Differences": "Mean over the files of each one's difference, with its file interval.",
    "PESQ and size": (
        "Crosses are figures from papers, measured on VoiceBank-DEMAND's test set after training "
        "on its training set: they compare with points here only where those were, too."
    ),
    "PESQ and computation": (
        "Counted by one rule for all systems here. Papers count by others, or not at all: none of "
        "theirs are shown."
    ),
    _CROPS: (
        "Validation, on held-out utterances of each run's own training data. Thin: single seeds. "
        "Dotted: public curves, scored on the test set (p232, p257) of the data that they were "
        "trained on (BSRNN: on crops of it), so that only how fast they rise compares. Sources: "
        + "; ".join(dict.fromkeys(curve.source for curve in TRAINING))
        + "."
    ),
    "Training": "As logged while training.",
}


def _sources(analysis: Analysis) -> list[dict[str, Any]]:
    """What can be listened to, in the order of the buttons, with the colours of the plots."""
    found = [
        {"name": voice(model), "colour": colour_of(analysis, model)} for model in analysis.models
    ]
    return [*found, {"name": clean_name(analysis), "colour": None}]


def _audio(utterance: Utterance, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script knows of an utterance: names are numbers there, as not every one is text."""
    return {
        "seconds": utterance.seconds,
        "sources": {
            str(number): utterance.sources[source["name"]].audio
            for number, source in enumerate(sources)
            if source["name"] in utterance.sources
        },
        "pesq": {str(n): utterance.pesq.get(s["name"], "") for n, s in enumerate(sources)},
    }


def _is_linked(utterance: Utterance) -> bool:
    return any(not source.audio.startswith("data:") for source in utterance.sources.values())
