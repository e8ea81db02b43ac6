"""Use a trained network: recordings of any length, rate and channel count; exported models."""

import bsbimamba.openmp  # noqa: F401  (before torch)
