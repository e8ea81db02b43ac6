"""What all benchmarks share: counts, times, tables, and a line that says what was measured.

All but times are counted, not sampled, so they are equal in every run.
"""

import gc
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import distributions
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bsbimamba.training.step import Learner
from bsbimamba.utils import hardware, source

MIB = 2**20
PHASES = ("data", "forward", "backward", "discriminator", "labels", "optimizer")
_MARK = "end of phase: "
_PACKAGES = ("torch", "numpy", "numba", "triton", "mambapy", "mamba_ssm", "mamba-ssm", "pesq")


def _lstm(passes: int, x: Tensor, weights: list[Tensor], *_: Any, out_val: Any) -> int:
    """Return the operations of cuDNN's LSTMs, of (length, sequences, c) or batch first."""
    return passes * 2 * x[..., 0].numel() * sum(w.numel() for w in weights if w.dim() == 2)


# Matrix products and convolutions, as PyTorch counts them, and LSTMs on a GPU.
_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._cudnn_rnn: partial(_lstm, 1),
    torch.ops.aten._cudnn_rnn_backward: partial(_lstm, 2),
}


def saved_bytes(forward: Callable[[], Any], resident: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a forward pass saves for its backward pass.

    A storage that several nodes save counts once and in full. Parameters, `resident` tensors such
    as the batch, and views of either do not count.
    """
    # Not by the address of the data: fake tensors have none.
    known = {tensor.untyped_storage()._cdata for tensor in resident}
    storages: dict[int, Tensor] = {}  # holding them prevents that an identity is reused

    def pack(tensor: Tensor) -> Tensor:
        identity = tensor.untyped_storage()._cdata
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, nn.Parameter) and identity not in known:
            storages.setdefault(identity, tensor)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
    del result
    storages.clear()  # the graph holds `pack`, which would keep them alive
    return total


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the bytes of a GPU that a computation takes at its peak, above those before."""
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


class Operators(TorchDispatchMode):
    """Count the operators dispatched while it is entered: PyTorch's and this project's.

    Views do not count, nor what an operator calls inside itself.

    Attributes:
        count: of operators.
        bytes: of their inputs and outputs, as if no cache kept any of them.
        operations: floating-point operations of matrix products, convolutions and LSTMs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = self.bytes = self.operations = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = call(*args, **kwargs)
        if not call.is_view and call is not torch.ops.aten._unsafe_view.default:
            self.count += 1
            for x in tree_leaves((args, kwargs, result)):
                if isinstance(x, Tensor):  # of one that is expanded, what there is of it
                    self.bytes += min(x.nbytes, x.untyped_storage().nbytes())
        formula = _FORMULAS.get(call.overloadpacket)
        if formula and call.namespace == "aten":  # a scan has no matrix products
            self.operations += formula(*args, **kwargs, out_val=result)
        return result


def launches(learner: Learner, step: Callable[[], Any]) -> dict[str, float]:
    """Return how many times each of PHASES of a learner's step, and the whole "step", has the GPU
    launch a kernel, or a graph of kernels."""

    def mark(phase: str) -> None:
        with record_function(_MARK + phase):
            pass

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        learner.mark = mark
        step()
        learner.mark = lambda phase: None
        torch.cuda.synchronize()
    events = profiler.profiler.kineto_results.events()
    return launches_among(event.name() for event in sorted(events, key=lambda x: x.start_ns()))


def launches_among(names: Iterable[str]) -> dict[str, float]:
    """Return the launches by phase from the names of a profile's events in order of time."""
    found, total = dict.fromkeys(PHASES, 0), 0
    for name in names:
        total += name.startswith("cu") and "Launch" in name  # as in cuLaunchKernelEx
        if name.startswith(_MARK):
            found[name.removeprefix(_MARK)] += total - sum(found.values())
    return {**found, "step": total}


def seconds(run: Callable[[], object], device: str) -> float:
    """Return the seconds of a run; on a GPU the mean of five in a row, whose launches overlap with
    computation, as in training."""
    repeats, wait = (5, torch.cuda.synchronize) if device == "cuda" else (1, lambda: None)
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return (time.perf_counter() - start) / repeats


def in_turn(runs: Mapping[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[Any]]:
    """Call all functions once a round, so that a change of the machine's speed affects all of them.
    Returns the results of each."""
    found: dict[Any, list[Any]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in Markdown from values by column. A column of None is left out."""
    names = list(dict.fromkeys(name for row in rows for name in row if row[name] is not None))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])
    return "".join(f"| {' | '.join(map(str.rjust, line, widths))} |\n" for line in lines)


def _cell(x: Any) -> str:
    if x is None or isinstance(x, bool | str):
        return "" if x is None else str(x)
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def machine(device: str = "cpu") -> str:
    """Return date, commit, device and versions."""
    code = source()
    commit = code.get("commit", "unknown")[:10] + "+" * code.get("dirty", False)
    versions = sorted(f"{x.name} {x.version}" for x in distributions() if x.name in _PACKAGES)
    about = [f"commit {commit}", hardware(device), f"Python {platform.python_version()}", *versions]
    return f"{datetime.now():%Y-%m-%d %H:%M}, {', '.join(about)}"
