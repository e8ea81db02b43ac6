"""Measurements of the code's own parts, each a ratio taken side by side in one run."""

import bsbimamba.openmp  # noqa: F401  (before torch)
