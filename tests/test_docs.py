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

from bandsplit.decoder import apply_filter
from scan import selective_scan

RESULTS = ROOT / "results" / "open_mix"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), RESULTS / "README.md"]
EQUATIONS = ROOT / "docs" / "equations.md"
# Flags of other programs.
FOREIGN = {
    "--check", "--index-url", "--logdir", "--master_addr", "--nnodes", "--node_rank",
    "--nproc_per_node", "--open-mode", "--requeue", "--signal", "--signals-to-handle",
}  # fmt: skip
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
    for line in text.replace("\\\n", " ").splitlines():
        for call in re.split(r"(?=python )|[;)`|]", line):
            if match := COMMAND.match(call):
                module, file = match.groups()
                path = f"{module.replace('.', '/')}.py" if module else file
                if path == "train.py":
                    folders = [name for name in ("baseline", "abl1", "abl2") if name in line]
                    path = f"{folders[0] if len(folders) == 1 else 'abl3'}/train.py"
                flags = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", call.partition(" #")[0]))
                found.append((path, flags))
    return found


@cache
def known_flags() -> dict[str, set[str]]:
    """Return the flags of every command that a page names, from its `--help`."""
    named = {path for page in PAGES for path, _ in commands(text_of(page))}
    files = [path for path in sorted(named | {"abl3/train.py"}) if (ROOT / path).is_file()]
    result = subprocess.run(
        [sys.executable, "-c", ASK, *files], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )  # fmt: skip
    helps = json.loads(result.stdout)
    return {path: set(re.findall(r"--[a-z][\w.-]*", text)) for path, text in helps.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_have_the_flags_that_pages_name(page: Path) -> None:
    text = re.sub(r"git checkout.*?^```", "", text_of(page), flags=re.M | re.S)  # of an old commit
    for path, flags in commands(text):
        if path not in ("pytest.py", "pip.py") and not path.startswith("abl4"):
            assert path in known_flags(), f"no file {path}"
            unknown = flags - known_flags()[path] - FOREIGN
            assert not unknown, f"{path} has no {unknown}"
    everywhere = set().union(*known_flags().values()) | FOREIGN
    assert set(re.findall(r"`(--[a-z][\w.-]*)", prose(page))) <= everywhere


def test_the_table_is_reproduced_by_flags_that_exist() -> None:
    for path, flags in commands(text_of(RESULTS / "reproduce.sh")):
        assert flags <= known_flags()[path]


def test_the_index_lists_every_page() -> None:
    listed = set(re.findall(r"\((\w+\.md)\)", text_of(ROOT / "docs" / "README.md")))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}


def program(name: str) -> Callable[..., Any]:
    """Return a function that docs/equations.md defines."""
    space: dict[str, Any] = {"np": np}
    blocks = re.findall(r"^```python\n(.*?)^```$", text_of(EQUATIONS), re.M | re.S)
    exec(next(block for block in blocks if block.startswith(f"def {name}(")), space)
    return space[name]


@pytest.fixture
def sequence() -> dict[str, NDArray]:
    """Return the arguments of a scan: one sequence of 9 steps, 3 channels and 4 states."""
    rng = np.random.default_rng(0)
    found = {name: rng.standard_normal((9, 3)) for name in ("u", "delta", "z")}
    found |= {name: rng.standard_normal((9, 4)) for name in ("B", "C")}
    found |= {name: rng.standard_normal(3) for name in ("D", "bias")}
    return found | {"A": -np.exp(rng.standard_normal((3, 4)))}


def as_arguments(sequence: dict[str, NDArray]) -> dict[str, torch.Tensor]:
    """Return the same for `selective_scan`: a batch of one, with gradients."""
    batched = {k: v[None] if k in ("u", "delta", "z", "B", "C") else v for k, v in sequence.items()}
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in batched.items()}
    return {"delta_bias" if name == "bias" else name: value for name, value in tensors.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_the_recurrence_of_the_equations_is_the_scan(
    backend: str, reverse: bool, sequence: dict[str, NDArray]
) -> None:
    options: dict[str, Any] = {"reverse": reverse, "chunk_size": 4, "backend": backend}
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


def test_the_filter_of_the_equations_is_that_of_the_decoder() -> None:
    rng = np.random.default_rng(0)
    taps = rng.standard_normal((5, 7, 3)) + 1j * rng.standard_normal((5, 7, 3))
    spectrum = rng.standard_normal((5, 7)) + 1j * rng.standard_normal((5, 7))
    found = apply_filter(torch.from_numpy(taps)[None], torch.from_numpy(spectrum)[None])
    np.testing.assert_allclose(found[0].numpy(), program("filtered")(taps, spectrum), rtol=1e-12)
