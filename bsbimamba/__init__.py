"""Band-split bidirectional Mamba for speech enhancement.

from bsbimamba import load
model = load("abl3")
enhanced = model(noisy, sample_rate)
"""

from typing import TYPE_CHECKING, Any

import bsbimamba.openmp  # noqa: F401  (before torch)

if TYPE_CHECKING:
    from bsbimamba.inference.model import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for: most modules of the package need none of its imports."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bsbimamba.inference.model import load

    return load
