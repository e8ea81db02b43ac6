"""The comparison as Markdown and as LaTeX. Free of torch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from evaluation.analysis import Analysis
from evaluation.cells import Cell
from evaluation.notes import notes, remarks
from evaluation.seeds import MARKED_SEEDS
from evaluation.tables import MAIN, marks_of, scores, tables

TEMPLATES = Path(__file__).with_name("templates")
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↓": r"$\downarrow$", "–": "--", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip
MARKS = {"better": "▲", "worse": "▼", "": ""}
# What a paper's table does not have of the cost.
_LEFT_OUT = ("RTF", "memory (MB)", "steps", "training (h)")


def markdown(analysis: Analysis) -> str:
    """All tables, with notes."""
    templates = environment()
    templates.filters |= {"md": escape_markdown, "cell": _markdown_cell}
    found = tables(analysis)
    text = templates.get_template("table.md.j2").render(
        tables=found,
        # Below the main table, each of what stands with a mean there.
        details=[
            (title, name)
            for title, name in (
                ("95 % file intervals", "detail"),
                ("Lowest and highest mean of the seeds", "span"),
            )
            if any(getattr(cell, name) for row in found[0].rows for cell in row)
        ],
        marked=bool(marks_of(analysis, MAIN)),
        marked_seeds=MARKED_SEEDS,
        notes=notes(analysis),
        baseline=analysis.baseline.name,
        shown=1 + len(MAIN),  # columns that have details
    )
    return text.lstrip("\n") + "\n"


def latex(analysis: Analysis) -> str:
    """The main table, for `booktabs`; what it rests on stands below it, as comments."""
    templates = environment(
        block_start_string="((*",
        block_end_string="*))",
        variable_start_string="((",
        variable_end_string="))",
        comment_start_string="((#",
        comment_end_string="#))",
    )
    templates.filters |= {"tex": escape_latex, "comment": _one_line}
    table = scores(analysis, MAIN)
    kept = [i for i, name in enumerate(table.columns) if name not in _LEFT_OUT]
    rows = [[_paper_cell(row[i]) for i in kept] for row in table.rows]
    text = templates.get_template("table.tex.j2").render(
        warnings=analysis.warnings,
        data=analysis.data,
        files=len(analysis.utterances),
        baseline=analysis.baseline.name,
        columns=[table.columns[i] for i in kept],
        rows=rows,
        marked=bool(marks_of(analysis, MAIN)),
        marked_seeds=MARKED_SEEDS,
        arrows={"better": r"\uparrow", "worse": r"\downarrow"},
        notes=remarks(analysis),
    )
    return text + "\n"


def escape_markdown(text: str) -> str:
    """For a cell of a table, or a line: no name may look like markup.

    An underscore inside a word is none, nor is a sign that no name follows.
    """
    escaped = re.sub(r"[\\|`*\[\]]|<(?=[a-zA-Z/!?])|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return _one_line(escaped)


def escape_latex(text: str) -> str:
    """In braces where it would be taken for an option of the line's end before it."""
    escaped = _one_line("".join(_TEX.get(character, character) for character in text))
    return f"{{{escaped}}}" if escaped.startswith(("[", "*")) else escaped


def _paper_cell(cell: Cell) -> Cell:
    return replace(cell, files=f"({cell.files})" if cell.files else "") if cell.text else Cell("--")


def _markdown_cell(cell: Cell) -> str:
    text = escape_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    deviation = f"± {cell.deviation}" if cell.deviation else ""
    files = f"({cell.files})" if cell.files else ""
    return " ".join(filter(None, [text, deviation, files, MARKS[cell.mark]]))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def environment(**options: Any) -> jinja2.Environment:
    """The templates, in which a name that nobody has given is an error. options: of jinja2."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **options)
