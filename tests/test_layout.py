"""The repository's shape: who imports whom, what an ablation may hold, what README says."""

from __future__ import annotations

import ast
import difflib
import importlib
import re
from pathlib import Path

import pytest
from conftest import ROOT

from abl3.train import PRESETS as ABL3_PRESETS
from bandsplit.cost import count_parameters
from baseline.bsrnn import BSRNN
from baseline.train import CONFIG as BASELINE
from baseline.train import PRESETS as BASELINE_PRESETS
from training.config import BASE, Config, diff

ABLATIONS = ("abl1", "abl2", "abl3")
OWN = {*ABLATIONS, "baseline", "bandsplit", "benchmarks", "data", "enhancement", "evaluation",
       "recompute", "scan", "training", "real_mamba_optimized", "app",
       "enhance", "evaluate"}  # fmt: skip
# What the modules of a package may import of the project, beside their own package.
ALLOWED = {
    "scan": set(),
    "recompute": {"scan"},
    "real_mamba_optimized": {"recompute", "scan"},
    "data": set(),
    "bandsplit": {"data", "recompute"},
    "evaluation": {"data"},
    "training": {"bandsplit", "data", "evaluation"},
    "baseline": {"bandsplit", "data", "training"},
    **{name: {"bandsplit", "data", "real_mamba_optimized", "training"} for name in ABLATIONS},
    "evaluate": {"bandsplit", "data", "enhancement", "evaluation", "training"},
    "enhancement": {"bandsplit", "data", "training"},
    "enhancement/export.py": {"bandsplit", "data", "scan", "training"},
    "enhance": {"data", "enhancement", "training"},
    "app": {"data", "enhancement", "training"},
    "benchmarks": {"bandsplit", "data", "enhancement", "evaluation", "scan", "training"},
}


def modules(package: str) -> list[Path]:
    folder = ROOT / package
    if package.endswith(".py"):
        return [folder]
    return sorted(folder.glob("*.py")) if folder.is_dir() else [ROOT / f"{package}.py"]


def imported(path: Path) -> set[str]:
    """The project's packages that a file imports, at whatever depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add((node.module or "").partition(".")[0])
    return names & OWN


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    for path in modules(package):
        own = path.relative_to(ROOT).as_posix()
        allowed = ALLOWED[own] if own in ALLOWED else ALLOWED[package]
        strangers = imported(path) - allowed - {package.partition("/")[0]}
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


def test_only_train_imports_training_in_the_networks_folders() -> None:
    for folder in (*ABLATIONS, "baseline"):
        for path in modules(folder):
            assert ("training" in imported(path)) == (path.name == "train.py"), path


def test_bare_module_names_are_never_imported() -> None:
    """`import mamba` would find whichever ablation's folder is the working directory."""
    for path in ROOT.glob("*/*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (mamba|mbs_net|bsrnn|train)\b", text, re.M), path


def test_ablations_have_the_same_files() -> None:
    expected = {"__init__.py", "mamba.py", "mbs_net.py", "train.py"}
    assert all({path.name for path in modules(folder)} == expected for folder in ABLATIONS)


def code(path: Path) -> list[str]:
    """A file without docstrings, with its folder's name made neutral."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body.pop(0)
    return re.sub(r"abl\d", "ablN", ast.unparse(tree)).splitlines()


def changed(one: str, other: str, name: str) -> tuple[set[str], set[str]]:
    """Lines of code that only one of two ablations has."""
    lines = list(difflib.ndiff(code(ROOT / one / name), code(ROOT / other / name)))
    return tuple({x[2:].strip() for x in lines if x.startswith(sign)} for sign in "-+")  # type: ignore[return-value]


def test_the_difference_between_ablations_is_the_ablation() -> None:
    removed, added = changed("abl1", "abl2", "mbs_net.py")
    assert removed == {"from ablN.mamba import IntraBandBiMamba"}
    assert added == {
        "from ablN.mamba import CrossBandBiMamba, IntraBandBiMamba",
        "layers.append(CrossBandBiMamba(channels, norm, **options))",
    }
    removed, added = changed("abl2", "abl3", "mbs_net.py")
    assert "from bandsplit.decoder import MaskDecoder" in removed
    assert "from ablN.mamba import CrossBandBiMamba, IntraBandBiMamba, MaskDecoderAdaptive" in added
    # Beside the imports: the argument that says how wide the decoders are, and the call of them.
    assert len(removed) == 4
    assert len(added) == 3
    assert all("hidden" in text or "import" in text for text in removed | added)
    removed, added = changed("abl1", "abl2", "mamba.py")
    assert removed == {"from bandsplit.path import PathBlock, along_time"}
    assert "class CrossBandBiMamba(nn.Module):" in added
    removed, added = changed("abl2", "abl3", "mamba.py")
    assert removed == {"from bandsplit.bands import DEFAULT_NORM"}
    assert "class MaskDecoderAdaptive(MaskDecoder):" in added
    for one, other in (("abl1", "abl2"), ("abl2", "abl3")):
        removed, added = changed(one, other, "train.py")
        assert not removed - {"main(MBSNet, CONFIG)"}
        assert all("PRESETS" in text or "main" in text for text in added)


def test_train_files_declare_and_do_nothing() -> None:
    for folder in (*ABLATIONS, "baseline"):
        tree = ast.parse((ROOT / folder / "train.py").read_text(encoding="utf-8"))
        kinds = {type(node) for node in tree.body}
        assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.If}


def test_files_are_of_a_readable_length() -> None:
    for folder in OWN:
        for path in modules(folder):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def described() -> set[str]:
    """The files of which README's list by folder has a line."""
    found, folders = set(), [""]
    for line in readme().partition("### File by file")[2].splitlines():
        if heading := re.match(r"\| \*\*(.+)\*\* \|", line):
            folders = heading[1].split()
        elif entry := re.match(r"\| `([^`]+)` \|", line):
            found |= {folder + entry[1] for folder in folders}
    return found


def test_readme_has_one_line_for_every_file() -> None:
    files = {p.relative_to(ROOT).as_posix() for package in OWN for p in modules(package)}
    assert described() == {name for name in files if not name.endswith("__init__.py")}


def ablation(name: str) -> tuple[type, Config]:
    """The network of an ablation's folder, and its configuration."""
    network = importlib.import_module(f"{name}.mbs_net").MBSNet
    return network, importlib.import_module(f"{name}.train").CONFIG


def ablation_table() -> str:
    """The README's table of networks, from their configurations."""
    presets = {**BASELINE_PRESETS, **ABL3_PRESETS}
    networks = {
        "baseline": (BSRNN, BASELINE),
        **{name: ablation(name) for name in ABLATIONS},
        **{f"--preset {name}": preset for name, preset in presets.items()},
    }
    rows = [
        "| network | parameters | its settings, where they differ from the defaults |",
        "|---|---:|---|",
    ]
    for name, (network, config) in networks.items():
        settings = [f"{k} {new}" for k, (_, new) in diff(BASE, config).items() if k != "name"]
        count = count_parameters(network(**config.model))
        rows.append(f"| {name} | {count:,} | {', '.join(settings)} |")
    return "\n".join(rows)


def test_readmes_table_of_networks_is_that_of_the_code() -> None:
    assert ablation_table() in readme(), f"put this into README.md:\n{ablation_table()}"
