"""Run folders made for tests, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from abl3.mbs_net import MBSNet
from training import checkpoint
from training.config import Config
from training.ema import EMA
from training.settings import to_json


def save_run(folder: Path, seed: int = 0, step: int = 3, name: str = checkpoint.BEST) -> Path:
    """A run folder with one checkpoint, of a small and untrained network."""
    torch.manual_seed(seed)
    network = MBSNet(channels=16)
    config = Config(model={"channels": 16}, seed=seed)
    parts = {"model": network, "ema": EMA(network, 0.9)}
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "network": f"{MBSNet.__module__}:{MBSNet.__qualname__}",
        "config": to_json(config),
        "data": "fingerprint",
        **{key: part.state_dict() for key, part in parts.items()},
        "values": {"step": step, "epochs": 1.5, "best": 1.0, "held_out": ["p226", "p287"]},
    }
    checkpoint.write(folder / name, checkpoint.pack(state))
    return folder


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, its checksum checked."""
    return checkpoint.unpack(checkpoint.read(path), path)


def change(path: Path, **values: Any) -> None:
    """Replace entries of a checkpoint, checksum included; None removes one."""
    state = {key: value for key, value in (load(path) | values).items() if value is not None}
    checkpoint.write(path, checkpoint.pack(state))
