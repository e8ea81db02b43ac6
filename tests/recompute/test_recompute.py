"""What is computed in pieces, with backward passes by hand, against autograd in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_path import plain_pair, plain_swiglu
from torch import Tensor, nn
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from abl3.mamba import CrossBandBiMamba, IntraBandBiMamba
from benchmarks.measuring import saved_bytes
from bsbimamba.network.bands import NORMS, Norm
from bsbimamba.network.path import SwiGLU
from bsbimamba.recompute import rows
from bsbimamba.recompute.rows import Along, along_bands, along_time
from real_mamba_optimized import BidirectionalMambaBlock, MambaBlock

MODES = (False, True, "full")


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes at once by the events of PyTorch's allocator on a CPU, of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the profiler does not see what another thread frees
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
    finally:
        torch.set_num_threads(threads)
    events, allocations = profiler.profiler.kineto_results.experimental_event_tree(), []
    while events:
        event = events.pop()
        events += event.children
        if event.tag == _EventType.Allocation:
            allocations.append(event)
    live: dict[int, int] = {}  # bytes by address
    now = peak = 0
    for event in sorted(allocations, key=lambda event: event.start_time_ns):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            live[address] = size
        else:  # the profiler reports wrong sizes of blocks that are older than the profile
            size = -live.pop(address, 0)
        now += size
        peak = max(peak, now)
    return peak


def norm_of(channels: int, kind: str = "frame") -> Norm:
    norm = Norm(channels, kind)
    norm.eps = 0.1  # its own is taken
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    return norm


def features(channels: int = 24, dtype: torch.dtype = torch.float64) -> Tensor:
    """(k, b, t, c)."""
    return torch.randn(7, 2, 19, channels, dtype=dtype)


def results(
    function: Callable[[Tensor], Tensor], modules: list[nn.Module], x: Tensor
) -> dict[str, Tensor]:
    """The output, and the gradients of x and of all parameters for a fixed function of it."""
    x = x.detach().requires_grad_()
    named = {f"{i}.{k}": p for i, m in enumerate(modules) for k, p in m.named_parameters()}
    out = function(x)
    probe = torch.randn(
        out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    ).to(out)
    gradients = torch.autograd.grad(out, [x, *named.values()], probe)
    return {"out": out.detach(), **dict(zip(["x", *named], gradients, strict=True))}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        error = (got[name].double() - reference.double()).abs().max()
        assert error <= tolerance * reference.abs().max(), (name, error)


@pytest.fixture(params=[along_time, along_bands], ids=["along time", "along bands"])
def along(request: pytest.FixtureRequest) -> Along:
    return request.param


@pytest.fixture(params=[1, 38, 10**6], ids=["one a piece", "some a piece", "one piece"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_CPU_ROWS", request.param)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [None, *NORMS])
def test_both_directions_against_autograd(
    mode: Any, kind: str | None, along: Along, pieces: None
) -> None:
    block = BidirectionalMambaBlock(24, d_state=5, chunk_size=8, use_checkpoint=mode).double()
    norm = norm_of(24, kind).double() if kind else None
    modules = [block] if norm is None else [block, norm]
    x = features()
    got = results(lambda x: block(x, norm, along), modules, x)
    expected = results(lambda x: plain_pair(block, x, norm, along), modules, x)
    # A is a float32 in the module: exp(A_log) in float64 differs from its own in the last bits.
    assert_equal(got, expected, 1e-10)


def test_sequences_are_those_of_one_band_along_time() -> None:
    block, x = BidirectionalMambaBlock(24), features(dtype=torch.float32)
    torch.testing.assert_close(block(x)[3], block(x[3]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [None, *NORMS])
def test_feed_forward_against_autograd(mode: Any, kind: str | None, pieces: None) -> None:
    module, norm = SwiGLU(24, 48).double(), norm_of(24, kind).double() if kind else None
    modules = [module] if norm is None else [module, norm]
    x = features()
    got = results(lambda x: module(x, norm, mode), modules, x)
    assert_equal(got, results(lambda x: plain_swiglu(module, x, norm), modules, x), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_bit_depends_on_what_is_kept(dtype: torch.dtype, along: Along, pieces: None) -> None:
    """Also under autocast, where the wide tensors are of half precision."""
    torch.manual_seed(0)
    block, norm = BidirectionalMambaBlock(32, chunk_size=8), norm_of(32)
    module = SwiGLU(32, 64)
    x = features(32, torch.float32)
    found = []
    for mode in MODES:
        block.use_checkpoint = mode
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            mixed = results(lambda x: block(x, norm, along), [block, norm], x)
            fed = results(lambda x, mode=mode: module(x, norm, mode), [module, norm], x)
        assert mixed["out"].dtype == fed["out"].dtype == dtype
        assert all(mixed[name].dtype == torch.float32 for name in mixed if name != "out")
        found.append([*mixed.values(), *fed.values()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_graph_can_be_walked_twice(mode: Any) -> None:
    block, norm = BidirectionalMambaBlock(16, use_checkpoint=mode), norm_of(16)
    x = torch.randn(3, 2, 9, 16, requires_grad=True)
    out = block(x, norm)
    first, second = (torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_what_is_kept_grows_by_what_is_said_to_be_kept() -> None:
    """Bytes for one more sequence of the path's real width, counted by hand."""
    length, c, d, s, k = 130, 192, 384, 16, 12

    def more(mode: Any) -> int:
        block, norm = BidirectionalMambaBlock(c, use_checkpoint=mode), norm_of(c)
        x = [torch.randn(2, b, length, c, requires_grad=True) for b in (1, 2)]
        few, many = (saved_bytes(lambda x=x: block(x, norm)) for x in x)
        return many - few

    # Of a crop with two bands, in two directions; two chunks begin within 130 steps.
    borders = 2 * 2 * 2 * d * s
    products = 2 * length * 2 * (2 * d + k + 2 * s)
    # Normed, a frame's mean and deviation; convolved, steps and output of two directions.
    everything = 2 * length * (c + 2 * 3 * d) + 2 * length
    assert more("full") == 4 * 2 * length * c
    assert more(True) == 4 * (2 * length * c + products + borders)
    assert more(False) == 4 * (2 * length * c + products + borders + everything)


