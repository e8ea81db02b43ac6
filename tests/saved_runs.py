"""Run folders: made for tests, without training; read; compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from abl3.mbs_net import MBSNet
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training import checkpoint
from bsbimamba.training.config import Config, to_json
from bsbimamba.training.flat import Flat
from bsbimamba.training.loop import Trainer
from bsbimamba.training.optimizer import EMA


def save_run(folder: Path, seed: int = 0, step: int = 3, name: str = checkpoint.BEST) -> Path:
    """A run folder with one checkpoint, of a small and untrained network."""
    torch.manual_seed(seed)
    network = MBSNet(channels=16)
    config = Config(model={"channels": 16}, seed=seed)
    parts = {"model": network, "ema": EMA(network, Flat(network, use_muon=False), 0.9)}
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "network": f"{MBSNet.__module__}:{MBSNet.__qualname__}",
        "config": to_json(config),
        "data": "fingerprint",
        **{key: part.state_dict() for key, part in parts.items()},
        "values": {"step": step, "epochs": 1.5, "best": 1.0, "held_out": ["p226", "p287"]},
    }
    checkpoint.write(folder / name, state)
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small, untrained network."""
    return save_run(tmp_path_factory.mktemp("model") / "run")


def fit_to(trainer: Trainer, step: int) -> None:
    """Train until so many steps are done. A validation that is due then is left to the next run."""
    trainer.fit(lambda: trainer.step >= step)


def lively(network: BandSplitNet) -> BandSplitNet:
    """Return the network with a filter that does something: untrained, it returns its input."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("weight", "bias") and parameter.dim() == 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        for decoder in network.decoder.decoders:
            for parameter in decoder.output.parameters():  # type: ignore[union-attr]
                parameter.mul_(10)
    return network.eval().requires_grad_(False)


def load(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, its checksum checked."""
    return checkpoint.read(path)


def change(path: Path, **values: Any) -> None:
    """Replace entries of a checkpoint."""
    checkpoint.write(path, load(path) | values)


def leaves(state: Any, name: str = "") -> dict[str, Any]:
    """Every tensor and plain value of a nested state, by its path."""
    if isinstance(state, dict):
        children = state.items()
    elif isinstance(state, list | tuple):
        children = enumerate(state)  # type: ignore[assignment]
    else:
        return {name: state}
    return {k: v for key, value in children for k, v in leaves(value, f"{name}/{key}").items()}


def assert_same_state(one: Path, other: Path, name: str = "last.pt") -> None:
    """Two runs' checkpoints are the same, to the bit; what is NaN in both is the same too."""
    a, b = (leaves(load(run / name)) for run in (one, other))
    # How many workers there are, and how many bytes the speeds took in the log.
    ignored = ("/config", "/values/logged")
    a, b = ({k: v for k, v in x.items() if k not in ignored} for x in (a, b))
    assert a.keys() == b.keys()
    assert len(a) > 100
    for key, value in a.items():
        if isinstance(value, Tensor):
            np.testing.assert_array_equal(value.numpy(), b[key].numpy(), err_msg=key)
        else:
            assert value == b[key], key


def metrics(run: Path) -> list[dict]:
    """What a run has logged, but for how fast it was."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "speed"} for line in lines]
