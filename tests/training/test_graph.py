"""A step on static buffers: what it computes, when its results are read, what fits into memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from saved_runs import assert_same_state, fit_to, metrics
from test_finite import logged, poison, weights
from torch import Tensor

from bsbimamba.training.config import Loss, Optim, Run
from bsbimamba.training.loop import Trainer
from bsbimamba.utils import FailedError

STEPS = 3  # an epoch
PLAIN = Run(workers=0, device="cpu", amp="off", log_every=5, validate_every=4, compile="off")
STATIC = replace(PLAIN, compile="graph")


def test_static_buffers_give_the_plain_steps_bit_for_bit(make: Callable[..., Trainer]) -> None:
    """Twenty steps with everything that changes on the way, and results that are read late."""
    settings = {
        "loss": Loss(metric=0.05, metric_from=0.3, third_pair=True),
        "optim": Optim(steps=20, warmup_steps=3, fall=0.3),
    }
    plain, static = make("plain", run=PLAIN, **settings), make("static", run=STATIC, **settings)
    for trainer in (plain, static):
        trainer.fit()
    assert_same_state(plain.folder, static.folder)
    assert metrics(plain.folder) == metrics(static.folder)
    assert {1, 5, 10, 15, 20} <= {line["step"] for line in metrics(plain.folder)}


@pytest.mark.parametrize(("bad", "counts"), [(range(2, 3), (1, 0)), (range(5, 9), (3, 1))])
def test_late_results_skip_and_roll_back_as_early_ones(
    bad: range, counts: tuple[int, int], make: Callable[..., Trainer]
) -> None:
    optim = Optim(epochs=4, warmup_steps=0, fall=0.0, skips_in_a_row=3)
    trainers = [make(name, run=run, optim=optim) for name, run in (("a", PLAIN), ("b", STATIC))]
    for trainer in trainers:
        poison(trainer, lambda step, t=trainer: step in bad and not t.health.rollbacks)
        fit_to(trainer, 10)
    early, late = trainers
    assert early.health == late.health
    assert (early.health.skipped, early.health.rollbacks) == counts
    for kind in ("train", "skipped", "rollback", "valid"):
        assert logged(early.folder, kind) == logged(late.folder, kind)
    torch.testing.assert_close(weights(early), weights(late), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("fitting", "said"), [(1, "--accumulate 2"), (0, "a smaller --batch-size or --crop")]
)
def test_batch_that_does_not_fit_names_one_that_does(
    fitting: int, said: str, make: Callable[..., Trainer]
) -> None:
    trainer = make(run=PLAIN, loss=Loss())

    def limited(module: Any, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    trainer.learner.model.register_forward_pre_hook(limited)
    with pytest.raises(FailedError, match=f"batch of 2 x 0.5 s does not fit .*{said}"):
        trainer.fit()
