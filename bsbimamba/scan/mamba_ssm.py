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

from bsbimamba.scan.interface import SEQUENCES, Inputs, Options, each_direction, joined
from bsbimamba.scan.layout import laid_out_as, scanning_order


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`; keeps nothing for the backward pass."""
    results = [_call(_arguments(one), options) for one in each_direction(inputs, options)]
    out, last = (torch.stack(parts) for parts in zip(*results, strict=True))
    out = scanning_order(out.mT, options.reverse)
    last = last.float() if options.want_last else last.new_empty(0, dtype=torch.float32)
    return laid_out_as(inputs.u, out), last, kept(inputs, options)


def kept(inputs: Inputs, options: Options) -> Tensor:
    """Nothing; see `scan.operators`."""
    return inputs.u.new_empty(0, dtype=torch.float32)


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    inputs: Inputs,
    borders: Tensor,
    options: Options,
    want_out: bool = False,
) -> list[Tensor]:
    """See `scan.interface.Backend`."""
    if grad_last is not None:
        raise ValueError(
            "backend 'mamba_ssm' has no gradient for the last state. Use 'triton' or 'chunked'."
        )
    grad_out = scanning_order(grad_out, options.reverse)
    results = []
    for grad, one in zip(grad_out, each_direction(inputs, options), strict=True):
        # The function is the package's own autograd node: what is differentiated is exactly what
        # it is given.
        with torch.enable_grad():
            leaves = [None if x is None else x.detach().requires_grad_() for x in _arguments(one)]
            out, _ = _call(leaves, options)
            given = [x for x in leaves if x is not None]
            found = iter(torch.autograd.grad(out, given, grad.mT.to(out.dtype).contiguous()))
        grads = [None if x is None else next(found) for x in leaves]
        results.append(
            [
                x.mT if x is not None and name in (*SEQUENCES, "out") else x
                for name, x in zip((*Inputs._fields, "out"), [*grads, out.detach()], strict=True)
            ]
        )
    return joined(results, inputs, options, want_out)


def _arguments(one: Inputs) -> list[Tensor | None]:
    """As the kernel takes them: sequences (b, d, l) of one dtype, parameters in float32."""
    return [
        None if x is None else x.mT.to(one.u.dtype).contiguous() if name in SEQUENCES else x.float()
        for name, x in zip(Inputs._fields, one, strict=True)
    ]


def _call(arguments: list[Tensor | None], options: Options) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(*arguments[:8], options.delta_softplus, return_last_state=True)
