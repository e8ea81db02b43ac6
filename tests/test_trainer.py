"""The one training loop's arithmetic: each promise of a step, an epoch and a checkpoint."""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_pool import batch_of
from saved_runs import metrics
from torch import Tensor, nn

from training.config import ConfigError, Loss, Optim, Run
from training.trainer import Trainer

STEPS = 3  # an epoch: six training pairs in batches of two
# The terms and the gradient's norm of one step of the narrow network, unweighted.
GOLDEN = {
    "loss": 0.45478,
    "complex": 0.52145,
    "magnitude": 0.036024,
    "phase": 1.07865,
    "time": 0.23007,
    "consistency": 0.0060391,
    "grad_norm": 0.026705,
}


def numbers(trainer: Trainer, batch: dict[str, Any]) -> dict[str, float]:
    return trainer.train_step(batch).values


def checkpointed(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    return torch.load(folder / name, weights_only=True)


# One step


def test_the_loss_is_the_sum_of_weights_times_terms(make: Callable[..., Trainer]) -> None:
    loss = Loss(complex=0.3, magnitude=0.7, phase=0.2, time=1.1, consistency=0.6, metric=0.4)
    trainer = make(loss=loss)
    values = numbers(trainer, batch_of(trainer))
    weights = {k: v for k, v in vars(loss).items() if k != "metric_from_epoch"}
    assert values.keys() == {"loss", "grad_norm", *weights}
    assert values["loss"] == pytest.approx(sum(w * values[k] for k, w in weights.items()), rel=1e-5)


def test_one_step_in_golden_numbers(make: Callable[..., Trainer]) -> None:
    """Another number here means that training computes something else than it did."""
    trainer = make(loss=Loss(metric=0))
    drawn = np.random.default_rng(0).standard_normal((2, 2, 8000)).astype(np.float32)
    clean, noise = torch.from_numpy(drawn)
    noisy = clean + 0.3 * noise
    values = numbers(trainer, {"name": ["a", "b"], "clean": clean, "noisy": noisy})
    assert values == pytest.approx(GOLDEN, rel=1e-3)


def test_how_loud_a_recording_is_does_not_matter(make: Callable[..., Trainer]) -> None:
    first, second = make("first"), make("second")
    one, other = numbers(first, batch_of(first)), numbers(second, batch_of(second, gain=0.01))
    assert one == pytest.approx(other, rel=1e-3)


def test_trainer_clips_both_networks_to_their_own_history(make: Callable[..., Trainer]) -> None:
    trainer = make(optim=Optim(clip_ratio=2.0))
    learner = trainer.learner
    numbers(trainer, batch_of(trainer))
    for network, clip, name, usual in (
        (learner.model, learner.clip, "grad_norm", 5e-4),
        (learner.adversary.network, learner.adversary.clip, "discriminator_grad_norm", 1e-5),
    ):
        clip.norms.fill_(usual)
        assert numbers(trainer, batch_of(trainer))[name] > 20 * usual  # as it was before
        after = nn.utils.get_total_norm(
            [p.grad for p in network.parameters() if p.grad is not None]
        )
        assert float(after) == pytest.approx(2 * usual, rel=1e-3)
        assert float(clip.norms[-1]) > 20 * usual


def test_the_average_follows_the_weights(make: Callable[..., Trainer]) -> None:
    trainer = make(optim=Optim(ema_decay=0.15, learning_rate=1e-2))
    expected = [p.detach().clone() for p in trainer.learner.model.parameters()]
    for decay in (1 / 10, 0.15, 0.15):  # min(0.15, (1 + n) / (10 + n))
        trainer.train_step(batch_of(trainer))
        expected = [
            decay * mean + (1 - decay) * p.detach()
            for mean, p in zip(expected, trainer.learner.model.parameters(), strict=True)
        ]
    for mean, wanted in zip(trainer.learner.ema.model.parameters(), expected, strict=True):
        torch.testing.assert_close(mean, wanted)


# The discriminator in the loop


def test_labels_are_used_one_step_after_they_are_asked_for(make: Callable[..., Trainer]) -> None:
    trainer = make()
    steps = [numbers(trainer, batch_of(trainer)) for _ in range(3)]
    assert trainer.pool.events == ["ask 0", "use 0", "ask 1", "use 1", "ask 2"]
    assert ["labelled" in values for values in steps] == [False, True, True]


def test_what_is_labelled_is_the_steps_own_output(make: Callable[..., Trainer]) -> None:
    trainer = make()
    batch = batch_of(trainer)
    scale = batch["noisy"].square().mean(-1, keepdim=True).sqrt()
    with torch.no_grad():
        expected = copy.deepcopy(trainer.learner.model)(batch["noisy"] / scale)[0].numpy()
    trainer.train_step(batch)
    np.testing.assert_allclose(trainer.pool.labelled[0], expected, atol=1e-5)


def test_the_adversary_starts_at_its_epoch(make: Callable[..., Trainer]) -> None:
    trainer = make(loss=Loss(metric_from_epoch=1), run=Run(workers=0, log_every=1, epochs=2))
    trainer.fit()
    lines = [line["train"] for line in metrics(trainer.folder) if "train" in line]
    assert ["metric" in line for line in lines] == [False] * STEPS + [True] * STEPS
    assert len(trainer.pool.labelled) == STEPS


# Epochs


def test_the_rate_decays_by_epochs_for_both_players(make: Callable[..., Trainer]) -> None:
    optim = Optim(learning_rate=0.01, decay=0.5, decay_every=2)
    trainer = make(optim=optim)
    for epoch, rate in ((0, 0.01), (1, 0.01), (2, 0.005), (3, 0.005), (4, 0.0025)):
        trainer.step = epoch * STEPS
        trainer.train_step(batch_of(trainer))
        for optimizer in (trainer.learner.optimizer, trainer.learner.discriminator.optimizer):
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
                [rate] * len(optimizer.param_groups)
            )


