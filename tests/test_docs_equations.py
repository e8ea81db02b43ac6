"""docs/equations.md: its programs do what the code does, and its figures are the code's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from document_pages import DOCS, defined, rows, text_of
from numpy.typing import NDArray

from abl3.mbs_net import MBSNet as Net3
from bandsplit.decoder import apply_filter
from scan import selective_scan
from training.config import Loss


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
