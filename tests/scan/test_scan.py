"""The scan's backends that run on a CPU against the float64 oracle."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scan_cases import (
    NAMES,
    OPTIONAL,
    assert_close,
    check_extreme_steps,
    check_nan,
    check_overflowing_decay,
    gradients,
    make_arguments,
    make_both,
    run,
    run_both,
)

from bsbimamba.scan import selective_scan
from bsbimamba.scan.interface import SEQUENCES

FAST = ("chunked", "cpu")
ALL = ("reference", *FAST)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 7, 31, 63, 64, 65, 251, 1000])
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("chunked", torch.float64), ("chunked", torch.float32), ("cpu", torch.float32)],
)
def test_outputs_and_gradients(
    backend: str, dtype: torch.dtype, length: int, reverse: bool
) -> None:
    arguments = make_arguments(2, length, 70, 5)
    expected = run(arguments, torch.float64, "reference", reverse=reverse)
    assert_close(run(arguments, dtype, backend, reverse=reverse), expected, dtype)


@settings(max_examples=40, deadline=None)
@example(1, 4, 1, 9, 1, True, set(), "chunked")  # gradients that nearly cancel
@given(
    b=st.integers(1, 3),
    length=st.integers(1, 40),
    d=st.sampled_from([1, 3, 63, 64, 65, 129]),
    n=st.integers(1, 17),
    chunk_size=st.integers(1, 50),
    reverse=st.booleans(),
    absent=st.sets(st.sampled_from(OPTIONAL)),
    backend=st.sampled_from(FAST),
)
def test_any_shape_chunk_and_optional_arguments(
    b: int,
    length: int,
    d: int,
    n: int,
    chunk_size: int,
    reverse: bool,
    absent: set[str],
    backend: str,
) -> None:
    arguments = make_arguments(b, length, d, n)
    for name in absent:
        del arguments[name]
    expected = run(arguments, torch.float64, "reference", reverse=reverse)
    got = run(arguments, torch.float32, backend, reverse=reverse, chunk_size=chunk_size)
    assert_close(got, expected, torch.float32)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("absent", [(), ("z",)])
@pytest.mark.parametrize(
    ("half", "parameters"),
    [
        (torch.bfloat16, torch.float32),  # as under autocast: each gradient has its own dtype
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_half_precision_inputs_are_scanned_in_float32(
    backend: str, absent: tuple[str, ...], half: torch.dtype, parameters: torch.dtype
) -> None:
    arguments = {k: v for k, v in make_arguments(2, 65, 70, 16).items() if k not in absent}
    dtypes = {k: half if k in SEQUENCES else parameters for k in arguments}
    rounded = {k: v.to(dtypes[k]).double() for k, v in arguments.items()}
    expected = run(rounded, torch.float64, "reference")
    got = run(rounded, dtypes, backend)
    for name, dtype in {**dtypes, "out": half, "last": torch.float32}.items():
        assert got[name].dtype == dtype, name
    # The output's gradient is rounded before the backward pass.
    assert_close(got, expected, half)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("reverse", [False, True])
def test_two_directions_at_once_equal_each_alone(backend: str, reverse: bool) -> None:
    arguments = make_both(2, 33, 70, 5)
    got = run_both(arguments, torch.float32, backend, reverse=reverse, chunk_size=16)
    expected = run_both(arguments, torch.float64, "reference", reverse=reverse)
    assert_close(got, expected, torch.float32)
    for r, way in enumerate((reverse, not reverse)):
        one = {k: v[r].float() for k, v in arguments.items()}
        alone = selective_scan(
            **one, delta_softplus=True, reverse=way, chunk_size=16, backend=backend
        )
        assert torch.equal(got["out"][r], alone)


@pytest.mark.parametrize("backend", FAST)
def test_any_strides(backend: str) -> None:
    """Views as a projection gives them, and one sequence expanded."""
    arguments = make_arguments(2, 20, 48, 4)
    expected = run(arguments, torch.float64, "reference")
    views = {k: torch.stack([v.float(), v.float() * torch.nan], -2) for k, v in arguments.items()}
    halves = {k: v[..., 0, :].requires_grad_() for k, v in views.items()}
    assert halves["u"].stride(-1) == 1
    assert not halves["u"].is_contiguous()
    out, last = selective_scan(
        **halves, delta_softplus=True, return_last_state=True, backend=backend
    )
    assert_close(gradients({"out": out, "last": last}, halves), expected, torch.float32)
    one = make_arguments(1, 20, 48, 4)
    many = {k: v.expand(3, *v.shape[1:]) if k in SEQUENCES else v for k, v in one.items()}
    many["initial_state"] = one["initial_state"].expand(3, -1, -1)
    expected = run(many, torch.float64, "reference")
    assert_close(run(many, torch.float32, backend), expected, torch.float32)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_equal_the_whole(backend: str, reverse: bool) -> None:
    whole = {k: v.float() for k, v in make_arguments(2, 90, 40, 4).items()}
    options = {"delta_softplus": True, "reverse": reverse, "backend": backend}
    expected = selective_scan(**whole, **options)
    pieces = [slice(0, 33), slice(33, 90)]
    state, outputs = whole["initial_state"], {}
    for piece in reversed(pieces) if reverse else pieces:
        part = {k: v[:, piece] if k in SEQUENCES else v for k, v in whole.items()}
        part["initial_state"] = state
        outputs[piece.start], state = selective_scan(**part, **options, return_last_state=True)
    got = torch.cat([outputs[piece.start] for piece in pieces], 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("name", NAMES)
def test_a_nan_that_goes_in_comes_out(backend: str, name: str) -> None:
    check_nan(backend, name)


@pytest.mark.parametrize("backend", FAST)
def test_two_runs_give_identical_bits(backend: str) -> None:
    one, both = make_arguments(5, 70, 130, 4), make_both(5, 70, 130, 4)
    threads = torch.get_num_threads()

    def results() -> list[dict]:
        return [run(one, torch.float32, backend), run_both(both, torch.float32, backend)]

    first = results()
    try:
        # The plain form's sums are PyTorch's, whose order on other numbers of threads is its own.
        for number in (1, 3, threads) if backend == "cpu" else (threads,):
            torch.set_num_threads(number)
            for a, b in zip(first, results(), strict=True):
                assert all(torch.equal(a[name], b[name]) for name in a)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("delta", [-1e30, -1e4, 1e4, 1e30])
def test_extreme_step_sizes_give_no_nan(backend: str, delta: float) -> None:
    check_extreme_steps(backend, delta)


@pytest.mark.parametrize("backend", FAST)
def test_a_decay_that_overflows_leaves_nothing_at_nothing(backend: str) -> None:
    check_overflowing_decay(backend)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_of_the_smallest_steps_keep_their_digits(backend: str) -> None:
    """Mamba starts with steps from 1e-3 on, and trained ones are smaller by far."""
    arguments = make_arguments(1, 40, 64, 4)
    arguments["delta"] = torch.linspace(-20, 5, 40, dtype=torch.float64)[None, :, None].expand(
        1, 40, 64
    )
    arguments["delta_bias"] = torch.zeros(64, dtype=torch.float64)
    expected = run(arguments, torch.float64, "reference")["delta"]
    got = run(arguments, torch.float32, backend)["delta"].double()
    # Each step on its own scale, which shrinks with the step.
    scale = expected.abs().amax((0, 2))
    error = ((got - expected).abs().amax((0, 2)) / scale).max()
    assert error < 2e-5, f"relative error {error:.1e}"
