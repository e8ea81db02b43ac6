"""The selective scan on a CPU: numba kernels shared out over a pool of threads.

The kernels release the GIL, so plain threads run them side by side. OpenMP is left alone: it kills
a forked child, and it would need a second copy of every kernel compiled for the serial case. There
are as many threads as `torch.get_num_threads()` says at the time of the call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from scan.cpu_kernels import LANES, scan_backward, scan_forward

# Sequences whose gradients with respect to A and D are summed inside one task. More groups balance
# better over threads and cost (groups, n, d) floats; the sums do not depend on the threads.
_MAX_GROUPS = 32


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The helpers of the calling thread; `process` makes a forked child start its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")


def _share_out(run: Callable[[int, int], None], tasks: int) -> None:
    """Call `run(first, last)` so that it covers `tasks` tasks, on torch's number of threads."""
    threads = min(torch.get_num_threads(), tasks)
    if threads <= 1:
        return run(0, tasks)
    bounds = [tasks * i // threads for i in range(threads + 1)]
    pool = _pool(torch.get_num_threads() - 1, os.getpid())
    futures = [pool.submit(run, *bounds[i : i + 2]) for i in range(1, threads)]
    run(*bounds[:2])
    for future in futures:
        future.result()
    return None


def _array(x: Tensor | None, dims: int) -> np.ndarray:
    if x is None:
        return np.empty((0,) * dims, np.float32)
    return x.detach().contiguous().numpy()


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (b, l, d), last state (b, d, n), border states (b, chunks - 1, n, d)."""
    b, length, d = u.shape
    n = A.shape[1]
    out = torch.empty(b, length, d)
    last = torch.empty(b, n, d)
    borders = torch.empty(b, (length - 1) // chunk_size, n, d)
    inputs = (
        _array(u, 3), _array(delta, 3), _array(A.T, 2), _array(B, 3), _array(C, 3), _array(D, 1),
        _array(z, 3), _array(delta_bias, 1), _array(_swap(initial_state), 3),
    )  # fmt: skip
    outputs = (out.numpy(), borders.numpy(), last.numpy())

    def run(first: int, stop: int) -> None:
        scan_forward(first, stop, *inputs, delta_softplus, reverse, chunk_size, *outputs)

    _share_out(run, b * -(-d // LANES))
    return out, last.transpose(1, 2).contiguous(), borders


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    borders: Tensor,
    delta_softplus: bool,
    reverse: bool,
    chunk_size: int,
) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias, initial_state; size 0 for an absent one."""
    b, length, d = u.shape
    n = A.shape[1]
    groups, blocks = min(b, _MAX_GROUPS), -(-d // LANES)
    du, ddelta = torch.empty(b, length, d), torch.empty(b, length, d)
    dA = torch.empty(groups, n, d)
    dB, dC = torch.empty(blocks, b, length, n), torch.empty(blocks, b, length, n)
    dD = None if D is None else torch.empty(groups, d)
    dz = None if z is None else torch.empty(b, length, d)
    dinitial = None if initial_state is None else torch.empty(b, n, d)
    inputs = (
        _array(grad_out, 3), _array(_swap(grad_last), 3),
        _array(u, 3), _array(delta, 3), _array(A.T, 2), _array(B, 3), _array(C, 3), _array(D, 1),
        _array(z, 3), _array(delta_bias, 1), _array(_swap(initial_state), 3),
        _array(borders, 4),
    )  # fmt: skip
    outputs = (
        du.numpy(), ddelta.numpy(), dA.numpy(), dB.numpy(), dC.numpy(),
        _array(dD, 2), _array(dz, 3), _array(dinitial, 3),
    )  # fmt: skip

    def run(first: int, stop: int) -> None:
        scan_backward(
            first, stop, groups, *inputs, delta_softplus, reverse, chunk_size, *outputs
        )  # fmt: skip

    _share_out(run, groups * blocks)
    return (
        du,
        ddelta,
        dA.sum(0).T.contiguous(),
        dB.sum(0),
        dC.sum(0),
        torch.empty(0) if dD is None else dD.sum(0),
        torch.empty(0) if dz is None else dz,
        torch.empty(0) if delta_bias is None else ddelta.sum((0, 1)),
        torch.empty(0) if dinitial is None else dinitial.transpose(1, 2).contiguous(),
    )


def _swap(state: Tensor | None) -> Tensor | None:
    """A state between the façade's (b, d, n) and the kernels' (b, n, d)."""
    return None if state is None else state.transpose(1, 2)
