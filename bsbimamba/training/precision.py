"""Where a run computes, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from bsbimamba.training.config import require

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def can_do(amp: str) -> bool:
    """Return whether this CPU computes in bf16 or fp16, as oneDNN needs it for an LSTM."""
    if amp == "bf16":
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_fp16_supported()


class Precision:
    """A device, and mixed precision on it.

    Args:
        device: "auto" (a CUDA device where there is one), "cpu" or "cuda".
        amp: "bf16", "fp16", "off", or "auto": on a CUDA device bf16, or fp16 where it lacks that;
            on a CPU bf16 where it has AVX512-BF16, with which a step of both kinds of networks was
            measured to be faster (docs/training.md), otherwise off.

    Raises:
        ConfigError: the device is not there, or cannot compute in this precision.
    """

    def __init__(self, device: str, amp: str) -> None:
        cuda = torch.cuda.is_available()
        require(cuda or device != "cuda", "--device cuda: PyTorch sees no CUDA device here")
        self.device = torch.device("cuda" if cuda and device != "cpu" else "cpu")
        if self.device.type == "cuda":
            automatic = "bf16" if torch.cuda.is_bf16_supported(False) else "fp16"
        else:
            fast = torch.cpu.get_capabilities().get("avx512_bf16", False) and can_do("bf16")
            automatic = "bf16" if fast else "off"
            require(
                amp not in _DTYPES or can_do(amp),
                f"--amp {amp}: this CPU has no instructions for it; use --amp off",
            )
        self.amp = automatic if amp == "auto" else amp

    def autocast(self) -> AbstractContextManager:
        """Return the context for forward passes."""
        dtype = _DTYPES.get(self.amp)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def make_scaler(self) -> Scaler:
        """Return a loss scaler. It is active with fp16 only."""
        return Scaler(self.device, enabled=self.amp == "fp16")


class Scaler:
    """A factor of the loss, so that gradients do not vanish in fp16; 1 where it is not enabled.

    It is halved where a gradient overflows, and doubled after 2,000 steps without. Nothing is read
    on the host, as `torch.amp.GradScaler` does.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self.factor = torch.full((), 65536.0 if enabled else 1.0, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)  # steps without an overflow

    def update(self, go: Tensor, overflow: Tensor) -> None:
        """Follow the gradient of a step in fp16. go: False to change nothing."""
        factor, good = self.factor.clone(), self._good.clone()
        torch._amp_update_scale_(factor, good, overflow.float(), 2.0, 0.5, 2000)
        self.factor.copy_(torch.where(go, factor, self.factor))
        self._good.copy_(torch.where(go, good, self._good))

    def state_dict(self) -> dict[str, Tensor]:
        return {"factor": self.factor, "good": self._good} if self.enabled else {}
