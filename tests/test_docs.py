"""The pages in docs/ and README say what the code does: figures, names, links, equations."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from torch import nn

from abl1.mbs_net import MBSNet as Net1
from abl2.mbs_net import MBSNet as Net2
from abl3.mbs_net import MBSNet as Net3
from bandsplit.bands import WIDTHS
from bandsplit.cost import count_parameters
from bandsplit.decoder import apply_filter
from bandsplit.net import BandSplitNet
from baseline.bsrnn import BSRNN, BSRNNLayer
from scan import selective_scan
from training.config import BASE, Loss
from training.settings import flatten, network_defaults

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
NETWORKS: dict[str, type[BandSplitNet]] = {
    "baseline": BSRNN, "abl1": Net1, "abl2": Net2, "abl3": Net3,
}  # fmt: skip


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(path), flags=re.M | re.S)


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The rows of the first table under a heading, by their first cell."""
    section = text_of(DOCS / page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


# Links and names


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


def defined(path: Path) -> set[str]:
    """What a module or one of its classes defines, by name."""
    tree, names = ast.parse(text_of(path)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


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


# The architecture


def parameters_of(net: BandSplitNet) -> dict[str, int]:
    """Of each part in the table of docs/architecture.md."""
    time = band = 0
    for layer in net.layers.children():
        if isinstance(layer, BSRNNLayer):
            time += count_parameters(layer.time_norm) + count_parameters(layer.time_lstm)
            band += count_parameters(layer.band_norm) + count_parameters(layer.band_lstm)
        elif type(layer).__name__ == "IntraBandBiMamba":
            time += count_parameters(layer)
        else:
            band += count_parameters(layer)
    return {
        "split": count_parameters(net.split),
        "time paths": time,
        "band paths": band,
        "decoder": count_parameters(net.decoder),
        "in all": count_parameters(net),
    }


def test_the_table_of_parts_is_that_of_the_networks() -> None:
    table = rows("architecture.md", "Where the parameters are")
    for column, name in enumerate(table["part"]):
        found = {part: f"{count:,}" for part, count in parameters_of(NETWORKS[name]()).items()}
        assert {part: table[part][column] for part in found} == found
    assert len(table["part"]) == len(NETWORKS)


def test_the_table_of_a_path_is_that_of_its_modules() -> None:
    table = rows("architecture.md", "A path")
    block = Net1().layers[0].block
    mixer, ssm = block.mixer, block.mixer.forward_mamba.ssm
    single: dict[str, nn.Module] = {
        **dict(ssm.named_children()), "one direction": ssm, "merge": mixer.merge,
        "feed_forward": block.feed_forward, "a path": block,
    }  # fmt: skip
    found = {name: count_parameters(module) for name, module in single.items()}
    found |= {name: getattr(ssm, name).numel() for name in ("A_log", "D")}
    found["both directions"] = 2 * found["one direction"]
    found["both norms"] = sum(map(count_parameters, (block.mixer_norm, block.feed_forward_norm)))
    assert {name: int(row[1].replace(",", "")) for name, row in list(table.items())[2:]} == found
    for name in ("in_proj", "x_proj", "out_proj"):
        assert table[name][0] == " × ".join(map(str, getattr(ssm, name).weight.shape))


def test_the_shapes_are_those_of_a_batch() -> None:
    net = Net3(channels=16)
    noisy = torch.zeros(6, 32000)
    found: dict[str, torch.Size] = {"waveform": noisy.shape}
    net.split.register_forward_hook(
        lambda _, x, y: found.update({"spectrum, complex": x[0].shape, "features": y.shape})
    )
    net.decoder.register_forward_hook(lambda _, x, y: found.update({"filter, complex": y.shape}))
    net.enhance(noisy)
    table = rows("architecture.md", "Axes and shapes")
    for name, shape in found.items():
        sizes = [192 if size == 16 else size for size in shape]
        assert table[name][1] == " × ".join(f"{size:,}" for size in sizes)
    k, b, t, _ = found["features"]
    assert table["sequences of the time path"][1] == f"{k * b} × {t} × 192"
    assert table["sequences of the band path"][1] == f"{b * t:,} × {k} × 192"


def test_the_drawing_shows_the_figures_of_the_code() -> None:
    root = ElementTree.parse(DOCS / "architecture.svg").getroot()
    words = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for name, network in NETWORKS.items():
        assert words[words.index(name) + 4] == f"{count_parameters(network()):,}"
    hidden = [group.hidden for group in Net3().decoder.groups]
    assert f"adaptive, {' / '.join(map(str, sorted(set(hidden))))}" in words
    assert {f"time path: {31 * 6} sequences of 251 frames",
            f"band path: {6 * 251} sequences of {len(WIDTHS)} bands"} <= set(words)  # fmt: skip


# The equations


def program(name: str, page: str = "equations.md") -> Callable[..., Any]:
    """A function that a page defines."""
    space: dict[str, Any] = {"np": np}
    (text,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```$", text_of(DOCS / page), re.M | re.S)
        if block.startswith(f"def {name}(")
    )
    exec(text, space)
    return space[name]


@pytest.fixture
def sequence() -> dict[str, NDArray]:
    """What a scan takes, for one sequence of 9 steps, 3 channels and 4 states."""
    rng = np.random.default_rng(0)
    length, width, states = 9, 3, 4
    found = {name: rng.standard_normal((length, width)) for name in ("u", "delta", "z")}
    found |= {name: rng.standard_normal((length, states)) for name in ("B", "C")}
    found |= {name: rng.standard_normal(width) for name in ("D", "bias")}
    return found | {"A": -np.exp(rng.standard_normal((width, states)))}


def as_arguments(sequence: dict[str, NDArray]) -> dict[str, torch.Tensor]:
    """The same for `selective_scan`: a batch of one, with gradients."""
    batched = {k: v[None] if k in ("u", "delta", "z", "B", "C") else v for k, v in sequence.items()}
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in batched.items()}
    return {"delta_bias" if name == "bias" else name: value for name, value in tensors.items()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_the_recurrence_is_the_scan(
    backend: str, reverse: bool, sequence: dict[str, NDArray]
) -> None:
    out = selective_scan(
        **as_arguments(sequence), delta_softplus=True, reverse=reverse, chunk_size=4,
        backend=backend,
    )  # fmt: skip
    expected = program("scan")(**sequence, reverse=reverse)
    np.testing.assert_allclose(out[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_the_backward_recurrence_gives_the_gradients(sequence: dict[str, NDArray]) -> None:
    sequence = {name: sequence[name] for name in ("u", "delta", "A", "B", "C")}
    sequence["delta"] = np.abs(sequence["delta"])
    given = as_arguments(sequence)
    out = selective_scan(**given, backend="reference")
    grad = np.random.default_rng(1).standard_normal(out.shape[1:])
    out.backward(torch.tensor(grad)[None])
    steps = sequence.pop("delta")
    found = program("scan_backward")(grad, steps, **sequence)
    for name, value in zip(("delta", "u", "A", "B", "C"), found, strict=True):
        expected = given[name].grad.reshape(value.shape).numpy()
        np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_the_filter_is_that_of_the_decoder() -> None:
    rng = np.random.default_rng(0)
    taps, spectrum = (
        rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        for shape in ((5, 7, 3), (5, 7))
    )
    found = apply_filter(torch.from_numpy(taps)[None], torch.from_numpy(spectrum)[None])[0].numpy()
    np.testing.assert_allclose(found, program("filtered")(taps, spectrum), rtol=1e-12)


def test_the_weights_of_the_losses_are_those_of_the_configuration() -> None:
    table = rows("equations.md", "Losses")
    weights = {name.removesuffix("_loss"): float(row[-1]) for name, row in list(table.items())[2:]}
    defaults = {name: getattr(Loss(), name) for name in weights}
    assert weights == defaults
    assert len(weights) == 6
    assert {name for name in table if name.endswith("_loss")} <= defined(
        ROOT / "training" / "losses.py"
    )


def test_the_adaptive_widths_are_those_of_ablation_3() -> None:
    (line,) = re.findall(r"H_k = .*tag\{17\}", text_of(DOCS / "equations.md"))
    said = [int(number) for number in re.findall(r"(\d+) \\;\\text\{for\}", line)]
    assert said == sorted({group.hidden for group in Net3().decoder.groups})


# The troubles

SOURCES = [
    path
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]
    if path.parent.name not in ("tests", "runs")
]
# A value in a message: of an f-string, of str.format, of logging.
VALUE = "\N{OBJECT REPLACEMENT CHARACTER}"


def template(node: ast.expr) -> str:
    """The text of a literal, a mark in the place of each value."""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"\{\w*(:[^{}]*)?\}|%[sdg]", VALUE, node.value)
    return VALUE


@cache
def messages() -> str:
    """All that the software may say, a text on a line; values are marks."""
    texts = []
    for path in SOURCES:
        nodes = list(ast.walk(ast.parse(text_of(path))))
        comments = [node.value for node in nodes if isinstance(node, ast.Expr)]  # docstrings
        texts += [
            template(node)
            for node in nodes
            if isinstance(node, ast.JoinedStr | ast.Constant) and node not in comments
        ]
    return "\n".join(" ".join(text.split()) for text in texts)


def quoted() -> list[str]:
    """The messages on the page: quotations, and the reasons in its last table."""
    page = text_of(DOCS / "troubleshooting.md")
    reasons = rows("troubleshooting.md", "A file has no score")
    return [*re.findall(r"^> `(.+)`$", page, re.M), *list(reasons)[2:]]


@pytest.mark.parametrize("message", quoted())
def test_every_message_that_is_quoted_is_in_the_code(message: str) -> None:
    assert re.sub(r"\{\w+\}", VALUE, message) in messages()


def test_every_quotation_is_a_message() -> None:
    page = text_of(DOCS / "troubleshooting.md")
    assert len(re.findall(r"^>", page, re.M)) == len(re.findall(r"^> `.+`$", page, re.M)) > 20


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
    "--signal", "--requeue", "--open-mode", "--index-url", "--logdir",
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


def test_every_thread_is_named_with_its_repository() -> None:
    """A bare number would be taken for an issue of this repository."""
    for page in PAGES:
        assert not re.search(r"(?<![\w/-])#\d+", prose(page)), page
