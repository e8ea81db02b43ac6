"""The three recipes: what they set, and that every network trains by each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_pool import batch_of

import abl1.mbs_net
import abl2.mbs_net
import abl3.mbs_net
from baseline.bsrnn import BSRNN
from bsbimamba.network.net import loudness
from bsbimamba.network.stft import stft
from bsbimamba.training.config import BASE, RECIPES, Loss, Optim, Run, override
from bsbimamba.training.loop import Trainer
from bsbimamba.training.losses import TERMS, Active

NETWORKS = {
    "baseline": (BSRNN, {"num_layers": 1, "channels": 12}),
    "abl1": (abl1.mbs_net.MBSNet, {"channels": 12, "hidden": 8}),
    "abl2": (abl2.mbs_net.MBSNet, {"channels": 12, "hidden": 8}),
    "abl3": (abl3.mbs_net.MBSNet, {"channels": 12}),
}
RUN = Run(workers=0, device="cpu", amp="off", log_every=1)


def test_the_default_is_what_validation_chose() -> None:
    assert BASE.recipe == "default"
    assert RECIPES["default"] == {}
    assert RECIPES["metric"] == {"loss.metric": 0.05, "loss.metric_from": 0.5}
    weights = {"magnitude": 0.9, "phase": 0.3, "complex": 0.1, "consistency": 0.1, "time": 0.2}
    assert BASE.loss == Loss(**weights, metric=0.0, metric_from=0.0, phase_power=0.3)
    rates = {"learning_rate": 2e-3, "discriminator_rate": 5e-4, "beta1": 0.8, "beta2": 0.99}
    assert BASE.optim == Optim(
        algorithm="muon", **rates, warmup_steps=100, fall=0.2, decay=1.0, clip_ratio=3.0
    )


def test_bsrnn_optimizers_are_the_public_ones() -> None:
    """Adam, which is AdamW without decay, at the same constant rate but for a decay by epochs."""
    optim = override(BASE, RECIPES["bsrnn"]).optim
    public = {"learning_rate": 1e-3, "discriminator_rate": 1e-3, "beta1": 0.9, "beta2": 0.999}
    lasting = {"decay": 0.98, "decay_every": 10, "warmup_steps": 0, "fall": 0.0}
    assert optim == Optim(algorithm="adamw", weight_decay=0.0, **lasting, **public)


def test_bsrnn_loss_is_the_public_one(make: Callable[..., Trainer]) -> None:
    """Written from the source's equations, in float64, beside the loss of one step.

    L1 on magnitudes to the power 0.3, half of it, and half of the moduli of the uncompressed
    complex spectra's differences; the metric term from half of the steps on, with weight 1.
    """
    config = override(BASE, RECIPES["bsrnn"])
    trainer = make(loss=config.loss)
    batch = batch_of(trainer)
    assert all(Active.of(batch["clean"], batch["noisy"]).frames.flatten())
    clean, noisy = (batch[side] / loudness(batch["noisy"]) for side in ("clean", "noisy"))
    with torch.no_grad():
        enhanced = copy.deepcopy(trainer.learner.model).train()(noisy)[1].to(torch.complex128)
    target = stft(clean.double())
    magnitudes = (enhanced.abs() ** 0.3 - target.abs() ** 0.3).abs().mean()
    moduli = (enhanced - target).abs().mean()
    values = trainer.train_step(batch).values
    assert values["loss"] == pytest.approx(float(0.5 * magnitudes + 0.5 * moduli), rel=1e-3)
    assert "metric" not in values
    trainer.step = trainer.schedule.total // 2
    later = trainer.train_step(batch).values
    terms = 0.5 * (later["magnitude"] + later["complex"]) + 1.0 * later["metric"]
    assert later["loss"] == pytest.approx(terms, rel=1e-5)
    assert len(trainer.pool.labelled) == 4  # two kinds of pairs in each of the two steps


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_network_trains_by_every_recipe(
    recipe: str, network: str, make: Callable[..., Trainer], tmp_path: Path
) -> None:
    config = override(BASE, RECIPES[recipe])
    kind, model = NETWORKS[network]
    optim = replace(config.optim, steps=6, warmup_steps=0, fall=0.0)
    trainer = make("run", kind, model=model, recipe=recipe, loss=config.loss, optim=optim, run=RUN)
    trainer.step = start = trainer.schedule.metric_from
    before = [p.detach().clone() for p in trainer.learner.model.parameters()]
    assert not trainer.fit(max_steps=start + 2)
    log = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for line in log:
        terms = {name for name in (*TERMS, "metric") if getattr(config.loss, name)}
        assert line["train"].keys() & {*TERMS, "metric"} == terms
    assert ("discriminator" in log[-1]["train"]) == (recipe != "default")
    for old, new in zip(before, trainer.learner.model.parameters(), strict=True):
        assert new.isfinite().all()
        assert not old.equal(new)
    assert log[-1]["train"]["learning_rate"] == pytest.approx(config.optim.learning_rate)
