"""docs/fourth_ablation.md: its blocks run in their order, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from saved_runs import load

# What a checkout has beside its sources; a run or an environment may be of any size.
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "results", "voicebank_demand", "__pycache__")
BLOCK = re.compile(r"as `([\w/]+\.py)`|^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks() -> list[tuple[str, str]]:
    """Return the page's blocks of Python and of the shell: the file to save each as, its text."""
    found, path = [], ""
    page = (ROOT / "docs" / "fourth_ablation.md").read_text(encoding="utf-8")
    for file, language, text in BLOCK.findall(page):
        path = file or path
        if not file:
            found.append((path if language == "python" else "", text))
    return found


def shell(text: str, root: Path) -> str:
    """Return what a block prints, run as by a user with the environment active."""
    # PYTHONPATH of the calling process would lead the copy's imports elsewhere.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euc", text], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a copy with the fourth ablation in it, untrained, and what its blocks printed."""
    root = tmp_path_factory.mktemp("copy") / "repository"
    shutil.copytree(ROOT, root, ignore=LEFT_OUT, symlinks=True)
    printed = ""
    for path, text in blocks()[:-1]:
        if path:
            (root / path).write_text(text, encoding="utf-8")
        else:
            printed += shell(text, root)
    return root, printed


@pytest.fixture(scope="module")
def trained(repository: tuple[Path, str]) -> Path:
    """Return the copy after the page's training, of narrow networks."""
    narrow = "--sample --workers 0 --model.channels 32 --data.validation-files 2"
    training = blocks()[-1][1].partition("python evaluate.py")[0]
    shell(training.replace("--sample", narrow), repository[0])
    return repository[0]


def test_the_page_makes_a_folder_that_passes(repository: tuple[Path, str]) -> None:
    root, printed = repository
    assert re.search(r"^\d+ passed", printed, re.M)
    assert (root / "README.md").read_text().count("| abl4 |") == 1
    names = {path.name for path in (root / "abl4").glob("*.*")}
    assert names == {"__init__.py", "mamba.py", "mbs_net.py", "train.py"}
    assert not list(root.rglob("*.bak"))
    assert "\n>             layers.append(IntraBandBiMamba(" in printed
    assert "\n2000936\n" in printed
    pytest.importorskip("ruff")
    new = "abl4 tests/test_abl4.py"
    shell(f"python -m ruff check {new} && python -m ruff format --check {new}", root)


def test_it_trains_and_is_a_run_of_its_own_network(trained: Path) -> None:
    run = trained / "runs" / "abl4"
    assert load(run / "last.pt")["values"]["step"] == 4
    assert json.loads((run / "config.json").read_text())["network"] == "abl4.mbs_net:MBSNet"


@pytest.mark.slow
def test_it_is_compared_with_the_ablation_it_was_made_from(trained: Path) -> None:
    _, *comparison = blocks()[-1][1].partition("python evaluate.py")
    assert re.search(r"^\| abl4 \|", shell("".join(comparison), trained), re.M)
