"""Whether a run can be carried out as it is asked for, known before anything is done."""

from __future__ import annotations

import torch

from training.config import Config, ConfigError
from training.distributed import World
from training.settings import PLACES, flatten
from training.trained import name_of


def check(
    network: type, config: Config, size: int, data: str, world: World, device: torch.device
) -> None:
    """Refuse what cannot go well. All processes must call it.

    Args:
        size: of the training set. data: the fingerprint of all data.

    Raises:
        ConfigError: a batch cannot be filled, or not be shared by the processes, or there are more
            of these than GPUs, or they differ in what they would train.
    """
    batch = config.data.batch_size
    if size < batch:
        raise ConfigError(
            f"{size} training files do not fill one batch of {batch}; "
            "use a smaller --batch-size or more data."
        )
    if batch < world.size:
        raise ConfigError(
            f"a batch of {batch} cannot be shared by {world.size} processes; "
            "use fewer, or a larger --batch-size."
        )
    if device.type == "cuda" and world.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{world.local_size} processes on this machine, which has "
            f"{torch.cuda.device_count()} GPUs; start one for each."
        )
    mine = {name: value for name, value in flatten(config).items() if name not in PLACES}
    world.agree({"network": name_of(network), **mine, "the data files": data})
