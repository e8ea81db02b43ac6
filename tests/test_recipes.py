"""The three recipes: what they set, and that every network trains by each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import abl1.mbs_net
import abl2.mbs_net
import abl3.mbs_net
from baseline.bsrnn import BSRNN
from training.config import BASE, RECIPES, Loss, Optim, Run
from training.settings import override
from training.trainer import Trainer

NETWORKS = {
    "baseline": (BSRNN, {"num_layers": 1, "channels": 12}),
    "abl1": (abl1.mbs_net.MBSNet, {"channels": 12, "hidden": 8}),
    "abl2": (abl2.mbs_net.MBSNet, {"channels": 12, "hidden": 8}),
    "abl3": (abl3.mbs_net.MBSNet, {"channels": 12}),
}
RUN = Run(workers=0, device="cpu", amp="off", log_every=1, epochs=99)


def test_the_default_is_mpsenet() -> None:
    assert BASE.recipe == "mpsenet"
    loss = {"magnitude": 0.9, "phase": 0.3, "complex": 0.1, "consistency": 0.1, "metric": 0.05}
    for name, weight in (loss | {"time": 0.2, "metric_from_epoch": 0}).items():
        assert getattr(BASE.loss, name) == weight
    optim = {"algorithm": "adamw", "learning_rate": 5e-4, "beta1": 0.8, "beta2": 0.99}
    for name, value in (optim | {"decay": 0.99, "decay_every": 1}).items():
        assert getattr(BASE.optim, name) == value


def test_bsrnn_is_the_public_baselines() -> None:
    config = override(BASE, RECIPES["bsrnn"])
    assert config.loss == Loss(0.5, 0.5, 0.0, 0.0, 0.0, metric=1.0, metric_from_epoch=60)
    public = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "decay": 0.98}
    assert config.optim == Optim("adamw", weight_decay=0.0, decay_every=10, **public)


def test_plain_is_the_default_without_a_discriminator() -> None:
    assert override(BASE, RECIPES["plain"]) == override(BASE, {"loss.metric": 0.0})


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_network_trains_by_every_recipe(
    recipe: str, network: str, make: Callable[..., Trainer], tmp_path: Path
) -> None:
    config = override(BASE, RECIPES[recipe])
    kind, model = NETWORKS[network]
    settings = {"recipe": recipe, "loss": config.loss, "optim": config.optim, "run": RUN}
    trainer = make("run", kind, model=model, **settings)
    start = 3 * config.loss.metric_from_epoch  # steps
    trainer.step = start
    trainer.validated = trainer.epoch
    before = [p.detach().clone() for p in trainer.learner.model.parameters()]
    assert not trainer.fit(max_steps=start + 2)
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    terms = {name for name, weight in vars(config.loss).items() if weight} - {"metric_from_epoch"}
    for line in log:
        assert terms <= line["train"].keys()
        assert not {"phase", "time"} & line["train"].keys() - terms
    assert ("discriminator" in log[-1]["train"]) == (recipe != "plain")
    assert len(trainer.pool.labelled) == (0 if recipe == "plain" else 2)
    for old, new in zip(before, trainer.learner.model.parameters(), strict=True):
        assert new.isfinite().all()
        assert not old.equal(new)
    decays = config.optim.decay ** (config.loss.metric_from_epoch // config.optim.decay_every)
    assert log[-1]["train"]["learning_rate"] == pytest.approx(config.optim.learning_rate * decays)
