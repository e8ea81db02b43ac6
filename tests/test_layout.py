"""The shape of the repository: who imports whom, and what an ablation's folder holds."""

from __future__ import annotations

import ast
import difflib
import importlib
from pathlib import Path

import pytest
from conftest import ROOT

from bandsplit.cost import count_parameters
from training.config import BASE, diff

ABLATIONS = ("abl1", "abl2", "abl3")
# What a package or module may import of the project, beside itself.
ALLOWED = {
    "scan": set(),
    "recompute": {"scan"},
    "real_mamba_optimized": {"recompute", "scan"},
    "data": set(),
    "bandsplit": {"data", "recompute"},
    "evaluation": {"data"},
    "training": {"bandsplit", "data", "evaluation"},
    "baseline": {"bandsplit", "data"},
    **{name: {"bandsplit", "data", "real_mamba_optimized"} for name in ABLATIONS},
    "evaluate": {"bandsplit", "data", "enhancement", "evaluation", "training"},
    "enhancement": {"bandsplit", "data", "scan", "training"},
    "enhance": {"data", "enhancement", "training"},
    "app": {"data", "enhancement", "training"},
    "benchmarks": {"bandsplit", "data", "enhancement", "evaluation", "scan", "training"},
}
# Single files that may import more than their package.
TRAIN = {f"{name}/train.py": {"training"} for name in (*ABLATIONS, "baseline")}
MORE = {"data/verify.py": {"evaluation"}, **TRAIN}


def modules(package: str) -> list[Path]:
    folder = ROOT / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{package}.py"]


def imported(path: Path) -> set[str]:
    """Return the project's packages that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add((node.module or "").partition(".")[0])
    # The last would be whichever ablation's module is in the working directory.
    return names & {*ALLOWED, "mamba", "mbs_net", "bsrnn", "train"}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    for path in modules(package):
        name = path.relative_to(ROOT).as_posix()
        strangers = imported(path) - ALLOWED[package] - MORE.get(name, set()) - {package}
        assert not strangers, f"{name} imports {strangers}"


@pytest.mark.parametrize(("one", "other", "changed"), [("abl1", "abl2", 2), ("abl2", "abl3", 4)])
def test_ablations_differ_by_the_ablation(one: str, other: str, changed: int) -> None:
    assert [path.name for path in modules(one)] == [path.name for path in modules(other)]
    first, second = (
        (ROOT / name / "mbs_net.py").read_text(encoding="utf-8").replace(name, "ablN").splitlines()
        for name in (one, other)
    )
    # The first line says which ablation it is.
    added = [line for line in difflib.ndiff(first[1:], second[1:]) if line.startswith("+ ")]
    assert len(added) == changed, added


def test_readmes_table_of_networks_has_the_figures_of_the_code() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("baseline", *ABLATIONS):
        train = importlib.import_module(f"{name}.train")
        network = getattr(train, "BSRNN", None) or train.MBSNet
        presets = getattr(train, "PRESETS", {}).items()
        presented = [(f"--preset {preset}", *made) for preset, made in presets]
        for label, kind, config in [(name, network, train.CONFIG), *presented]:
            settings = [f"{k} {new}" for k, (_, new) in diff(BASE, config).items() if k != "name"]
            row = (
                f"| {label} | {count_parameters(kind(**config.model)):,} | {', '.join(settings)} |"
            )
            assert row in readme, f"put this into README.md:\n{row}"
