"""README and docs: links resolve, commands and flags exist, programs compute what the code does."""

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
COMMAND = re.compile(r"((?:python -m )?bsbimamba [a-z]+|python -m [\w.]+|python [\w/]+\.py)(.*)")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@cache
def help_of(command: str) -> str:
    """Return what a command prints for `--help`."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    words = command.removeprefix("python ").removeprefix("-m ").split()
    module = [] if words[0].endswith(".py") else ["-m"]
    words = [sys.executable, *module, *words, "--help"]
    return subprocess.check_output(words, cwd=ROOT, env=variables, text=True)


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
        if match and match[1] != "python -m pytest":
            # All train.py have the same flags.
            command = match[1].replace("python train.py", "python abl3/train.py")
            for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", match[2]) or [""]:
                assert flag in help_of(command), call


def equations() -> dict[str, Any]:
    """Return the functions that docs/equations.md defines."""
    found: dict[str, Any] = {"np": np}
    page = (ROOT / "docs/equations.md").read_text("utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(block, found)
    return found


def sequence(*names: str) -> tuple[dict[str, NDArray], dict[str, torch.Tensor]]:
    """Return arguments of a scan of 9 steps, and the same as a batch of one with gradients."""
    rng = np.random.default_rng(0)
    shapes = dict.fromkeys(("u", "delta", "z"), (9, 3)) | dict.fromkeys(("B", "C"), (9, 4))
    shapes |= {"A": (3, 4), "D": (3,), "delta_bias": (3,)}
    plain = {name: rng.standard_normal(shapes[name]) for name in names}
    plain |= {"A": -np.exp(plain["A"]), "delta": np.abs(plain["delta"])}
    batched = {name: x[None] if len(x) == 9 else x for name, x in plain.items()}
    return plain, {k: torch.tensor(x, requires_grad=True) for k, x in batched.items()}


def test_the_recurrences_of_the_equations_are_the_scan_and_its_gradients() -> None:
    found = equations()
    plain, given = sequence("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    for reverse in (False, True):
        out = selective_scan(**given, delta_softplus=True, reverse=reverse, backend="reference")
        expected = found["scan"](**plain, reverse=reverse)
        np.testing.assert_allclose(out[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    plain, given = sequence("u", "delta", "A", "B", "C")
    out = selective_scan(**given, backend="reference")
    grad = np.random.default_rng(1).standard_normal(out.shape[1:])
    out.backward(torch.tensor(grad)[None])
    found = found["scan_backward"](grad, plain.pop("delta"), **plain)
    for name, value in zip(("delta", "u", "A", "B", "C"), found, strict=True):
        expected = given[name].grad.reshape(value.shape).numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12, err_msg=name)
