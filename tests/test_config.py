"""Configurations: what an ablation changes and that it changes nothing else; settings by name."""

from __future__ import annotations

import dataclasses

import pytest

import abl1.train
import abl2.train
import abl3.train
import baseline.train
from abl3.mbs_net import MBSNet
from bsbimamba.training.config import (
    BASE,
    RECIPES,
    Config,
    ConfigError,
    beside_recipe,
    check_model,
    diff,
    from_json,
    network_defaults,
    override,
    to_json,
)

MAMBA = {
    "model.num_layers": (None, 1),
    "model.d_state": (None, 16),
    "model.chunk_size": (None, 64),
    "model.use_checkpoint": (None, True),
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (abl1.train.CONFIG, {"name": ("base", "abl1"), **MAMBA}),
        (abl2.train.CONFIG, {"name": ("base", "abl2"), **MAMBA}),
        (abl3.train.CONFIG, {"name": ("base", "abl3"), **MAMBA}),
        (
            baseline.train.CONFIG,
            {
                "name": ("base", "bsrnn"),
                "model.num_layers": (None, 5),
                "model.channels": (None, 56),
            },
        ),
    ],
)
def test_config_differs_from_base_in_nothing_else(config: Config, expected: dict) -> None:
    assert diff(BASE, config) == dict(sorted(expected.items()))


@pytest.mark.parametrize(
    ("preset", "of", "expected"),
    [
        ("bsrnn_public", baseline.train, {"model.channels": (56, 64),
                                          "model.norm": (None, "recording"),
                                          "model.published_start": (None, True),
                                          "model.time_first": (None, True)}),
        ("bsrnn_bi", baseline.train, {"model.num_layers": (5, 4),
                                      "model.bidirectional_time": (None, True)}),
        ("lstm_dualpath", baseline.train, {"model.num_layers": (5, 1),
                                           "model.channels": (56, None)}),
        ("uniform31", abl3.train, {"model.hidden": (None, (31, 31, 31))}),
    ],
)  # fmt: skip
def test_preset_differs_from_its_network_in_nothing_else(
    preset: str, of: object, expected: dict
) -> None:
    config = of.PRESETS[preset][1]  # type: ignore[attr-defined]
    name = {"name": (of.CONFIG.name, preset)}  # type: ignore[attr-defined]
    assert diff(of.CONFIG, config) == expected | name  # type: ignore[attr-defined]


def test_base_has_the_fixed_settings() -> None:
    assert (BASE.data.batch_size, BASE.data.crop_seconds, BASE.run.amp) == (6, 2.0, "auto")
    assert BASE.data.validation_speakers == ("p226", "p287")


def test_base_is_frozen_all_the_way_down() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        abl1.train.CONFIG.model["d_state"] = 8  # type: ignore[index]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_changes_loss_and_optimizer_alone(recipe: str) -> None:
    config = override(BASE, {"recipe": recipe, **RECIPES[recipe]})
    assert beside_recipe(config) == {}
    assert beside_recipe(override(config, {"optim.ema_decay": 0.5, "seed": 4})) == {
        "optim.ema_decay": 0.5
    }
    changed = {name for name in diff(BASE, config) if name != "recipe"}
    assert {name.partition(".")[0] for name in changed} <= {"loss", "optim"}


def test_json_keeps_everything() -> None:
    config = override(
        abl3.train.CONFIG,
        {"model.hidden": (8, 9, 10), "data.snr_db": (0.0, 5.0), "optim.learning_rate": 1e-3},
    )
    assert from_json(to_json(config)) == config
    with pytest.raises(ConfigError, match="not a configuration"):
        from_json("[1, 2")
    with pytest.raises(ConfigError, match=r"optim\.speed"):
        from_json('{"optim.speed": 1}')


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d_state", 0, "model.d_state is 0, expected 1 to"),
        ("channels", -3, "model.channels is -3"),
        ("hidden", (1, 2), r"model.hidden is \(1, 2\), expected 3 values"),
        ("hiden", 3, r"unknown setting 'model\.hiden'; did you mean hidden"),
    ],
)
def test_check_model_refuses_an_impossible_network(name: str, value: object, message: str) -> None:
    config = override(abl3.train.CONFIG, {f"model.{name}": value})
    with pytest.raises(ConfigError, match=message):
        check_model(config, network_defaults(MBSNet))
