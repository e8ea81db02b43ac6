"""Every backend of the selective scan against the float64 oracle, and its promises."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from torch import Tensor

from scan import BACKENDS, selective_scan
from scan import vector_math as vm

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
FAST = [name for name in BACKENDS if name != "reference"]
# Largest error relative to the largest entry. Float32 sums of up to 1000 rounded terms.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def make_arguments(b: int, length: int, d: int, n: int, seed: int = 0) -> dict[str, Tensor]:
    """float64 arguments in the range that a trained Mamba has."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return {
        "u": normal(b, length, d),
        "delta": normal(b, length, d),
        "A": -torch.exp(normal(d, n)),
        "B": normal(b, length, n),
        "C": normal(b, length, n),
        "D": normal(d),
        "z": normal(b, length, d),
        "delta_bias": normal(d) - 2,
        "initial_state": normal(b, d, n),
    }


def run(arguments: dict[str, Tensor], dtype: torch.dtype, backend: str, **options: Any) -> dict:
    """Outputs and all gradients of a fixed scalar function of both outputs."""
    cast = {k: v.to(dtype).detach().requires_grad_() for k, v in arguments.items()}
    out, last = selective_scan(
        **cast, delta_softplus=True, return_last_state=True, backend=backend, **options
    )
    rng = torch.Generator().manual_seed(1)
    probes = [torch.randn(x.shape, generator=rng, dtype=torch.float64) for x in (out, last)]
    loss = sum((x.double() * probe).sum() for x, probe in zip((out, last), probes, strict=True))
    grads = torch.autograd.grad(loss, list(cast.values()))
    return {"out": out, "last": last, **dict(zip(cast, grads, strict=True))}


def assert_close(got: dict, expected: dict, dtype: torch.dtype) -> None:
    assert got.keys() == expected.keys()
    for name, value in got.items():
        reference = expected[name].double()
        assert value.shape == reference.shape, name
        error = (value.double() - reference).abs().max() / reference.abs().max().clamp_min(1e-30)
        assert error < TOLERANCE[dtype], f"{name}: relative error {error:.2e}"


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
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_scanned_in_float32(backend: str, dtype: torch.dtype) -> None:
    rounded = {k: v.to(dtype).double() for k, v in make_arguments(2, 65, 64, 16).items()}
    expected = run(rounded, torch.float64, "reference")
    got = run(rounded, dtype, backend)
    assert got["out"].dtype == dtype
    assert_close(got, expected, dtype)