def test_a_run_ends_where_its_rate_has_come_down(make: Callable[..., Trainer]) -> None:
    """In the middle of an epoch, too: what it has come to by then is validated."""
    ending = {
        "optim": Optim(cooldown=(1, STEPS + 1)),
        "run": Run(workers=0, log_every=1, epochs=4),
    }
    trainer = make(**ending)
    assert not trainer.fit()
    assert (trainer.step, trainer.validated) == (STEPS + 1, 2)
    lines = metrics(trainer.folder)
    rates = [line["train"]["learning_rate"] for line in lines if "train" in line]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0
    assert [line["step"] for line in lines if "valid" in line] == [STEPS, STEPS + 1]
    trainer.close()
    again = make(**ending)
    assert not again.fit()
    assert (again.step, again.validated) == (STEPS + 1, 2)
    assert len(metrics(again.folder)) == len(lines)


@pytest.mark.parametrize("cooldown", [(0, 0), (1, 4 * STEPS + 1)])
def test_not_every_epoch_has_to_be_validated(
    make: Callable[..., Trainer], cooldown: tuple[int, int]
) -> None:
    run = Run(workers=0, epochs=5, validate_every=2)
    trainer = make(optim=Optim(cooldown=cooldown), run=run)
    trainer.fit()
    ends = 4 * STEPS + 1 if cooldown[1] else 5 * STEPS
    lines = [line["step"] for line in metrics(trainer.folder) if "valid" in line]
    assert lines == [2 * STEPS, 4 * STEPS, ends]
    assert trainer.validated == 5


