"""The recurrence of Mamba, one file a backend, behind one function."""

from scan.facade import BACKENDS, selective_scan

__all__ = ["BACKENDS", "selective_scan"]
