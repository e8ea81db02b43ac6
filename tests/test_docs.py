"""The pages in docs/ and README: what they link to, name and tell one to type is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT
from document_pages import DOCS, PAGES, SOURCES, defined, prose, text_of

from abl3.mbs_net import MBSNet as Net3
from training.config import BASE, flatten, network_defaults


def anchors(path: Path) -> set[str]:
    """The headings of a page, as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    if page.name == "fourth_ablation.md":
        own = {"abl4/__init__.py", "abl4/mamba.py", "abl4/mbs_net.py", "abl4/train.py",
               "tests/test_abl4.py"}  # fmt: skip
    else:
        own = set()
    named = set(re.findall(r"`([\w.]+(?:/[\w.]+)+\.(?:py|c|md|toml|json|svg|png))`", prose(page)))
    for name in named - own:
        assert (ROOT / name).is_file(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_function_that_is_named_is_in_its_file(page: Path) -> None:
    page_text = " ".join(prose(page).split())
    for names, file in re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+\.py)`", page_text):
        for name in re.findall(r"`([\w.]+)`", names):
            missing = set(name.split(".")) - defined(ROOT / file)
            assert not missing, f"{page.name}: {missing} in {file}"


def test_the_index_names_every_page() -> None:
    others = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\((\w+\.md)\)", text_of(DOCS / "README.md"))) == others


@cache
def flags() -> set[str]:
    """Those of all the commands."""
    return {
        argument.value
        for path in SOURCES
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--")
    }


# Of torchrun, Slurm, pip and TensorBoard.
FOREIGN = {
    "--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--signals-to-handle",
    "--signal", "--requeue", "--open-mode", "--index-url", "--logdir", "--check",
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_flag_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text_of(page)))
    assert named <= flags() | FOREIGN


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = set(flatten(BASE)) | {f"model.{name}" for name in network_defaults(Net3)}
    groups = "model|loss|optim|data|augment|run"
    named = set(re.findall(rf"\b(?:{groups})\.[a-z_0-9]+(?==)", text_of(page)))
    assert named <= known


def test_every_module_that_is_run_exists() -> None:
    for page in PAGES:
        for module in re.findall(r"python -m ((?:\w+\.)+\w+)", text_of(page)):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
