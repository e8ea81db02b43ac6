"""Mamba's short convolution with its SiLU, on a CPU."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scan_cases import compare_convolution, make_convolution, only

from bsbimamba.scan.convolution import convolution_forward

HERE = ("torch", "cpu")


@settings(max_examples=40, deadline=None)
@example(2, 251, 70, 4, True, 2, "torch")
@example(2, 251, 70, 4, True, 2, "cpu")
@given(
    b=st.integers(1, 40),
    length=st.integers(1, 31),
    d=st.sampled_from([1, 15, 16, 17, 64]),
    taps=st.integers(1, 6),
    reverse=st.booleans(),
    directions=st.integers(1, 2),
    backend=st.sampled_from(HERE),
)
def test_against_its_definition(
    b: int, length: int, d: int, taps: int, reverse: bool, directions: int, backend: str
) -> None:
    compare_convolution(backend, b, length, d, taps, reverse, directions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    for backend in HERE if dtype != torch.float64 else ("torch",):
        compare_convolution(backend, 2, 20, 64, dtype=dtype)


def test_operators_keep_torchs_contract() -> None:
    arguments = [x.float() for x in make_convolution(2, 9, 20, 4, 2).values()]
    operators = torch.ops.bsbimamba
    for backend in HERE:
        with only(backend):
            torch.library.opcheck(operators.conv_silu, (*arguments, False))
            torch.library.opcheck(operators.conv_silu_backward, (arguments[0], *arguments, True))


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("name", ["u", "weight", "bias"])
def test_a_nan_that_goes_in_comes_out(name: str, backend: str) -> None:
    arguments = {k: v.float() for k, v in make_convolution(1, 9, 20, 4, 1).items()}
    arguments[name][(0,) * arguments[name].dim()] = torch.nan
    with only(backend):
        assert convolution_forward(**arguments, reverse=False).isnan().any()