@pytest.mark.parametrize("backend", FAST)
def test_non_contiguous_inputs(backend: str) -> None:
    arguments = make_arguments(2, 20, 40, 4)
    strided = {k: v.transpose(0, -1).contiguous().transpose(0, -1) for k, v in arguments.items()}
    assert not strided["u"].is_contiguous()
    expected = run(arguments, torch.float64, "reference")
    assert_close(run(strided, torch.float32, backend), expected, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_equal_the_whole(backend: str, reverse: bool) -> None:
    whole = {k: v.float() for k, v in make_arguments(2, 90, 40, 4).items()}
    options = {"delta_softplus": True, "reverse": reverse, "backend": backend}
    expected = selective_scan(**whole, **options)
    pieces = [slice(0, 33), slice(33, 90)]
    state, outputs = whole["initial_state"], {}
    for piece in reversed(pieces) if reverse else pieces:
        part = {
            k: v[:, piece] if k in ("u", "delta", "B", "C", "z") else v for k, v in whole.items()
        }
        part["initial_state"] = state
        outputs[piece.start], state = selective_scan(**part, **options, return_last_state=True)
    got = torch.cat([outputs[piece.start] for piece in pieces], 1)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_the_scan_of_the_flipped_sequence(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(2, 21, 40, 4).items()}
    flipped = {
        k: v.flip(1) if k in ("u", "delta", "B", "C", "z") else v for k, v in arguments.items()
    }
    options = {"delta_softplus": True, "backend": backend}
    got = selective_scan(**arguments, reverse=True, **options)
    torch.testing.assert_close(got, selective_scan(**flipped, **options).flip(1))


def test_gradcheck_of_the_chunked_form() -> None:
    arguments = make_arguments(1, 7, 3, 2)
    inputs = [arguments[name].requires_grad_() for name in NAMES]

    def scan(*tensors: Tensor) -> Any:
        named = dict(zip(NAMES, tensors, strict=True))
        return selective_scan(
            **named, delta_softplus=True, return_last_state=True, chunk_size=3, backend="chunked"
        )

    assert torch.autograd.gradcheck(scan, inputs)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("absent", [(), OPTIONAL])
def test_operators_keep_torchs_contract(backend: str, absent: tuple[str, ...]) -> None:
    arguments = {k: v.float().requires_grad_() for k, v in make_arguments(2, 9, 6, 3).items()}
    tensors = [None if name in absent else arguments[name] for name in NAMES]
    operator = getattr(torch.ops.bsbimamba, f"scan_{backend}")
    torch.library.opcheck(operator, (*tensors, True, False, 4))


@pytest.mark.parametrize("backend", FAST)
def test_compile_traces_through_without_a_graph_break(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(2, 9, 6, 3).items()}

    def scan(u: Tensor) -> Any:
        return selective_scan(**{**arguments, "u": u}, delta_softplus=True, backend=backend)

    compiled = torch.compile(scan, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["u"]), scan(arguments["u"]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_nan_that_goes_in_comes_out(backend: str, name: str) -> None:
    arguments = make_arguments(1, 9, 70, 3)
    arguments[name][(0,) * arguments[name].dim()] = torch.nan
    results = run(arguments, torch.float32, backend)
    assert results.pop("out").isnan().any()
    results.pop("last")
    assert any(gradient.isnan().any() for gradient in results.values())


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


@pytest.mark.parametrize("backend", FAST)
def test_backward_inside_autocast_is_in_full_precision(backend: str) -> None:
    arguments = make_arguments(2, 20, 70, 4)
    expected = run(arguments, torch.float32, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(arguments, torch.float32, backend)
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_kernels_are_kept_under_the_content_of_their_sources() -> None:
    """numba alone would look at one file's date, and run old code after a change of the other."""
    from scan import cpu_kernels

    folder = f"scan-{cpu_kernels._VERSION}"
    for kernel in (cpu_kernels.scan_forward, cpu_kernels.scan_backward):
        assert folder in kernel.stats.cache_path
    assert {path.name for path in cpu_kernels._SOURCES} == {"cpu_kernels.py", "vector_math.py"}
    assert not numba.config.CACHE_DIR.endswith(folder)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("delta", [-1e30, -1e4, 1e4, 1e30])
def test_extreme_step_sizes_give_no_nan(backend: str, delta: float) -> None:
    arguments = {k: v.float() for k, v in make_arguments(1, 9, 70, 3).items()}
    arguments["delta"] = torch.full_like(arguments["delta"], delta)
    out = selective_scan(**arguments, delta_softplus=True, backend=backend)
    assert not out.isnan().any()


@pytest.mark.parametrize("backend", FAST)
def test_two_runs_give_identical_bits_on_any_number_of_threads(backend: str) -> None:
    arguments = make_arguments(5, 70, 130, 4)
    threads = torch.get_num_threads()
    first = run(arguments, torch.float32, backend)
    try:
        torch.set_num_threads(3)
        second = run(arguments, torch.float32, backend)
    finally:
        torch.set_num_threads(threads)
    names = first.keys() if backend == "cpu" else ("out", "last")
    assert all(torch.equal(first[name], second[name]) for name in names)


def test_every_entry_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make_arguments(3, 65, 70, 5)
    expected = run(arguments, torch.float32, "cpu")
    empty = torch.empty

    def poisoned(*args: Any, **options: Any) -> Tensor:
        return empty(*args, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", poisoned)
    got = run(arguments, torch.float32, "cpu")
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_backward_keeps_one_state_a_chunk() -> None:
    arguments = {k: v.float().requires_grad_() for k, v in make_arguments(2, 200, 64, 8).items()}
    for backend in FAST:
        for chunk_size in (16, 64):
            sizes = []

            def pack(x: Tensor, sizes: list = sizes) -> Tensor:
                sizes.append(x.numel())
                return x

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                selective_scan(**arguments, backend=backend, chunk_size=chunk_size)
            given_ = sum(x.numel() for x in arguments.values())
            borders = (200 - 1) // chunk_size * 2 * 64 * 8
            assert sum(sizes) == given_ + borders, (backend, chunk_size)


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_length_zero_returns_the_initial_state(backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(2, 0, 6, 3).items()}
    out, last = selective_scan(**arguments, return_last_state=True, backend=backend)
    assert out.shape == (2, 0, 6)
    assert torch.equal(last, arguments["initial_state"])


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize(("b", "d"), [(0, 6), (2, 0)])
def test_an_empty_batch_or_width_gives_an_empty_result(b: int, d: int, backend: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(b, 5, d, 3).items()}
    out, last = selective_scan(**arguments, return_last_state=True, backend=backend)
    assert (out.shape, last.shape) == ((b, 5, d), (b, d, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"B": torch.zeros(2, 9, 4)}, r"B has shape \(2, 9, 4\), expected \(2, 9, 3\)"),
        ({"D": torch.zeros(5)}, r"D has shape \(5,\), expected \(6,\)"),
        ({"u": torch.zeros(9, 6)}, r"u must be \(batch, length, width\)"),
        ({"A": torch.zeros(6)}, r"A must be \(width, state\)"),
        ({"C": torch.zeros(2, 9, 3, dtype=torch.long)}, "C has dtype torch.int64"),
        ({"z": torch.zeros(2, 9, 6, device="meta")}, "z is on meta, expected cpu"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"backend": "cuda"}, "backend 'cuda' is not one of"),
    ],
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    arguments = {k: v.float() for k, v in make_arguments(2, 9, 6, 3).items()}
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**arguments, **change})


