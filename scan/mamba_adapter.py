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

from scan.arrays import laid_out_as
from scan.interface import SEQUENCES, Inputs, Options, absent_as_empty, directions


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan.interface.Backend`; keeps nothing for the backward pass."""
    results = []
    for r, way in enumerate(directions(inputs, options)):
        out, last = _call(_turned(inputs, r, way), way)
        results.append((_turn_back(out, way), last))
    out, last = (torch.stack(parts) for parts in zip(*results, strict=True))
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
    results, outputs = [], []
    for r, way in enumerate(directions(inputs, options)):
        # The function is the package's own autograd node: what is differentiated is exactly what
        # it is given.
        with torch.enable_grad():
            leaves = [
                None if x is None else x.detach().requires_grad_() for x in _turned(inputs, r, way)
            ]
            out, _ = _call(Inputs(*leaves), way)  # type: ignore[arg-type]
            given = [x for x in leaves if x is not None]
            outputs.append(_turn_back(out.detach(), way))
            grad = _turn(grad_out[r].to(out.dtype), way)
            found = iter(torch.autograd.grad(out, given, grad))
        grads = [None if x is None else next(found) for x in leaves]
        results.append(
            [
                _turn_back(grad, way) if grad is not None and name in SEQUENCES else grad
                for name, grad in zip(Inputs._fields, grads, strict=True)
            ]
        )
    gradients = [
        None if parts[0] is None else torch.stack(parts) for parts in zip(*results, strict=True)
    ]
    return absent_as_empty(gradients, inputs, torch.stack(outputs) if want_out else None)


def _turn(x: Tensor, options: Options) -> Tensor:
    """(b, l, ...) to (b, ..., l) in the order of scanning."""
    return (x.flip(1) if options.reverse else x).transpose(1, 2).contiguous()


def _turn_back(x: Tensor, options: Options) -> Tensor:
    x = x.transpose(1, 2)
    return x.flip(1) if options.reverse else x.contiguous()


def _turned(inputs: Inputs, r: int, options: Options) -> Inputs:
    """One direction as the kernel wants it: sequences turned and of one dtype, parameters in
    float32."""
    return Inputs(
        *(
            None
            if x is None
            else _turn(x[r].to(inputs.u.dtype), options)
            if name in SEQUENCES
            else x[r].float()
            for name, x in zip(Inputs._fields, inputs, strict=True)
        )  # type: ignore[arg-type]
    )


def _call(turned: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, A, B, C, D, z, bias, _ = turned
    return selective_scan_fn(
        u, delta, A, B, C, D, z, bias, options.delta_softplus, return_last_state=True
    )