def test_an_epoch_that_is_not_validated_is_kept_too(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a crash, and to go back to."""
    trainer = make(run=Run(workers=0, epochs=3, validate_every=3))
    kept = []

    def watched() -> None:
        kept.append(checkpointed(trainer.folder, "good.pt")["values"]["step"])
        assert checkpointed(trainer.folder)["values"]["step"] == kept[-1]

    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda batch: (watched(), step(batch))[1])
    trainer.fit()
    assert kept == [0] * STEPS + [STEPS] * STEPS + [2 * STEPS] * STEPS


def test_other_epochs_to_validate_are_those_that_are_to_come(make: Callable[..., Trainer]) -> None:
    trainer = make(run=Run(workers=0, epochs=4, validate_every=4))
    trainer.fit(max_steps=2 * STEPS + 1)
    trainer.close()
    again = make(run=Run(workers=0, epochs=4))
    again.fit()
    lines = [line["step"] for line in metrics(again.folder) if "valid" in line]
    assert lines == [3 * STEPS, 4 * STEPS]


def test_fewer_epochs_change_no_validation_of_later_ones(make: Callable[..., Trainer]) -> None:
    trainer = make(run=Run(workers=0, epochs=4))
    trainer.fit(max_steps=STEPS + 1)
    trainer.close()
    shorter = make(run=Run(workers=0, epochs=1))
    shorter.fit()
    assert shorter.validated == 1
    shorter.close()
    longer = make(run=Run(workers=0, epochs=2))
    longer.fit()
    lines = [line["step"] for line in metrics(longer.folder) if "valid" in line]
    assert lines == [STEPS, 2 * STEPS]


def test_a_cooldown_beyond_the_last_epoch_is_refused(make: Callable[..., Trainer]) -> None:
    with pytest.raises(ConfigError, match=r"2 epochs of 3 steps end before step 7"):
        make(optim=Optim(cooldown=(1, 2 * STEPS + 1)), run=Run(workers=0, epochs=2))


def test_a_deadline_stops_between_two_steps(make: Callable[..., Trainer]) -> None:
    trainer = make()
    assert trainer.fit(deadline=time.monotonic())
    assert trainer.step == 1
    trainer.close()
    assert make().step == 1


def test_validation_scores_what_the_average_makes_of_the_noisy(
    make: Callable[..., Trainer],
) -> None:
    trainer = make(run=Run(workers=0, epochs=1))
    trainer.fit()
    assert len(trainer.pool.validated) == len(trainer.valid_set) == 2
    for index, scored in enumerate(trainer.pool.validated):
        noisy = trainer.valid_set[0, index]["noisy"]
        expected = trainer.learner.ema.model.enhance(noisy[None])[0]
        np.testing.assert_array_equal(scored, expected.numpy())
        assert not torch.equal(expected, trainer.learner.model.enhance(noisy[None])[0])


def test_the_best_is_kept_when_a_later_epoch_is_worse(make: Callable[..., Trainer]) -> None:
    trainer = make(run=Run(workers=0, epochs=3))
    trainer.pool.pesq = [2.0, 2.2, 3.0, 2.8, 2.5, 2.5]  # two utterances an epoch
    trainer.fit()
    best, last = (checkpointed(trainer.folder, f"{name}.pt")["values"] for name in ("best", "last"))
    assert (best["step"], best["best"]) == (2 * STEPS, pytest.approx(2.9))
    assert (last["step"], last["best"]) == (3 * STEPS, pytest.approx(2.9))
    assert last["epochs"] == 3
    assert last["held_out"] == trainer.valid_set.speakers()


def test_epochs_have_orders_and_crops_of_their_own(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    seen: list[tuple[list[str], Tensor]] = []
    step = trainer.train_step

    def watched(batch: dict[str, Any]) -> dict[str, Tensor]:
        seen.append((batch["name"], batch["noisy"]))
        return step(batch)

    monkeypatch.setattr(trainer, "train_step", watched)
    trainer.fit()
    orders = [[name for names, _ in seen[i : i + STEPS] for name in names] for i in (0, STEPS)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    crops = [{n: x for names, xs in seen[i : i + STEPS] for n, x in zip(names, xs, strict=True)}
             for i in (0, STEPS)]  # fmt: skip
    assert any(not torch.equal(crops[0][name], crops[1][name]) for name in crops[0])


def test_a_signal_does_not_hit_the_save(
    make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    save = trainer._save

    def interrupted(**how: bool) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(**how)

    monkeypatch.setattr(trainer, "_save", interrupted)
    assert trainer.fit(max_steps=2)
    assert checkpointed(trainer.folder)["values"]["step"] in (0, 1)


# What must not be written


def test_a_value_that_is_no_number_is_null_in_the_log(make: Callable[..., Trainer]) -> None:
    trainer = make()
    values = {"pesq": math.nan, "grad_norm": math.inf, "loss": 0.5}
    trainer.runlog.record(1, 0, train=values)
    assert metrics(trainer.folder) == [
        {"step": 1, "epoch": 0, "train": {"pesq": None, "grad_norm": None, "loss": 0.5}}
    ]
