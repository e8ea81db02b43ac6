"""docs/fourth_ablation.md leads where it says: each test goes on where the one before it ended."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from saved_runs import load
from walk import PAGE, Block, blocks, carry_out, copy_sources, shell

TRAINING, COMPARISON = "cd abl4 && python train.py", "python evaluate.py"


def made_of(block: Block) -> str:
    """To which part of the page a block belongs."""
    if COMPARISON in block.text:
        return "comparison"
    return "training" if block.text.startswith(TRAINING) else "folder"


def narrowed(block: Block) -> Block:
    """The same with a narrow network and a short validation."""
    given = "--sample --workers 0 --model.channels 32 --data.validation-files 2"
    return block._replace(text=block.text.replace("--sample", given))


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What each block of the shell has printed, by its text."""
    return {}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, printed: dict[str, str]) -> Path:
    """A copy with the fourth ablation in it, as the page makes it, untrained."""
    root = copy_sources(tmp_path_factory.mktemp("walk") / "repository")
    for block in blocks():
        if made_of(block) == "folder":
            out = carry_out(block, root)
            printed |= {block.text: out} if block.language == "sh" else {}
    return root


@pytest.fixture(scope="module")
def trained(repository: Path) -> Path:
    """The same, two steps trained, and two more from there."""
    for block in blocks():
        if made_of(block) == "training":
            carry_out(narrowed(block), repository)
    return repository


def test_the_page_has_every_file_and_every_step() -> None:
    files = [block.path for block in blocks() if block.language == "python"]
    assert files == [
        "abl4/__init__.py", "abl4/mbs_net.py", "abl4/train.py", "tests/test_abl4.py",
    ]  # fmt: skip
    parts = [made_of(block) for block in blocks()]
    assert (parts.count("training"), parts.count("comparison")) == (2, 1)
    assert parts == sorted(parts, key=["folder", "training", "comparison"].index)


def test_the_files_come_out(repository: Path) -> None:
    names = {path.name for path in (repository / "abl4").glob("*.*")}
    assert names == {"__init__.py", "mamba.py", "mbs_net.py", "train.py"}
    assert not list(repository.rglob("*.bak"))


def test_the_difference_is_what_the_page_shows(repository: Path, printed: dict[str, str]) -> None:
    (shown,) = (block.text for block in blocks() if block.language == "diff")
    (command,) = (text for text in printed if text.startswith("diff -r"))
    assert shown == printed[command]


def test_the_number_of_parameters_is_what_the_page_says(
    repository: Path, printed: dict[str, str]
) -> None:
    (said,) = re.findall(r"prints `(.* parameters)`", PAGE.read_text(encoding="utf-8"))
    assert said + "\n" in printed.values()


def test_its_own_tests_and_those_of_the_layout_have_run(
    repository: Path, printed: dict[str, str]
) -> None:
    (report,) = (out for text, out in printed.items() if "pytest" in text)
    assert re.search(r"^\d+ passed", report, re.M)


def test_style_and_types_are_those_of_the_repository(repository: Path) -> None:
    pytest.importorskip("ruff")
    new = "abl4 tests/test_abl4.py"
    shell(f"python -m ruff check {new} && python -m ruff format --check {new}", repository)


def test_it_trains_and_goes_on_where_it_stopped(trained: Path) -> None:
    run = trained / "runs" / "abl4"
    assert load(run / "last.pt")["values"]["step"] == 4
    assert len(json.loads((run / "config.json").read_text())["sessions"]) == 2


def test_the_run_is_loaded_as_a_network_of_that_folder(trained: Path) -> None:
    text = (
        "from pathlib import Path\n"
        "from training.trained import load_trained\n"
        "found = load_trained(Path('runs/abl4'))\n"
        "print(type(found.network).__module__, found.step)"
    )
    assert shell(f'python -c "{text}"', trained) == "abl4.mbs_net 4\n"


@pytest.mark.slow
def test_it_is_compared_with_the_ablation_it_was_made_from(trained: Path) -> None:
    (block,) = (block for block in blocks() if made_of(block) == "comparison")
    table = carry_out(narrowed(block), trained)
    assert re.search(r"^\| abl4 \|", table, re.M)
    assert (trained / "results" / "abl4" / "report.html").is_file()
