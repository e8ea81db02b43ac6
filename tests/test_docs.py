"""The pages: links resolve, commands exist, programs compute what the code does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray

from bsbimamba.scan import selective_scan

DOCS = ROOT / "docs"
RESULTS = ROOT / "results"
# Pages whose commands are of today's code; EXPERIMENTS.md quotes those of old commits.
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(RESULTS.glob("*/reproduce.sh"))]
LINKED = [*PAGES, *(ROOT / name for name in ("EXPERIMENTS.md", "CHANGELOG.md", "data/README.md")),
          *sorted(RESULTS.rglob("README.md"))]  # fmt: skip
# Flags of other programs.
FOREIGN = {
    "--check", "--index-url", "--logdir", "--master_addr", "--nnodes", "--node_rank",
    "--nproc_per_node", "--open-mode", "--requeue", "--signal", "--signals-to-handle",
}  # fmt: skip
TRAIN = "abl3/train.py"  # all train.py have the same flags
COMMAND = re.compile(r"python (?:-m ([\w.]+)|([\w/]+\.py))")
# Prints, as JSON, what each of the given files answers to `--help`.
ASK = """
import contextlib, io, json, runpy, sys
found = {}
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
    found[path] = out.getvalue()
print(json.dumps(found))
"""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def commands(text: str) -> list[tuple[str, set[str]]]:
    """Return each Python command of a text: the file that it runs, and its flags."""
    found = []
    for call in re.split(r"(?=python )|[;)`|\n]| #", text.replace("\\\n", " ")):
        if match := COMMAND.match(call):
            module, file = match.groups()
            path = f"{module.replace('.', '/')}.py" if module else file.replace("train.py", TRAIN)
            if module != "pytest":
                found.append((path, set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", call))))
    return found


@cache
def known_flags() -> dict[str, set[str]]:
    """Return the flags of every command that a page names, from its `--help`."""
    named = {path for page in PAGES for path, _ in commands(text_of(page))}
    files = [path for path in sorted(named) if (ROOT / path).is_file()]
    result = subprocess.run(
        [sys.executable, "-c", ASK, *files], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    helps = json.loads(result.stdout)
    return {path: set(re.findall(r"--[a-z][\w.-]*", text)) for path, text in helps.items()}


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
    for path, flags in commands(text_of(page)):
        assert path in known_flags(), f"no file {path}"
        unknown = flags - known_flags()[path] - FOREIGN
        assert not unknown, f"{path} has no {unknown}"
    everywhere = set().union(*known_flags().values()) | FOREIGN
    assert set(re.findall(r"`(--[a-z][\w.-]*)", prose(page))) <= everywhere


def program(name: str) -> Callable[..., Any]:
    """Return a function that docs/equations.md defines."""
    space: dict[str, Any] = {"np": np}
    blocks = re.findall(r"^```python\n(.*?)^```$", text_of(DOCS / "equations.md"), re.M | re.S)
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
