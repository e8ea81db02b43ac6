"""The training loop: what a step computes, and when it validates, saves and ends."""

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fake_pool import batch_of
from saved_runs import load, metrics
from torch import Tensor

from abl1.mbs_net import MBSNet
from bsbimamba.network.stft import istft, stft
from bsbimamba.training.config import Loss, Optim, Run
from bsbimamba.training.loop import Trainer
from bsbimamba.training.losses import TERMS

STEPS = 3  # an epoch: six training pairs in batches of two
LOGGED = Run(workers=0, device="cpu", amp="off", log_every=1, validate_every=STEPS)
# The terms and the gradient's norm of one step of the narrow network, unweighted.
GOLDEN = {
    "loss": 0.41884,
    "complex": 0.52145,
    "magnitude": 0.036024,
    "phase": 0.95878,
    "time": 0.23007,
    "consistency": 0.0059898,
    "grad_norm": 0.024716,
}


def numbers(trainer: Trainer, batch: dict[str, Any]) -> dict[str, float]:
    return trainer.train_step(batch).values


def exact_batch(level: float = 0.3) -> dict[str, Any]:
    """Two crops of white noise in white noise, the same everywhere."""
    drawn = np.random.default_rng(0).standard_normal((2, 2, 8000)).astype(np.float32)
    clean, noise = torch.from_numpy(drawn)
    return {"name": ["a", "b"], "clean": clean, "noisy": clean + level * noise}


# One step


def test_step_gives_its_golden_numbers(make: Callable[..., Trainer]) -> None:
    """Another number here means that training computes something else than it did."""
    trainer = make(loss=Loss(metric=0))
    values = numbers(trainer, exact_batch())
    assert values == pytest.approx(GOLDEN, rel=1e-3)
    terms = {name: getattr(trainer.config.loss, name) * values[name] for name in TERMS}
    assert values["loss"] == pytest.approx(sum(terms.values()), rel=1e-5)


def test_step_does_not_depend_on_loudness(make: Callable[..., Trainer]) -> None:
    first, second = make("first"), make("second")
    one, other = numbers(first, batch_of(first)), numbers(second, batch_of(second, gain=0.01))
    assert one == pytest.approx(other, rel=1e-3)


def test_trainer_clips_both_networks_to_their_own_history(make: Callable[..., Trainer]) -> None:
    """By the clip of a longer history, the step of neither is its own gradient's."""
    trainers = [make(name, optim=Optim(clip_ratio=2.0, algorithm="adamw")) for name in "ab"]
    for trainer in trainers:
        numbers(trainer, batch_of(trainer))
    learner = trainers[1].learner
    for optimizer in (learner.optimizer, learner.discriminator.optimizer):
        optimizer.norms.fill_(1e-5)
    plain, clipped = (numbers(trainer, batch_of(trainer)) for trainer in trainers)
    for name in ("grad_norm", "discriminator_grad_norm"):
        assert plain[name] == clipped[name] > 20 * 1e-5  # as it was before
    for one, other in zip(*(x.learner.parts().values() for x in trainers), strict=True):
        assert str(one.state_dict()) != str(other.state_dict())


# The discriminator in the loop


def test_labels_are_used_one_step_after_they_are_asked_for(make: Callable[..., Trainer]) -> None:
    trainer = make()
    steps = [numbers(trainer, batch_of(trainer)) for _ in range(3)]
    assert trainer.pool.events == ["ask 0", "use 0", "ask 1", "use 1", "ask 2"]
    assert ["labelled" in values for values in steps] == [False, True, True]


def test_labels_are_of_the_output_of_their_step(make: Callable[..., Trainer]) -> None:
    trainer = make()
    batch = batch_of(trainer)
    scale = batch["noisy"].square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        expected = copy.deepcopy(trainer.learner.model)(batch["noisy"] / scale)[0].numpy()
    trainer.train_step(batch)
    np.testing.assert_allclose(trainer.pool.labelled[0], expected, atol=1e-5)


