"""The backends of `scan.convolution`.

Each has forward(u, weight, bias, reverse) → (r, b, l, d) in u's dtype, and backward(grad_out, u,
weight, bias, reverse) → the gradients of u, weight and bias in any float dtype; u (r, b, l, d),
weight (r, d, taps), bias (r, d), of any strides and float dtypes.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scan import conv_kernels
from scan.arrays import current_device, cut, empty_as, flat, pad, row_major
from scan.interface import ways
from scan.threads import MAX_GROUPS, share_out
from scan.vectors import LANES


class _Backend(Protocol):
    def forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor: ...

    def backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]: ...


class _Cpu:
    def forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        given, shape = self._prepared(u, weight, bias)
        r, b, _, d, _ = shape
        out = empty_as(given[0])
        arrays = (flat(x) for x in given)
        tasks = r * b * -(-d // conv_kernels.BLOCK)
        strides = (given[0].stride()[:3], out.stride()[:3])
        share_out(conv_kernels.conv_forward, tasks, shape, *strides, *arrays, reverse, flat(out))
        return cut(out, u.shape[3]).to(u.dtype)

    def backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        width = u.shape[3]
        given, shape = self._prepared(u, weight, bias)
        r, b, _, d, taps = shape
        grad_out = row_major(pad(grad_out.to(given[0].dtype), d))
        groups = min(b, MAX_GROUPS)
        du = empty_as(given[0])
        dweight, scratch = torch.empty(r, groups, taps, d), torch.empty(r, groups, taps, d)
        dbias = torch.empty(r, groups, d)
        arrays = (flat(x) for x in (grad_out, *given))
        strides = (given[0].stride()[:3], grad_out.stride()[:3], du.stride()[:3])
        written = (flat(x) for x in (du, dweight, dbias, scratch))
        share_out(
            conv_kernels.conv_backward,
            r * groups * -(-d // conv_kernels.BLOCK),
            groups,
            shape,
            *strides,
            *arrays,
            reverse,
            *written,
        )
        dweight = dweight.sum(1)[..., :width].transpose(1, 2)
        return [cut(du, width), dweight, cut(dbias.sum(1), width)]

    def _prepared(
        self, u: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[int, ...]]:
        """What the kernels take (bfloat16 as it is, all else as float32), and the shape."""
        d = -(-u.shape[3] // LANES) * LANES
        u = u if u.dtype == torch.bfloat16 else u.float()
        weight = pad(weight.float().transpose(1, 2), d).contiguous()
        given = (row_major(pad(u, d)), weight, pad(bias.float(), d).contiguous())
        return given, (*u.shape[:3], d, weight.shape[1])


class _Triton:
    BLOCK = 64
    SEGMENT = 64

    def forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        from scan import gpu_conv_kernels

        u, weight, bias = row_major(u), weight.float().transpose(1, 2).contiguous(), bias.float()
        out = empty_as(u)
        grid, sizes, settings = self._launch(u, weight, reverse)
        arguments = (u, weight, bias.contiguous(), out, u.stride()[:3], out.stride()[:3])
        with current_device(u):
            gpu_conv_kernels.conv_forward[grid](*arguments, *sizes, **settings)
        return out

    def backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        from scan import gpu_conv_kernels

        u, grad_out = row_major(u), row_major(grad_out)
        weight, bias = weight.float().transpose(1, 2).contiguous(), bias.float().contiguous()
        (r, b, length, d), taps = u.shape, weight.shape[1]
        segments = -(-length // self.SEGMENT)
        du = empty_as(u)
        dweight = torch.empty(r, b, segments, taps, d, device=u.device)
        dbias = torch.empty(r, b, segments, d, device=u.device)
        grid, sizes, settings = self._launch(u, weight, reverse)
        strides = (u.stride()[:3], grad_out.stride()[:3], du.stride()[:3])
        arguments = (grad_out, u, weight, bias, du, dweight, dbias)
        with current_device(u):
            gpu_conv_kernels.conv_backward[grid](*arguments, *strides, *sizes, **settings)
        return [du, dweight.sum((1, 2)).transpose(1, 2), dbias.sum((1, 2))]

    def _launch(self, u: Tensor, weight: Tensor, reverse: bool) -> tuple:
        r, b, length, d = u.shape
        settings = {
            "REVERSE": reverse,
            "TAPS": weight.shape[1],
            "SEGMENT": self.SEGMENT,
            "BLOCK": self.BLOCK,
            "num_warps": 1,
            "enable_fp_fusion": True,
        }
        programs = r * b * -(-length // self.SEGMENT) * -(-d // self.BLOCK)
        return (programs,), (b, length, d), settings


class _Torch:
    """A two-dimensional convolution of a channels-last view, which needs no transposed copy and
    is several times faster on a CPU than conv1d."""

    def forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        outputs = []
        for x, w, shift, way in zip(u, weight, bias, ways(len(u), reverse), strict=True):
            y = F.silu(self._convolved(x, w, shift, way))
            outputs.append(y[:, :, 0].transpose(1, 2).to(u.dtype))
        return torch.stack(outputs)

    def backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        dtype = torch.promote_types(u.dtype, torch.float32)
        results = []
        both = ways(len(u), reverse)
        for g, x, w, shift, way in zip(grad_out, u, weight, bias, both, strict=True):
            image, kernel = self._image(x, w, way)
            y = self._convolved(x, w, shift, way)
            g = torch.ops.aten.silu_backward(g.to(dtype).transpose(1, 2)[:, :, None], y)
            none = [1, 1], [0, 0], [1, 1], False, [0, 0]
            dx, dw, db = torch.ops.aten.convolution_backward(
                g, image, kernel, [len(w)], *none, len(w), [True] * 3
            )
            reach = w.shape[1] - 1
            dx = dx[:, :, 0, : dx.shape[3] - reach] if way else dx[:, :, 0, reach:]
            dw = dw[:, 0, 0]
            results.append((dx.transpose(1, 2), dw.flip(1) if way else dw, db))
        return [torch.stack(parts) for parts in zip(*results, strict=True)]

    def _convolved(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        image, kernel = self._image(u, weight, reverse)
        return F.conv2d(image, kernel, bias.to(image.dtype), groups=len(weight))

    def _image(self, u: Tensor, weight: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """u as (b, d, 1, reach + l) and the weight as (d, 1, 1, taps)."""
        dtype = torch.promote_types(u.dtype, torch.float32)
        reach = weight.shape[1] - 1
        padded = F.pad(u.to(dtype), (0, 0, 0, reach) if reverse else (0, 0, reach, 0))
        kernel = (weight.flip(1) if reverse else weight).to(dtype)
        return padded.transpose(1, 2)[:, :, None], kernel[:, None, None]


class _CausalConv1d:
    """Dao-AILab/causal-conv1d, causal_conv1d/causal_conv1d_interface.py: (b, d, l), which may be a
    view of (b, l, d); one direction, so that a reversed sequence is flipped in a copy."""

    def forward(self, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
        from causal_conv1d import causal_conv1d_fn

        outputs = []
        for x, w, shift, way in zip(u, weight, bias, ways(len(u), reverse), strict=True):
            taps = w.float(), shift.float()
            y = causal_conv1d_fn(self._turned(x, way), *taps, activation="silu")
            outputs.append(self._back(y, way))
        return torch.stack(outputs)

    def backward(
        self, grad_out: Tensor, u: Tensor, weight: Tensor, bias: Tensor, reverse: bool
    ) -> list[Tensor]:
        from causal_conv1d import causal_conv1d_fn

        results = []
        both = ways(len(u), reverse)
        for g, x, w, shift, way in zip(grad_out, u, weight, bias, both, strict=True):
            # The function is the package's own autograd node: what is differentiated is exactly
            # what it is given.
            with torch.enable_grad():
                leaves = [
                    leaf.detach().requires_grad_()
                    for leaf in (self._turned(x, way), w.float(), shift.float())
                ]
                y = causal_conv1d_fn(*leaves, activation="silu")
                dx, dw, db = torch.autograd.grad(y, leaves, self._turned(g, way))
            results.append((self._back(dx, way), dw, db))
        return [torch.stack(parts) for parts in zip(*results, strict=True)]

    def _turned(self, x: Tensor, reverse: bool) -> Tensor:
        x = x.flip(1) if reverse else row_major(x)
        # The package reads rows in whole eights.
        return (x if x.stride(0) % 8 == x.stride(1) % 8 == 0 else x.contiguous()).transpose(1, 2)

    def _back(self, y: Tensor, reverse: bool) -> Tensor:
        return y.transpose(1, 2).flip(1) if reverse else y.transpose(1, 2)


ALL: dict[str, _Backend] = {
    "torch": _Torch(),
    "cpu": _Cpu(),
    "triton": _Triton(),
    "causal_conv1d": _CausalConv1d(),
}
