"""Who imports whom, and README's table of networks."""

import ast
import difflib
import importlib
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from bsbimamba.network.cost import count_parameters
from bsbimamba.training.config import BASE, diff

ABLATIONS = ("abl1", "abl2", "abl3")
# What a package of `bsbimamba`, or a module or folder beside it, may import of the project.
COMMON = {"openmp", "utils"}
NETWORK = {"data", "network", "openmp"}
ALLOWED = {
    "scan": set(),
    "recompute": {"scan"},
    "real_mamba_optimized": {"recompute", "scan"},
    "utils": set(),
    "openmp": set(),
    "data": COMMON,
    "network": {"data", "recompute", "utils"},
    "metrics": {"data", "utils"},
    "report": {"data", "metrics", "utils"},
    "training": {"data", "metrics", "network", *COMMON},
    "inference": {"data", "network", "scan", "training", *COMMON},
    "baseline": NETWORK,
    **{name: {*NETWORK, "real_mamba_optimized"} for name in ABLATIONS},
    "commands": {"data", "inference", "metrics", "network", "report", "training", *COMMON},
    "__main__": {"data"},
    "evaluate": {"commands", "data"},
    "enhance": {"commands", "data"},
    "app": {"data", "inference", "training", *COMMON},
    "benchmarks": {*NETWORK, "baseline", "inference", "metrics", "scan", "training", "utils"},
}
# Single files that may import more than their package.
MORE = {f"{name}/train.py": {"training"} for name in (*ABLATIONS, "baseline")}


def modules(package: str) -> list[Path]:
    """Return the files of a package, folder or module."""
    inside = ROOT / "bsbimamba" / package
    place = inside if inside.is_dir() or inside.with_suffix(".py").is_file() else ROOT / package
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def imported(path: Path) -> set[str]:
    """Return the project's packages that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    tops = {name.removeprefix("bsbimamba.").partition(".")[0] for name in names}
    # "mamba" and the like would be a module of the folder that the command is started in.
    return tops & {*ALLOWED, "mamba", "mbs_net", "bsrnn", "train"}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    for path in modules(package):
        name = path.relative_to(ROOT).as_posix()
        strangers = imported(path) - ALLOWED[package] - MORE.get(name, set()) - {package}
        assert not strangers, f"{name} imports {strangers}"


@pytest.mark.parametrize(("one", "other", "changed"), [("abl1", "abl2", 2), ("abl2", "abl3", 4)])
def test_ablations_differ_by_the_ablation(one: str, other: str, changed: int) -> None:
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


def scores(page: str) -> dict[str, dict[str, str]]:
    """Return a page's first table of scores: texts by system and heading."""
    table = (ROOT / page).read_text(encoding="utf-8").partition("| system |")[2].partition("\n\n")
    first, _, *rows = [line.strip("| ").split(" | ") for line in table[0].splitlines()]
    return {name: dict(zip(first, cells, strict=False)) for name, *cells in rows}


def test_readmes_scores_are_those_of_the_table() -> None:
    shown, measured = scores("README.md"), scores("results/open_mix/table.md")
    assert [*shown] == [*measured]
    assert all(row.items() <= measured[name].items() for name, row in shown.items())


def test_wheel_holds_every_module_and_file_of_the_packages() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    places = {name: ROOT / name.replace(".", "/") for name in setup["packages"]}
    places |= {name: ROOT / place for name, place in setup["package-dir"].items()}
    held = {path for place in places.values() for path in place.glob("*.py")}
    for name, patterns in setup["package-data"].items():
        found = {path for pattern in patterns for path in places[name].glob(pattern)}
        assert found, name
        held |= found
    tops = ("bsbimamba", "baseline", "models/abl3", "models/bsrnn_bi", *ABLATIONS)
    files = {path for top in tops for path in (ROOT / top).rglob("*") if path.is_file()}
    assert {path for path in files - held if "__pycache__" not in path.parts} == set()
