"""The training loop: what a step computes, and when it validates, saves and ends."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_pool import batch_of
from saved_runs import metrics
from torch import Tensor, nn

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


def validated(trainer: Trainer) -> list[int]:
    """The steps whose weights were scored."""
    return [line["step"] for line in metrics(trainer.folder) if "valid" in line]


def checkpointed(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    return torch.load(folder / name, weights_only=True)


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
    trainer = make(optim=Optim(clip_ratio=2.0))
    learner = trainer.learner
    numbers(trainer, batch_of(trainer))
    for network, clip, name, usual in (
        (learner.model, learner.clip, "grad_norm", 5e-4),
        (
            learner.discriminator.network,
            learner.discriminator.clip,
            "discriminator_grad_norm",
            1e-5,
        ),
    ):
        clip.norms.fill_(usual)
        assert numbers(trainer, batch_of(trainer))[name] > 20 * usual  # as it was before
        after = nn.utils.get_total_norm(
            [p.grad for p in network.parameters() if p.grad is not None]
        )
        assert float(after) == pytest.approx(2 * usual, rel=1e-3)
        assert float(clip.norms[-1]) > 20 * usual


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
    assert taught.learner.discriminator.optimizer.state
    assert not alone.learner.discriminator.optimizer.state


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
        trainer.train_step(batch_of(trainer))
        for rate, optimizer in (
            (0.01, trainer.learner.optimizer),
            (0.04, trainer.learner.discriminator.optimizer),
        ):
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
                [rate * factor] * len(optimizer.param_groups)
            )


def test_good_checkpoint_is_that_of_the_last_validation(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the run is saved besides: what it goes back to must not depend on that."""
    run = replace(LOGGED, validate_every=2, save_minutes=0)
    trainer = make(optim=Optim(steps=5, fall=0.0), run=run)
    kept = []

    def watched() -> None:
        kept.append(checkpointed(trainer.folder, "good.pt")["values"]["step"])
        assert checkpointed(trainer.folder)["values"]["step"] >= kept[-1]

    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda batch: (watched(), step(batch))[1])
    trainer.fit()
    assert kept == [0, 0, 2, 2, 4]


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
    best, last = (checkpointed(trainer.folder, f"{name}.pt")["values"] for name in ("best", "last"))
    assert (best["step"], best["best"]) == (2 * STEPS, pytest.approx(2.9))
    assert (last["step"], last["best"]) == (3 * STEPS, pytest.approx(2.9))
    assert last["epochs"] == 3
    assert last["held_out"] == trainer.valid_set.speakers()
