"""The selective scan by the CUDA kernel of mamba-ssm, where that package is installed.

Its arrays are (b, d, l) and it knows one direction only: the arguments are transposed and, for a
reversed scan, flipped, in copies. It takes no first state, and has no gradient for the last one.
Its public function is called, and called again in the backward pass, because the interface of the
compiled module below it differs between versions.
Source: state-spaces/mamba, mamba_ssm/ops/selective_scan_interface.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bsbimamba.scan.interface import SEQUENCES, Inputs, Options, Upstream, each_direction, joined
from bsbimamba.scan.layout import scanning_order


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`."""
    results = [_call(_arguments(one), options) for one in each_direction(inputs, options)]
    out, last = (torch.stack(parts) for parts in zip(*results, strict=True))
    return scanning_order(out.mT, options.reverse), last, nothing_kept(inputs, options)


def nothing_kept(inputs: Inputs, options: Options) -> Tensor:
    """Return what the forward pass keeps for the backward pass."""
    return inputs.u.new_empty(0, dtype=torch.float32)


def backward(
    upstream: Upstream, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """See `scan.interface.Backend`."""
    if upstream.last is not None:
        raise ValueError(
            "backend 'mamba_ssm' has no gradient for the last state. Use 'triton' or 'chunked'."
        )
    grad_out = scanning_order(upstream.out, options.reverse)
    results = []
    for grad, one in zip(grad_out, each_direction(inputs, options), strict=True):
        # The function is the package's own autograd node: what is differentiated is exactly what
        # it is given.
        with torch.enable_grad():
            leaves = _arguments(one).map(lambda _, x: x.detach().requires_grad_())
            out, _ = _call(leaves, options)
            given = [x for x in leaves if x is not None]
            grads = torch.autograd.grad(out, given, grad.mT.to(out.dtype).contiguous())
        found = iter([x.mT if x.dim() == 3 else x for x in grads])
        results.append([*(None if x is None else next(found) for x in leaves), out.detach().mT])
    return joined(results, options)


def _arguments(one: Inputs) -> Inputs:
    """As the kernel takes them: sequences (b, d, l) of one dtype, parameters in float32."""
    return one.map(
        lambda name, x: x.mT.to(one.u.dtype).contiguous() if name in SEQUENCES else x.float()
    )


def _call(arguments: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(*arguments[:8], options.delta_softplus, return_last_state=True)
