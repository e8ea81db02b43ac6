"""The recurrence of Mamba and the convolution before it, each with several backends."""

from scan.choice import BACKENDS
from scan.convolution import causal_conv_silu
from scan.facade import scan_directions, selective_scan

__all__ = ["BACKENDS", "causal_conv_silu", "scan_directions", "selective_scan"]
