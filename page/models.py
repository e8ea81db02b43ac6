"""Which models the page offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bandsplit.cost import count_parameters
from data.audio import SAMPLE_RATE
from data.utils import DataError, say
from enhancement.find import model_folder, names
from enhancement.folder import SUMS
from enhancement.model import Model, load
from training.checkpoint import BEST, LAST, CheckpointError
from training.config import ConfigError

RUNS = Path(__file__).resolve().parents[1] / "runs"
_NONE = (
    "there is no trained model here. Train one (cd abl3 && python train.py), or export one from a "
    "run (python -m tools.export), or name one: python app.py MODEL..."
)


def offered(wanted: Sequence[str], device: str) -> dict[str, Model]:
    """The models that are asked for, or all that are here, by what they are called.

    Of those that nobody asked for, one that cannot be loaded is left out with a message.

    Args:
        wanted: run folders, checkpoints, model folders, names; none: all that are here.
        device: see `enhancement.model.load`.

    Raises:
        DataError: one cannot be loaded, or there is none.
        FailedError: one cannot be downloaded now.
    """
    found: dict[str, Model] = {}
    for model, label in labelled(wanted or here()).items():
        try:
            found[label] = load(model, device)
        except (CheckpointError, ConfigError) as error:
            if wanted or isinstance(error, ConfigError):
                raise DataError(str(error)) from None
            say(f"app.py: left out: {error}")
    if not found:
        raise DataError(_NONE)
    return found


def here() -> list[str]:
    """Models on this disk: those that have a name, then the run folders. Nothing is downloaded."""
    named = [name for name in names() if (model_folder() / name / SUMS).is_file()]
    runs = {path.parent for kind in (BEST, LAST) for path in RUNS.glob(f"*/{kind}")}
    return [*named, *map(str, sorted(runs))]


def labelled(models: Sequence[str]) -> dict[str, str]:
    """What each is called: the last part of its path, or as much of it as tells it from others."""
    unique = dict.fromkeys(models)
    last = {model: Path(model).resolve().name for model in unique}
    names = list(last.values())
    return {model: name if names.count(name) == 1 else model for model, name in last.items()}


def described(models: Mapping[str, Model]) -> dict[str, str]:
    """A line on each: what it is, how large, how long it was trained."""
    lines = {}
    for label, model in models.items():
        trained = model.trained
        network = type(trained.network)
        size = count_parameters(trained.network)
        lines[label] = (
            f"{network.__module__.partition('.')[0]} ({network.__name__}), {size:,} parameters, "
            f"trained for {trained.step:,} steps ({trained.epochs:.3g} epochs)"
        )
    return lines


def warm_up(models: Mapping[str, Model]) -> None:
    """Enhance a moment, so that nobody has to wait for kernels to be compiled."""
    moment = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32) / 10
    for model in models.values():
        model(moment, SAMPLE_RATE)
