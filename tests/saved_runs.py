"""Run folders made for tests, without training."""

from __future__ import annotations

from pathlib import Path

import torch

from abl3.mbs_net import MBSNet
from training import checkpoint
from training.config import Config
from training.ema import EMA


def save_run(folder: Path, seed: int = 0, step: int = 3, name: str = checkpoint.BEST) -> Path:
    """A run folder with one checkpoint, of a small and untrained network."""
    torch.manual_seed(seed)
    network = MBSNet(channels=16)
    config = Config(model={"channels": 16}, seed=seed)
    parts = {"model": network, "ema": EMA(network, 0.9)}
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.save(
        folder / name,
        MBSNet,
        config,
        "fingerprint",
        parts,
        {"step": step, "epochs": 1.5, "best": 1.0, "held_out": ["p226", "p287"]},
    )
    return folder
