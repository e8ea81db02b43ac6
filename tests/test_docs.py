"""README and docs: links resolve, commands and flags exist, programs compute what the code does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray

from bsbimamba.scan import selective_scan

# EXPERIMENTS.md quotes commands of old commits: only its links are checked.
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("results/*/reproduce.sh")]
LINKED = [*PAGES, *ROOT.glob("*.md"), ROOT / "data/README.md", *ROOT.glob("results/**/README.md")]
COMMAND = re.compile(r"python (?:-m ([\w.]+)|([\w/]+\.py))(.*)")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@cache
def help_of(file: str) -> str:
    """Return what a command prints for `--help`."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, file, "--help"]
    return subprocess.check_output(command, cwd=ROOT, env=variables, text=True)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_their_flags_exist(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for call in re.split(r"(?=python )|[;)`|\n]| #", text):
        match = COMMAND.match(call)
        if match and match[1] != "pytest":
            file = f"{match[1].replace('.', '/')}.py" if match[1] else match[2]
            file = "abl3/train.py" if file == "train.py" else file  # all train.py have the same
            for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", match[3]) or [""]:
                assert flag in help_of(file), call


def program(name: str) -> Any:
    """Return a function that docs/equations.md defines."""
    space: dict[str, Any] = {"np": np}
    page = (ROOT / "docs/equations.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    exec(next(block for block in blocks if block.startswith(f"def {name}(")), space)
    return space[name]


@pytest.fixture
def sequence() -> dict[str, NDArray]:
    """Return the arguments of a scan: one sequence of 9 steps, 3 channels and 4 states."""
    rng = np.random.default_rng(0)
    found = {name: rng.standard_normal((9, 3)) for name in ("u", "delta", "z")}
    found |= {name: rng.standard_normal((9, 4)) for name in ("B", "C")}
    found |= {name: rng.standard_normal(3) for name in ("D", "delta_bias")}
    return found | {"A": -np.exp(rng.standard_normal((3, 4)))}


def as_arguments(sequence: dict[str, NDArray]) -> dict[str, torch.Tensor]:
    """Return the same for `selective_scan`: a batch of one, with gradients."""
    batched = {k: v[None] if k in ("u", "delta", "z", "B", "C") else v for k, v in sequence.items()}
    return {name: torch.tensor(value, requires_grad=True) for name, value in batched.items()}


@pytest.mark.parametrize("reverse", [False, True])
def test_the_recurrence_of_the_equations_is_the_scan(
    reverse: bool, sequence: dict[str, NDArray]
) -> None:
    options: dict[str, Any] = {"reverse": reverse, "backend": "reference"}
    out = selective_scan(**as_arguments(sequence), delta_softplus=True, **options)
    expected = program("scan")(**sequence, reverse=reverse)
    np.testing.assert_allclose(out[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_the_backward_recurrence_of_the_equations_gives_the_gradients(
    sequence: dict[str, NDArray],
) -> None:
    sequence = {name: sequence[name] for name in ("u", "delta", "A", "B", "C")}
    sequence["delta"] = np.abs(sequence["delta"])
    given = as_arguments(sequence)
    out = selective_scan(**given, backend="reference")
    grad = np.random.default_rng(1).standard_normal(out.shape[1:])
    out.backward(torch.tensor(grad)[None])
    found = program("scan_backward")(grad, sequence.pop("delta"), **sequence)
    for name, value in zip(("delta", "u", "A", "B", "C"), found, strict=True):
        expected = given[name].grad.reshape(value.shape).numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12, err_msg=name)
