"""The scores of noisy files, by which a copy of a test set is known to be right.

The one module of this package that needs the metrics of `evaluation`.
"""

from __future__ import annotations

from pathlib import Path

from data.audio import read
from evaluation.scores import score


def noisy_scores(paths: tuple[Path, Path]) -> dict[str, float | str]:
    """PESQ-WB and STOI of a noisy against its clean file, on their common length.

    In the place of a score that does not exist, the reason.
    """
    clean, noisy = (read(path) for path in paths)
    length = min(len(clean), len(noisy))
    return score(clean[:length], noisy[:length], ("pesq_wb", "stoi"))
