"""The selective scan by the CUDA kernel of mamba-ssm, where that package is installed.

Its arrays are (b, d, l) and it knows one direction only: the arguments are transposed and, for a
reversed scan, flipped, in copies. It takes no first state, and has no gradient for the last one.
Its public function is called, and called again in the backward pass, because the interface of the
compiled module below it differs between versions.
Source: state-spaces/mamba, mamba_ssm/ops/selective_scan_interface.py.
"""

import torch
from torch import Tensor

from bsbimamba.scan.interface import SEQUENCES, ByDirection, Inputs, Options, by_autograd


def forward(inputs: Inputs, options: Options) -> tuple[Tensor, Tensor, Tensor]:
    """Scan one direction, see `scan.interface.ByDirection`; keep nothing."""
    out, last = _call(_arguments(inputs), options)
    return out.mT, last, nothing_kept(inputs, options)


def nothing_kept(inputs: Inputs, options: Options) -> Tensor:
    """Return the empty tensor that is kept of each direction."""
    return inputs.u.new_empty(*inputs.u.shape[:-3], 0, dtype=torch.float32)


def backward(
    grad_out: Tensor, grad_last: Tensor | None, inputs: Inputs, kept: Tensor, options: Options
) -> list[Tensor | None]:
    """Differentiate the package's own autograd node, by exactly what it is given."""
    given, grad_out = _arguments(inputs), grad_out.mT.contiguous()
    found = by_autograd(lambda leaves: _call(leaves, options)[0], given, grad_out)
    return [x.mT if x is not None and x.dim() == 3 else x for x in found]


def _arguments(inputs: Inputs) -> Inputs:
    """Return them as the kernel takes them: sequences (b, d, l) of one dtype, others in float32."""
    return inputs.map(
        lambda name, x: x.mT.to(inputs.u.dtype).contiguous() if name in SEQUENCES else x.float()
    )


def _call(arguments: Inputs, options: Options) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    return selective_scan_fn(*arguments[:8], options.delta_softplus, return_last_state=True)


BACKEND = ByDirection(forward, backward)
