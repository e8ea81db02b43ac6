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
from scan.interface import Inputs, Options

# Sequences whose gradients with respect to A and D are summed inside one task. More groups balance
# better over threads and cost (groups, n, d) floats; the sums do not depend on the threads.
_MAX_GROUPS = 32


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    b, length, d = inputs.u.shape
    n = inputs.A.shape[1]
    out = torch.empty(b, length, d)
    last = torch.empty(b, n, d)
    borders = torch.empty(b, (length - 1) // options.chunk_size, n, d)
    arrays = [*_arrays(inputs), *options, out.numpy(), borders.numpy(), last.numpy()]
    _share_out(lambda first, stop: scan_forward(first, stop, *arrays), b * -(-d // LANES))
    return out, last.transpose(1, 2).contiguous(), borders


def backward(
    grad_out: Tensor, grad_last: Tensor | None, inputs: Inputs, borders: Tensor, options: Options
) -> list[Tensor]:
    """See `scan.interface.Backend`."""
    b, length, d = inputs.u.shape
    n = inputs.A.shape[1]
    groups, blocks = min(b, _MAX_GROUPS), -(-d // LANES)
    du, ddelta = torch.empty(b, length, d), torch.empty(b, length, d)
    dA = torch.empty(groups, n, d)
    dB, dC = torch.empty(blocks, b, length, n), torch.empty(blocks, b, length, n)
    dD = _empty_if(inputs.D, groups, d)
    dz = _empty_if(inputs.z, b, length, d)
    dinitial = _empty_if(inputs.initial_state, b, n, d)
    given = [_array(grad_out, 3), _array(_swapped(grad_last), 3)]
    outputs = [x.numpy() for x in (du, ddelta, dA, dB, dC, dD, dz, dinitial)]
    arrays = [groups, *given, *_arrays(inputs), _array(borders, 4), *options, *outputs]
    _share_out(lambda first, stop: scan_backward(first, stop, *arrays), groups * blocks)
    absent = inputs.delta_bias is None
    dbias = torch.empty(0) if absent else ddelta.sum((0, 1))
    sums = [dA.sum(0).T.contiguous(), dB.sum(0), dC.sum(0), dD.sum(0)]
    return [du, ddelta, *sums, dz, dbias, dinitial.transpose(1, 2).contiguous()]


def _arrays(inputs: Inputs) -> list[np.ndarray]:
    """The inputs as the kernels take them."""
    u, delta, A, B, C, D, z, bias, initial_state = inputs
    initial = _swapped(initial_state)
    dims = [(u, 3), (delta, 3), (A.T, 2), (B, 3), (C, 3), (D, 1), (z, 3), (bias, 1), (initial, 3)]
    return [_array(x, count) for x, count in dims]


def _array(x: Tensor | None, dims: int) -> np.ndarray:
    """A contiguous array of `x`; one of size 0 where it is absent."""
    return np.empty((0,) * dims, np.float32) if x is None else x.contiguous().numpy()


def _empty_if(x: Tensor | None, *shape: int) -> Tensor:
    """Room for a gradient of `x`; none where that is absent."""
    return torch.empty(shape if x is not None else (0,) * len(shape))


def _swapped(state: Tensor | None) -> Tensor | None:
    """A state between the façade's (b, d, n) and the kernels' (b, n, d)."""
    return None if state is None else state.transpose(1, 2)


def _share_out(run: Callable[[int, int], None], tasks: int) -> None:
    """Call `run(first, stop)` so that it covers `tasks` tasks, on torch's number of threads."""
    threads = min(torch.get_num_threads(), tasks)
    bounds = [tasks * i // threads for i in range(threads + 1)]
    futures = []
    if threads > 1:
        pool = _pool(torch.get_num_threads() - 1, os.getpid())
        futures = [pool.submit(run, *bounds[i : i + 2]) for i in range(1, threads)]
    run(*bounds[:2])
    for future in futures:
        future.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """The helpers of the calling thread; `process` makes a forked child start its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="scan")
