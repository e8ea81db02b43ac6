"""Loading a run for evaluation: what is taken, and what is refused with its path."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_runs import change, load, save_run

from abl3.mbs_net import MBSNet
from training import trained as trained_module
from training.checkpoint import CheckpointError, pack, write
from training.config import Config, ConfigError
from training.trained import load_trained


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """The checkpoint of a run, to be spoilt by the test."""
    return save_run(tmp_path / "run") / "best.pt"


def test_a_run_gives_its_averaged_weights_and_where_they_are_from(best: Path):
    state = load(best)
    weights = {key: value + 1 for key, value in state["ema"]["model"].items()}
    change(best, ema={"model": weights, "updates": 0})
    trained = load_trained(best.parent)
    assert isinstance(trained.network, MBSNet)
    assert not trained.network.training
    assert (trained.checkpoint, trained.step, trained.config.model["channels"]) == (
        "best.pt",
        3,
        16,
    )
    found = trained.network.state_dict()
    assert found.keys() == state["model"].keys()
    for key, value in state["model"].items():
        assert torch.equal(found[key], value + 1)


def test_load_trained_takes_a_folders_last_checkpoint_else_its_best(best: Path):
    assert load_trained(best.parent).checkpoint == "best.pt"
    save_run(best.parent, step=9, name="last.pt")
    assert load_trained(best.parent).step == 9
    assert load_trained(best).step == 3


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "last.pt"):
        with pytest.raises(CheckpointError, match=r"/last\.pt: no such checkpoint"):
            load_trained(path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(best: Path, kept: float):
    content = best.read_bytes()
    size = int(kept if kept >= 1 else kept * len(content))
    best.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"best\.pt is damaged, or is not a checkpoint"):
        load_trained(best)


class Evil:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_cannot_run_code(best: Path, tmp_path: Path):
    mark = tmp_path / "mark"
    write(best, pack(load(best) | {"values": Evil(mark)}))
    with pytest.raises(CheckpointError, match="damaged, or is not a checkpoint"):
        load_trained(best)
    best.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    with pytest.raises(CheckpointError, match="damaged, or is not a checkpoint"):
        load_trained(best)
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, torch.zeros(3)])
def test_a_file_of_something_else_is_refused(best: Path, content: Any):
    write(best, pack(content))
    with pytest.raises(CheckpointError, match=r"best\.pt is not a checkpoint of this project"):
        load_trained(best)


def test_a_file_without_a_checksum_is_refused(best: Path):
    torch.save(load(best), best)
    with pytest.raises(CheckpointError, match=r"best\.pt is damaged.*without a checksum"):
        load_trained(best)


def test_a_network_outside_the_repository_is_refused_unimported(
    best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "evil.py").write_text("raise AssertionError('it has been imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("evil:Net", "..evil:Net", "os:system", "abl3/mbs_net:MBSNet", 3):
        change(best, network=name)
        with pytest.raises(CheckpointError, match="does not fit this version's network"):
            load_trained(best)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("", "there is no network"),
        ("abl3.mbs_net", "there is no network"),
        ("abl3.mbs_net:Absent", "there is no network"),
        ("real_mamba_optimized:MambaBlock", "there is no network"),
        ("bandsplit.net:BandSplitNet", "there is no network"),
        ("abl1.mbs_net:MBSNet", "Unexpected key"),
    ],
)
def test_another_network_is_refused(best: Path, network: str, reason: str):
    change(best, network=network)
    with pytest.raises(CheckpointError, match=f"(?s)does not fit this version's network.*{reason}"):
        load_trained(best)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("not JSON", "not a configuration of this version"),
        ("[]", "not a configuration of this version"),
        (json.dumps({"sed": 1}), "unknown setting 'sed'; did you mean seed"),
        (json.dumps({"model.chanels": 16}), "unknown setting 'model.chanels'"),
        (json.dumps({"model.channels": 24}), "size mismatch"),
        (json.dumps({"model.channels": 0}), "does not fit"),
    ],
)
def test_another_configuration_is_refused(best: Path, config: str, reason: str):
    change(best, config=config)
    with pytest.raises(CheckpointError, match=f"(?s)best.pt.*{reason}"):
        load_trained(best)


@pytest.mark.parametrize("ema", [[1], {"updates": 3}, {"model": {}}, {"model": None}])
def test_weights_that_are_not_there_are_refused(best: Path, ema: Any):
    change(best, ema=ema)
    with pytest.raises(CheckpointError, match=r"best\.pt does not fit this version's network"):
        load_trained(best)


@pytest.mark.parametrize("values", [3, [1], {}, {"step": "three"}, {"step": None}])
def test_plain_values_of_another_kind_are_refused(best: Path, values: Any):
    change(best, values=values)
    with pytest.raises(CheckpointError, match=r"best\.pt does not fit this version's network"):
        load_trained(best)


@pytest.mark.parametrize("place", ["models/evil", "runs", "abl3/deep", "tests", ""])
def test_nothing_but_networks_is_imported(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A model from elsewhere, put where models are, brings no code along."""
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(trained_module, "_ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = ".".join([*Path(place).parts, "payload"])
    with pytest.raises(ConfigError, match="there is no network"):
        trained_module.network_with(f"{name}:Net", Config(), {})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("setting", [{"channels": 65_536}, {"num_layers": 65_536}])
def test_sizes_are_compared_before_memory_is_taken(setting: dict[str, int]):
    weights = MBSNet(channels=16).state_dict()
    config = Config(model={"channels": 16, **setting})
    with pytest.raises((ConfigError, RuntimeError), match=r"weights|size mismatch"):
        trained_module.network_with(f"{MBSNet.__module__}:MBSNet", config, weights)
