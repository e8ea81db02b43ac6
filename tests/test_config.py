"""Configurations: what an ablation changes and that it changes nothing else; settings by name."""

from __future__ import annotations

import dataclasses

import pytest

import abl1.train
import abl2.train
import abl3.train
import baseline.train
from abl3.mbs_net import MBSNet
from baseline.bsrnn import BSRNN
from training.config import (
    BASE,
    RECIPES,
    Config,
    ConfigError,
    Data,
    Loss,
    Optim,
    Run,
    beside_recipe,
    diff,
    flatten,
    from_json,
    network_defaults,
    override,
    to_json,
)
from training.trained import check_model

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
def test_what_differs_from_base_and_nothing_else_does(config: Config, expected: dict) -> None:
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
def test_what_a_control_changes(preset: str, of: object, expected: dict) -> None:
    config = of.PRESETS[preset][1]  # type: ignore[attr-defined]
    name = {"name": (of.CONFIG.name, preset)}  # type: ignore[attr-defined]
    assert diff(of.CONFIG, config) == expected | name  # type: ignore[attr-defined]


def test_the_users_fixed_settings() -> None:
    assert (BASE.data.batch_size, BASE.data.crop_seconds, BASE.run.amp) == (6, 2.0, "auto")
    assert BASE.data.validation_speakers == ("p226", "p287")


def test_base_is_frozen_all_the_way_down() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        abl1.train.CONFIG.model["d_state"] = 8  # type: ignore[index]


def test_what_a_run_changes_beside_its_recipe() -> None:
    metric = override(BASE, {"recipe": "metric", **RECIPES["metric"]})
    assert beside_recipe(BASE) == beside_recipe(metric) == {}
    changed = override(metric, {"optim.learning_rate": 1e-3, "loss.metric": 1.0, "seed": 4})
    assert beside_recipe(changed) == {"loss.metric": 1.0, "optim.learning_rate": 1e-3}


def test_a_loss_without_a_term_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        Loss(complex=0, magnitude=0, phase=0, time=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_a_valid_configuration(recipe: str) -> None:
    config = override(BASE, {"recipe": recipe, **RECIPES[recipe]})
    assert config.recipe == recipe
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


def test_a_model_argument_of_another_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'model\.d_state'"):
        check_model(abl1.train.CONFIG, network_defaults(BSRNN))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d_state", 0, "model.d_state is 0, expected 1 to"),
        ("channels", -3, "model.channels is -3"),
        ("hidden", (1, 2), r"model.hidden is \(1, 2\), expected 3 values"),
        ("hidden", (1, 2, 0), "expected 1 to"),
    ],
)
def test_an_impossible_network_is_refused(name: str, value: object, message: str) -> None:
    config = override(abl3.train.CONFIG, {f"model.{name}": value})
    with pytest.raises(ConfigError, match=message):
        check_model(config, network_defaults(MBSNet))


def test_every_setting_has_a_group_and_a_default() -> None:
    groups = {"loss": Loss(), "optim": Optim(), "data": Data(), "run": Run()}
    flat = flatten(BASE)
    for group, value in groups.items():
        assert {k: v for k, v in flat.items() if k.startswith(f"{group}.")} == {
            f"{group}.{k}": v for k, v in vars(value).items()
        }
