"""Commands beside training, enhancing and scoring."""

import data.openmp  # noqa: F401  (before torch)
