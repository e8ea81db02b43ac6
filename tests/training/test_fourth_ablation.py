"""docs/fourth_ablation.md: its blocks run in their order, in a copy of the repository."""

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
LEFT_OUT = shutil.ignore_patterns(".*", "runs", "enhanced", "voicebank_demand", "__pycache__")
BLOCK = re.compile(r"(?:as `([\w/]+\.py)`:\n\n)?^```(?:python|sh)\n(.*?)^```$", re.M | re.S)


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
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Return a copy with the fourth ablation, trained narrow; what it printed; the comparison."""
    root = tmp_path_factory.mktemp("copy") / "repository"
    shutil.copytree(ROOT, root, ignore=LEFT_OUT, symlinks=True)
    page = (ROOT / "docs" / "fourth_ablation.md").read_text(encoding="utf-8")
    *blocks, (_, last) = BLOCK.findall(page)
    printed = ""
    for path, text in blocks:
        if path:
            (root / path).write_text(text, encoding="utf-8")
        else:
            printed += shell(text, root)
    training, *comparison = last.partition("python evaluate.py")
    narrow = "--sample --workers 0 --model.channels 32 --data.validation-files 2"
    shell(training.replace("--sample", narrow), root)
    return root, printed, "".join(comparison)


def test_the_page_makes_a_folder_that_passes_and_trains(trained: tuple[Path, str, str]) -> None:
    root, printed, _ = trained
    assert re.search(r"^\d+ passed", printed, re.M)
    assert "\n>             layers.append(IntraBandBiMamba(" in printed
    assert "\n2000936\n" in printed
    assert (root / "README.md").read_text().count("| abl4 |") == 1
    assert not list(root.rglob("*.bak"))
    run = root / "runs" / "try" / "abl4"
    assert load(run / "last.pt")["values"]["step"] == 4
    assert json.loads((run / "config.json").read_text())["network"] == "abl4.mbs_net:MBSNet"
    pytest.importorskip("ruff")
    new = "abl4 tests/test_abl4.py"
    shell(f"python -m ruff check {new} && python -m ruff format --check {new}", root)


@pytest.mark.slow
def test_it_is_compared_with_the_ablation_it_was_made_from(trained: tuple[Path, str, str]) -> None:
    root, _, comparison = trained
    assert re.search(r"^\| abl4 \|", shell(comparison, root), re.M)
