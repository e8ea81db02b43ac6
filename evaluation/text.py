"""The comparison as Markdown and as LaTeX, and the notes on what it rests on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from data.utils import some
from evaluation.analysis import Analysis, System, versions
from evaluation.scores import METRICS
from evaluation.tables import MAIN, scores, tables

_NOT_IN_LATEX = ("RTF", "memory (MB)", "steps", "training (h)")
_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
    "↓": r"$\downarrow$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "▲": r"$^{\uparrow}$", "▼": r"$^{\downarrow}$",
})  # fmt: skip
_some = partial(some, most=4)


def markdown(analysis: Analysis) -> str:
    """Return all tables, with notes."""
    parts = []
    for table in tables(analysis):
        rows = [[_bold(escape_markdown(x.text), x.best) for x in row] for row in table.rows]
        main = table.name == "Scores"
        parts += [] if main else [f"**{escape_markdown(table.name)}**"]
        parts += [_grid(table.columns, rows), escape_markdown(table.caption)]
        if main:
            rows = [[row[0].text, *(x.below for x in row[1 : 1 + len(MAIN)])] for row in table.rows]
            rows = [[escape_markdown(text) for text in row] for row in rows]
            parts += ["**95 % file intervals**", _grid(table.columns[: 1 + len(MAIN)], rows)]
    notes = [f"Warning: {text}" for text in analysis.warnings] + remarks(analysis)
    parts += ["**Notes**", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def latex(analysis: Analysis) -> str:
    """Return the main table, for `booktabs`; what it rests on stands below it, as comments."""
    table = scores(analysis, MAIN)
    kept = [i for i, name in enumerate(table.columns) if name not in _NOT_IN_LATEX]
    lines = [" & ".join(escape_latex(table.columns[i]) for i in kept), r"\midrule"]
    for row in ([row[i] for i in kept] for row in table.rows):
        texts = [(escape_latex(cell.text) or "--", cell.best) for cell in row]
        lines.append(" & ".join(rf"\textbf{{{x}}}" if best else x for x, best in texts))
        if any(cell.below for cell in row):
            texts_below = [escape_latex(cell.below) for cell in row]
            lines.append(" & ".join(rf"{{\scriptsize {x}}}" if x else "" for x in texts_below))
    caption = f"{table.caption} CSIG, CBAK and COVL on Loizou's scale."
    whole = [
        *(f"% Warning: {_one_line(text)}" for text in analysis.warnings),
        r"% \usepackage{booktabs}",
        rf"\begin{{table}}\centering\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(kept) - 1)}}}",
        r"\toprule",
        *(line if line == r"\midrule" else rf"{line} \\" for line in lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        *(f"% {_one_line(note)}" for note in remarks(analysis)),
    ]
    return "\n".join(whole) + "\n"


def remarks(analysis: Analysis) -> list[str]:
    """Return what the scores rest on, in sentences: files, trainings, tests, scales, versions."""
    lines = [line for system in analysis.systems for line in _files(analysis, system)]
    trained = [system for system in analysis.systems if system.facts]
    for place, one in enumerate(trained):
        lines += [line for two in trained[:place] for line in _kept_apart(one, two)]
    lines += [f"{system.name}: {_training(system.facts)}" for system in trained]
    if trained:
        lines.append(
            "best.pt is chosen by PESQ on the held-out speakers, last.pt not at all; averaged "
            "weights; no PCS, no PESQ loss."
        )
    measured = dict.fromkeys(x.facts["measured_on"] for x in trained if "measured_on" in x.facts)
    lines += [f"RTF (seconds a second of audio) and memory: measured on {x}." for x in measured]
    lines.append(
        "File intervals and tests over files are about more files like these. They do not cover "
        "other speakers or other seeds."
    )
    if single := [model.name for model in analysis.models if model.seeds == 1]:
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


def _kept_apart(one: System, two: System) -> list[str]:
    """Say so where runs of one configuration and of two seeds are not two seeds of one model."""
    a, b = one.facts, two.facts
    if a["model"] != b["model"] or a["seed"] == b["seed"] or a["family"] == b["family"]:
        return []
    a, b = a["family"], b["family"]
    differing = _some(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)))
    return [f"{one.name} and {two.name} are no two seeds of one model: they differ in {differing}."]


def _files(analysis: Analysis, system: System) -> list[str]:
    """Say which files lack a score, and which others have a note."""
    rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
    complete = rows[list(METRICS)].notna().all(axis=1)
    lines = []
    if lacking := list(rows.index[~complete]):
        lines.append(
            f"{system.name}: {len(lacking)} of {len(rows)} files without all scores "
            f"({_some(lacking)}), for reasons in per_file.csv; a mean is over those that have the "
            "score."
        )
    if noted := list(rows.index[complete & (rows["note"] != "")]):
        first = rows["note"][noted[0]]
        lines.append(
            f"{system.name}: {len(noted)} with a note in per_file.csv ({_some(noted)}): {first}."
        )
    return lines


def _training(facts: Mapping[str, Any]) -> str:
    """Return how, where and for how long a network was trained, as far as it is known."""
    changes = [f"{name} {value}" for name, value in facts["beside_recipe"].items()]
    text = (
        f"{facts['checkpoint']}, {facts['epochs']:.2f} epochs of batches of {facts['batch']}, "
        f"seed {facts['seed']}, recipe {' with '.join([facts['recipe'], *changes])}, "
        f"held out {_some(facts['held_out'])}"
    )
    if "sessions" in facts:
        spent = f"{facts['hours']:.2f} hours" if "hours" in facts else "hours not known"
        text += (
            f"; {spent} on {_some(facts['devices'])}, starts: {facts['sessions']}, torch "
            f"{_some(facts['torch'])}, commit {_some(facts['commits'])}"
        )
    return f"{text}."


def escape_markdown(text: str) -> str:
    """Return a text for a cell or a line: no name may look like markup.

    An underscore inside a word is none, nor is a sign that no name follows.
    """
    escaped = re.sub(r"[\\|`*\[\]]|<(?=[a-zA-Z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return _one_line(escaped)


def escape_latex(text: str) -> str:
    """Return a text for LaTeX, in braces where a line's end before it would take it for options."""
    escaped = _one_line(text.translate(_TEX))
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped


def _bold(text: str, best: bool) -> str:
    """Make the number of a Markdown cell bold."""
    number, space, rest = text.partition(" ")
    return f"**{number}**{space}{rest}" if best else text


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in [[*map(escape_markdown, columns)], *rows]]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(columns) - 1), *lines[1:]])


def _one_line(text: str) -> str:
    return " ".join(text.split())
