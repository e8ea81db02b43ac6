"""The pages in docs/ and README, read by their tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import ROOT

DOCS = ROOT / "docs"


PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(path), flags=re.M | re.S)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading, by their first cell."""
    section = text_of(DOCS / page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


SOURCES = [
    path
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]
    if path.parent.name not in ("tests", "runs")
]


def defined(path: Path) -> set[str]:
    """What a module or one of its classes defines, by name."""
    tree, names = ast.parse(text_of(path)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
