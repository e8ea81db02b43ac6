"""The recurrence of Mamba and the convolution before it, each with several backends."""

from bsbimamba.scan.api import scan_directions, selective_scan
from bsbimamba.scan.convolution import causal_conv_silu
from bsbimamba.scan.dispatch import BACKENDS

__all__ = ["BACKENDS", "causal_conv_silu", "scan_directions", "selective_scan"]
