"""Models by path or by name.

A name is looked up in the folder of models (models/ in the repository, or where the environment
variable BSBIMAMBA_MODELS says), then in the table of published ones, from which it is downloaded
into that folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from enhancement.folder import SUMS, WEIGHTS, read_model
from enhancement.published import PUBLISHED, fetch
from training.checkpoint import CheckpointError
from training.trained import Trained, load_trained

MODELS = "BSBIMAMBA_MODELS"
_ROOT = Path(__file__).resolve().parents[1]


def model_folder() -> Path:
    """Where models are kept."""
    return Path(os.environ.get(MODELS) or _ROOT / "models")


def names() -> list[str]:
    """The models that can be had by name."""
    here = (path.parent.name for path in model_folder().glob(f"*/{SUMS}"))
    return sorted({*here, *PUBLISHED})


def find(model: str | Path) -> Trained:
    """The network of a run folder, checkpoint or model folder, or of that name.

    Raises:
        CheckpointError: there is none, or it cannot be loaded, or is not what it was.
        FailedError: it cannot be downloaded now.
        OSError: it cannot be written.
    """
    path = Path(model)
    if isinstance(model, str) and Path(model).name == model:
        here = model_folder() / model
        if os.path.isfile(here / SUMS):
            return read_model(here)
        if model in PUBLISHED:
            fetch(PUBLISHED[model], here)
            return read_model(here)
    if os.path.isfile(path / SUMS) or os.path.isfile(path / WEIGHTS):
        return read_model(path)
    if path.name == WEIGHTS:
        return read_model(path.parent)
    if not model or not os.path.exists(path):
        known = ", ".join(names()) or "none"
        raise CheckpointError(
            f"{model}: no such run folder, checkpoint or model. Models known by name: {known}"
        )
    return load_trained(path)