@pytest.mark.parametrize("mode", MODES)
def test_without_gradients_pieces_are_let_go(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    block, norm = BidirectionalMambaBlock(16, use_checkpoint=mode), norm_of(16)
    module, x = SwiGLU(16, 32), torch.randn(9, 8, 8, 16)
    expected = block(x, norm), module(x, norm, mode)

    def forward() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return block(x, norm), module(x, norm, mode)

    assert all(torch.equal(a, b) for a, b in zip(forward(), expected, strict=True))
    assert not any(y.requires_grad for y in forward())
    whole = peak_bytes(forward)
    monkeypatch.setattr(rows, "_CPU_ROWS", 8)
    assert peak_bytes(forward) < 0.5 * whole


@pytest.mark.parametrize("mode", MODES)
def test_what_learns_nothing_takes_no_gradient(mode: Any) -> None:
    """A frozen weight, and an input that nothing is asked of."""
    block, norm = BidirectionalMambaBlock(16, use_checkpoint=mode), norm_of(16)
    x = torch.randn(3, 2, 9, 16)
    block(x, norm).sum().backward()
    expected = block.forward_mamba.ssm.D.grad
    block.zero_grad()
    block.requires_grad_(False)
    norm.requires_grad_(False)
    block.forward_mamba.ssm.D.requires_grad_()
    block(x, norm).sum().backward()
    got = {k: p.grad for k, p in block.named_parameters() if p.grad is not None}
    assert list(got) == ["forward_mamba.ssm.D"]
    assert torch.equal(got["forward_mamba.ssm.D"], expected)


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [31] * 6), ("cuda", [186])])
def test_pieces_cover_all_sequences_evenly(device: str, sizes: list[int]) -> None:
    parts = rows.pieces(186, 251, torch.device(device))
    assert [part.stop - part.start for part in parts] == sizes


@pytest.mark.parametrize("mode", [None, "some", 2])
def test_an_unknown_way_of_checkpointing_is_refused(mode: Any) -> None:
    with pytest.raises(ValueError, match=f"use_checkpoint is {mode!r}"):
        MambaBlock(16, use_checkpoint=mode)


def test_an_empty_batch_gives_an_empty_result() -> None:
    x = torch.zeros(3, 0, 5, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        for y in (MambaBlock(16)(x), SwiGLU(16, 32)(x, norm_of(16), True)):
            assert (y.shape, y.dtype) == ((3, 0, 5, 16), torch.bfloat16)
            y.sum().backward()


@pytest.mark.parametrize("path", [IntraBandBiMamba, CrossBandBiMamba])
def test_path_equals_autograd(path: Any) -> None:
    torch.manual_seed(0)
    block = path(16, d_state=4, chunk_size=8).double().block
    x = features(16)

    def plain(x: Tensor) -> Tensor:
        x = x + plain_pair(block.mixer, x, block.mixer_norm, block.along)
        return x + plain_swiglu(block.feed_forward, x, block.feed_forward_norm)

    assert_equal(results(block, [block], x), results(plain, [block], x), 1e-10)
