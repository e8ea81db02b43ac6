"""What the page shows of a result, as HTML. Names are somebody's: all of them are escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from data.audio import SAMPLE_RATE
from evaluation.spectrogram import FLOOR_DB
from page.store import KEPT_MINUTES, Store, names_of
from page.upload import LIMITS
from page.work import Outcome, Progress, Result, Version

_HERE = Path(__file__).parent
STYLE = (_HERE / "style.css").read_text(encoding="utf-8")
SCRIPT = f"<script>{(_HERE / 'player.js').read_text(encoding='utf-8')}</script>"
# Seconds from one mark of the time axis to the next.
_STEPS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_MOST_TICKS = 5.5


def introduction(models: Mapping[str, str]) -> str:
    """What the page is, and which models it offers. models: a line on each, by label."""
    lines = "".join(
        f"<li><strong>{text(label)}</strong>: {text(line)}</li>" for label, line in models.items()
    )
    return (
        '<header class="intro"><h1>BS-BiMamba: speech without its noise</h1>'
        "<p>Upload a noisy recording or make one, and hear and see what a trained network leaves "
        "of it and what it takes away. Everything is computed where this page comes from; nothing "
        f"is sent elsewhere, and all files are deleted after {KEPT_MINUTES} minutes.</p>"
        f"<ul>{lines}</ul></header>"
    )


def limits() -> str:
    """What may be uploaded."""
    return f'<p class="limits">{text(LIMITS)}</p>'


def status(message: str, share: float | None = None) -> str:
    """What is going on. share: how much of it is done."""
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
    return f'<p class="status" role="status">{text(message)}</p>{bar}'


def progress(state: Progress) -> str:
    """What is being done."""
    return status(f"{state.text} …", state.share)


def fault(message: str) -> str:
    """Why there is no result."""
    return f'<p class="fault" role="alert">{text(message)}</p>'


def results(result: Result, store: Store) -> str:
    """Everything that was made of a recording."""
    names = names_of(result)
    rows = []
    for each in result.outcomes:
        cards = [_card(result, version, store, names) for version in (each.enhanced, each.removed)]
        rows += [
            f"<h3>{text(each.label)}</h3>",
            f'<p class="facts">{text(_taken(result, each))}</p>',
            f'<div class="row">{"".join(cards)}</div>',
        ]
    noisy = _card(result, result.noisy, store, names)
    return (
        f'<div class="results">{_facts(result)}<div class="beside"><div class="first">'
        f'<h3>The recording</h3><p class="facts">As it was</p>{noisy}</div>'
        f"<div>{''.join(rows)}</div></div>{_scale()}</div>"
    )


def text(words: str) -> str:
    """Text as HTML, also where that is taken for a template."""
    escaped = html.escape(words)
    for sign in "${}`":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped


def _facts(result: Result) -> str:
    upload, found = result.upload, result.found
    channels = f"{upload.channels} channel" + ("s" if upload.channels > 1 else "")
    length = f"{result.seconds:.2f} s" if found.frames > 1 else "1 sample"
    notes = found.notes(upload.channels)
    if upload.rate > SAMPLE_RATE:
        notes.append(f"what is above {SAMPLE_RATE // 2000} kHz is taken away with the noise")
    listed = "".join(f"<li>{text(note)}</li>" for note in notes)
    return (
        f'<h2>{text(upload.path.name)}</h2><p class="facts">{length}, {upload.rate:,} Hz, '
        f"{channels}, {text(upload.encoding[0])} {text(upload.encoding[1])}</p>"
        + (f'<ul class="notes">{listed}</ul>' if listed else "")
    )


def _taken(result: Result, outcome: Outcome) -> str:
    factor = outcome.seconds / result.seconds
    words = f"Took {outcome.seconds:.2f} s: real-time factor {factor:.3f}"
    if factor < 0.5:
        faster = 1 / factor
        words += f", {faster:.{0 if faster >= 10 else 1}f} times faster than real time"
    if outcome.clipped:
        words += f". {outcome.clipped} samples were beyond full scale and have been clipped"
    return f"{words}."


def _card(result: Result, version: Version, store: Store, names: Mapping[Path, str]) -> str:
    sound = store.address(version.sound, names[version.sound])
    picture = store.address(version.picture)
    title = text(version.title)
    ticks = "".join(
        f'<span style="left:{100 * at / result.seconds:.2f}%">{label}</span>'
        for at, label in _ticks(result.seconds)
    )
    return (
        f'<figure class="version"><figcaption>{title}</figcaption>'
        '<div class="axes"><div class="hertz"><span>8 kHz</span><span>4</span><span>0</span></div>'
        f'<div class="picture"><img src="{picture}" alt="Spectrogram: {title}" width="1200" '
        'height="257"><i class="head"></i></div>'
        f'<div class="ticks">{ticks}</div></div>'
        f'<audio class="sound" controls preload="metadata" controlslist="nodownload" '
        f'aria-label="{title}" src="{sound}"></audio>'
        f'<a class="download" href="{sound}" download="{text(names[version.sound])}">'
        f"Download {title.lower()} (wav)</a></figure>"
    )


def _ticks(seconds: float) -> list[tuple[float, str]]:
    """Round times within so many seconds, and how they are written: six at most."""
    step = next((each for each in _STEPS if seconds / each <= _MOST_TICKS), seconds)
    times = [step * number for number in range(int(seconds / step) + 1)]
    # One at the very end would stick out of the picture.
    times = [at for at in times if at <= 0.95 * seconds]
    if step < 60:
        return [(at, f"{at:.6g} s" if at else "0") for at in times]
    return [(at, f"{at / 60:.6g} min" if at else "0") for at in times]


def _scale() -> str:
    return (
        '<div class="scale"><i></i>'
        f"<div><span>{FLOOR_DB:.0f} dB</span><span>{FLOOR_DB / 2:.0f} dB</span>"
        "<span>0 dB</span></div>"
        "<p>One scale for all pictures; 0 dB is the loudest point of all of them. Begin a "
        "second version while one plays, and it goes on at the same place; click into a "
        "picture to go there.</p></div>"
    )
