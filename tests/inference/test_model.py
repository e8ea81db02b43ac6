"""Trained networks as functions, for signals of every kind; model folders."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recordings import sound
from saved_runs import lively, save_run
from torch import Tensor

from abl3.mbs_net import MBSNet
from bsbimamba.inference.model import Model, load
from bsbimamba.inference.trained import load_run, read_model, write_model
from bsbimamba.training.checkpoint import CheckpointError
from bsbimamba.training.config import ConfigError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    found = load(save_run(tmp_path_factory.mktemp("model") / "run"), "cpu")
    lively(found.network)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", load_run(save_run(tmp_path / "run")))
    return tmp_path / "model"


def test_model_at_16_khz_is_the_network(model: Model):
    x = torch.from_numpy(sound(0.9)).float()
    expected = model.network.enhance(x[None])[0]
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(model(x, 16_000), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_model_returns_the_kind_of_array_it_is_given(model: Model, dtype: str):
    x = torch.from_numpy(sound(0.3, 8_000)).to(getattr(torch, dtype))
    y = model(x, 8_000)
    assert (type(y), y.shape, y.dtype) == (Tensor, x.shape, x.dtype)
    if dtype != "bfloat16":  # which numpy lacks
        array = model(x.numpy(), 8_000)
        assert (type(array), array.dtype) == (np.ndarray, x.numpy().dtype)
        np.testing.assert_array_equal(array, y.numpy())


def test_model_enhances_each_channel_as_if_it_were_alone(model: Model):
    x = np.stack([sound(0.4, seed=1), 0.01 * sound(0.4, seed=2), np.zeros(6_400)])
    y = model(x, 16_000)
    for channel, alone in zip(x, y, strict=True):
        np.testing.assert_allclose(model(channel, 16_000), alone, atol=1e-7)
    assert not y[2].any()
    assert model(x[:, ::-1], 16_000).shape == x.shape  # a view


@pytest.mark.parametrize("samples", [1, 13, 1_001])
def test_model_returns_every_length(model: Model, samples: int):
    for rate in (4_000, 11_025, 16_000, 192_000):
        assert model(np.full(samples, 0.1), rate).shape == (samples,)


def test_model_is_picklable_and_works_in_threads(model: Model):
    other, x = copy.deepcopy(pickle.loads(pickle.dumps(model))), sound(0.3)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: other(x, 16_000), range(4)):
            np.testing.assert_allclose(y, model(x, 16_000), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "rate", "error", "reason"),
    [
        (np.zeros(9, np.int16), 16_000, TypeError, "floating-point samples.*int16"),
        (np.zeros(0), 16_000, ValueError, "at least one"),
        (np.zeros((4, 2)), 16_000, ValueError, "x.T"),
        (np.zeros(9), 44_100.5, ValueError, "44100.5"),
        (np.full(9, np.nan), 16_000, ValueError, "infinite"),
    ],
)
def test_model_refuses_other_things(model: Model, x: Any, rate: Any, error: type, reason: str):
    with pytest.raises(error, match=reason):
        model(x, rate)


def test_load_takes_runs_checkpoints_model_folders_and_names(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    x, run = sound(0.2), tmp_path / "run"
    monkeypatch.setattr("bsbimamba.inference.trained.MODELS", tmp_path)
    # Only a folder with a model comes before a name: in the repository's root, abl3 is one of code.
    (tmp_path / "here" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    expected = load(run)
    for source in (str(run / "best.pt"), folder, "model"):
        found = load(source)
        np.testing.assert_array_equal(found(x, 16_000), expected(x, 16_000))
        for name in ("config", "step", "epochs", "data", "held_out"):
            assert getattr(found.trained, name) == getattr(expected.trained, name)
    shutil.copy(run / "best.pt", "model")
    assert load("model").trained.checkpoint == "best.pt"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="'gpu'"):
        load(run, "gpu")


def test_from_pretrained_is_the_same_network(folder: Path):
    expected = load(folder).network.state_dict()
    found = MBSNet.from_pretrained(folder, strict=True).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_read_model_refuses_damaged_folders(folder: Path, name: str):
    content = (folder / name).read_bytes()
    for damaged in (b"", b"\xff" + content[1:], content[:-1] + b"\xff"):
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name}.* (is damaged|does not fit)"):
            read_model(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": "os:system"}, "there is no network os:system"),
        ({"training": {"stepp": 1}}, "does not fit this version.*stepp"),
        ({"settings": {"sed": 1}}, "unknown setting 'sed'"),
        ({"channels": 24}, "another network's"),
    ],
)
def test_read_model_refuses_other_descriptions(folder: Path, change: dict[str, Any], reason: str):
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | change))
    with pytest.raises(CheckpointError, match=reason):
        read_model(folder)