def test_an_explicit_backend_that_cannot_run_says_why() -> None:
    with pytest.raises(ValueError, match="computes in float32 on a CPU"):
        selective_scan(**make_arguments(1, 3, 4, 2), backend="cpu")


def test_vector_functions_against_numpy() -> None:
    @njit(fastmath=vm.FASTMATH)
    def apply(x, exp2, softplus, sigmoid, again):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            exp2[i], softplus[i], sigmoid[i] = vm.exp2(x[i]), vm.softplus(x[i]), vm.sigmoid(x[i])
            again[i] = vm.sigmoid_from_softplus(softplus[i])

    x = np.linspace(-126, 127, 100_003, dtype=np.float32)
    got = [np.empty_like(x) for _ in range(4)]
    apply(x, *got)
    wide = x.astype(np.float64)
    expected = [np.exp2(wide), np.logaddexp(0, wide), *2 * [1 / (1 + np.exp(-wide))]]
    for name, mine, theirs, bound in zip(
        ("exp2", "softplus", "sigmoid", "sigmoid from it"),
        got,
        expected,
        (2e-7, 5e-6, 5e-6, 5e-6),
        strict=True,
    ):
        normal = theirs > 1e-37
        error = np.abs(mine[normal] / theirs[normal] - 1).max()
        assert error < bound, f"{name}: relative error {error:.2e}"
    edges = np.array([np.nan, -np.inf, np.inf, 0], np.float32)
    got = [np.empty_like(edges) for _ in range(4)]
    apply(edges, *got)
    np.testing.assert_array_equal(got[0], [np.nan, 0, np.inf, 1])
    np.testing.assert_allclose(got[1], [np.nan, 0, np.inf, np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(got[2], [np.nan, 0, 1, 0.5])
    np.testing.assert_allclose(got[3], [np.nan, 0, 1, 0.5], rtol=1e-6)
