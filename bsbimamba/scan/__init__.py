"""The recurrence of Mamba and the convolution before it, each with several backends."""

from bsbimamba.scan.api import scan_directions, selective_scan
from bsbimamba.scan.dispatch import BACKENDS

__all__ = ["BACKENDS", "scan_directions", "selective_scan"]