def test_discriminator_learns_from_the_first_step_and_is_used_from_its_share(
    make: Callable[..., Trainer],
) -> None:
    trainer = make(loss=Loss(metric=0.05, metric_from=0.5), run=LOGGED)
    trainer.fit()
    lines = [line["train"] for line in metrics(trainer.folder) if "train" in line]
    assert ["metric" in line for line in lines] == [False] * STEPS + [True] * STEPS
    assert ["discriminator" in line for line in lines] == [False] + [True] * (2 * STEPS - 1)
    assert len(trainer.pool.labelled) == 2 * STEPS


class Inconsistent(MBSNet):
    """A network whose spectrum has a part that is in no waveform, besides."""

    def forward(self, noisy: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        waveform, spectrum = super().forward(noisy, scale)
        part = torch.view_as_complex(torch.ones(*spectrum.shape, 2))
        return waveform, spectrum + part - stft(istft(part, noisy.shape[-1]))


def test_metric_term_judges_the_waveform(make: Callable[..., Trainer]) -> None:
    """A network cannot please the discriminator by a spectrum that nobody will hear."""
    trainers = [make("plain"), make("inconsistent", Inconsistent)]
    plain, other = (numbers(trainer, exact_batch(0.03)) for trainer in trainers)
    assert other["magnitude"] > 2 * plain["magnitude"]
    assert other["metric"] == pytest.approx(plain["metric"], rel=1e-5)


def test_generator_does_not_depend_on_a_discriminator_that_is_not_used_yet(
    make: Callable[..., Trainer],
) -> None:
    """Not even through the random numbers that its dropout draws."""
    taught, alone = (
        make("taught", loss=Loss(metric=0.05, metric_from=1.0)),
        make("alone", loss=Loss(metric=0)),
    )
    for trainer in (taught, alone):
        trainer.fit()
    for a, b in zip(
        taught.learner.model.parameters(), alone.learner.model.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    steps = [x.learner.discriminator.optimizer.state_dict()["steps"] for x in (taught, alone)]
    assert steps[0] > 0 == steps[1]


# The run's length, its rates and its validations


def test_both_rates_are_scaled_by_the_schedule(make: Callable[..., Trainer]) -> None:
    optim = Optim(
        learning_rate=0.01, discriminator_rate=0.04, steps=10, warmup_steps=2, fall=0.4,
        decay=0.5, decay_every=1,
    )  # fmt: skip
    trainer = make(optim=optim)
    # Half of it in the warm-up; halved with each epoch of three steps; three quarters in the fall.
    for step, factor in ((0, 0.5), (1, 1), (3, 0.5), (6, 0.25), (7, 0.25 * 0.75)):
        trainer.step = step
        learner = trainer.learner
        with (
            patch.object(learner.optimizer, "step", wraps=learner.optimizer.step) as one,
            patch.object(learner.discriminator.optimizer, "step") as other,
        ):
            trainer.train_step(batch_of(trainer))
        given = [float(call.args[0]) for spy in (one, other) for call in spy.call_args_list]
        assert given == pytest.approx([factor] * len(given))
        assert len(given) == 1 + (step > 0)


def test_validation_scores_what_the_average_makes_of_the_noisy(
    make: Callable[..., Trainer],
) -> None:
    trainer = make(optim=Optim(epochs=1))
    trainer.fit()
    assert len(trainer.pool.validated) == len(trainer.valid_set) == 2
    for index, scored in enumerate(trainer.pool.validated):
        noisy = trainer.valid_set[0, index]["noisy"]
        expected = trainer.learner.ema.model.enhance(noisy[None])[0]
        np.testing.assert_array_equal(scored, expected.numpy())
        assert not torch.equal(expected, trainer.learner.model.enhance(noisy[None])[0])


def test_best_checkpoint_is_kept_when_a_later_one_is_worse(make: Callable[..., Trainer]) -> None:
    trainer = make(optim=Optim(epochs=3, fall=0.0))
    trainer.pool.pesq = [2.0, 2.2, 3.0, 2.8, 2.5, 2.5]  # two utterances a validation
    trainer.fit()
    best, last = (load(trainer.folder / f"{name}.pt")["values"] for name in ("best", "last"))
    assert (best["step"], best["best"]) == (2 * STEPS, pytest.approx(2.9))
    assert (last["step"], last["best"]) == (3 * STEPS, pytest.approx(2.9))
    assert last["epochs"] == 3
    assert last["held_out"] == trainer.valid_set.speakers()
