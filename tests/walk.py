"""docs/fourth_ablation.md, carried out: its blocks in their order, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

PAGE = ROOT / "docs" / "fourth_ablation.md"
# What a checkout has beside its sources; a run or an environment may be of any size.
_LEFT_OUT = ("runs", "results", "voicebank_demand", "build", "dist", "__pycache__")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the file that the page saves it as."""

    language: str
    text: str
    path: str


def blocks() -> Iterator[Block]:
    """Those of the page that say of which language they are, in their order."""
    page, path = PAGE.read_text(encoding="utf-8"), ""
    for piece in re.finditer(r"as `([\w/]+\.py)`|^```(\w+)\n(.*?)^```$", page, re.M | re.S):
        if piece[1]:
            path = piece[1]
        else:
            yield Block(piece[2], piece[3], path)


def copy_sources(target: Path) -> Path:
    """The repository's sources, in `target`, which is returned."""
    ignored = shutil.ignore_patterns(".*", *_LEFT_OUT)
    return shutil.copytree(ROOT, target, ignore=ignored, symlinks=True)


def shell(text: str, root: Path) -> str:
    """What a block prints, run as by a user with the environment active."""
    # A variable of the calling process would lead the copy's imports elsewhere.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euc", text], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}{result.stderr}"
    return result.stdout


def carry_out(block: Block, root: Path) -> str:
    """Save a block of Python, run one of the shell; what the latter prints."""
    if block.language == "python":
        (root / block.path).write_text(block.text, encoding="utf-8")
        return ""
    return shell(block.text, root) if block.language == "sh" else ""
