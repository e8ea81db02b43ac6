"""Configurations: what an ablation changes and that it changes nothing else; settings by name."""

import json
from typing import Any

import pytest

import abl1.train
import abl2.train
import abl3.train
import baseline.train
from bsbimamba.training.config import (
    BASE,
    RECIPES,
    Config,
    ConfigError,
    beside_recipe,
    diff,
    from_json,
    override,
    to_json,
)

BSRNN, ABL3 = baseline.train.CONFIG, abl3.train.CONFIG
MAMBA = {
    "model.num_layers": (None, 1),
    "model.d_state": (None, 16),
    "model.chunk_size": (None, 64),
    "model.use_checkpoint": (None, True),
}
PUBLISHED = {"model.norm": (None, "recording"), "model.published_start": (None, True),
             "model.time_first": (None, True)}  # fmt: skip


@pytest.mark.parametrize(
    ("of", "config", "expected"),
    [
        (BASE, abl1.train.CONFIG, MAMBA),
        (BASE, abl2.train.CONFIG, MAMBA),
        (BASE, ABL3, MAMBA),
        (BASE, BSRNN, {"model.num_layers": (None, 5), "model.channels": (None, 56)}),
        (BSRNN, "bsrnn_public", {"model.channels": (56, 64), **PUBLISHED}),
        (BSRNN, "bsrnn_bi", {"model.num_layers": (5, 4), "model.bidirectional_time": (None, True)}),
        (BSRNN, "lstm_dualpath", {"model.num_layers": (5, 1), "model.channels": (56, None)}),
        (ABL3, "uniform31", {"model.hidden": (None, (31, 31, 31))}),
    ],
)
def test_config_differs_in_nothing_else(of: Config, config: Any, expected: dict) -> None:
    if isinstance(config, str):
        config = (baseline.train.PRESETS | abl3.train.PRESETS)[config][1]
    changed = diff(of, config)
    assert changed.pop("name") == (of.name, config.name)
    assert changed == expected


def test_base_has_the_fixed_settings() -> None:
    assert (BASE.data.batch_size, BASE.data.crop_seconds, BASE.run.amp) == (6, 2.0, "auto")
    assert BASE.data.validation_speakers == ("p226", "p287")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_changes_loss_and_optimizer_alone(recipe: str) -> None:
    config = override(BASE, {"recipe": recipe, **RECIPES[recipe]})
    assert beside_recipe(config) == {}
    other = override(config, {"optim.ema_decay": 0.5, "seed": 4})
    assert beside_recipe(other) == {"optim.ema_decay": 0.5}
    changed = {name.partition(".")[0] for name in diff(BASE, config)}
    assert changed <= {"loss", "optim", "recipe"}


def test_json_keeps_everything() -> None:
    config = override(
        ABL3, {"model.hidden": (8, 9, 10), "data.snr_db": (0.0, 5.0), "optim.learning_rate": 1e-3}
    )
    assert from_json(to_json(config)) == config
    before = {"augment.speed": 0.0, "augment.speed_by": [0.9, 1.1]}
    assert from_json(json.dumps(before)) == Config()
    refused = (
        "[1, 2",
        '{"optim.speed": 1}',
        '{"optim.learning_rate": 2}',
        '{"augment.speed": 0.5}',
    )
    for text in refused:
        with pytest.raises(ConfigError):
            from_json(text)
