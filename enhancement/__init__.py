"""Using a trained network on recordings of any length, rate and channel count."""

import data.openmp  # noqa: F401  (before torch)
