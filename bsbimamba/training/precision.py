"""Where a run computes, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

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
        return Scaler(self.device.type, enabled=self.amp == "fp16")


class Scaler(torch.amp.GradScaler):
    """A loss scaler that can leave out a step, and resume from a run in another precision."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, unless it is the empty one of a run that was not in fp16."""
        if state_dict:
            super().load_state_dict(state_dict)

    def forget_unscaled(self) -> None:
        """Prepare for the next step where the present one is left out. The scale stays."""
        if self.is_enabled():
            self.update(self.get_scale())

    def may_overflow(self) -> bool:
        """Return whether an infinite gradient is an overflow, which halving the scale may cure."""
        return self.is_enabled() and self.get_scale() > 1
