"""Numbers that are not finite: the step is left out, the run goes back, the run gives up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_pool import batch_of
from saved_runs import fit_to, metrics
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from baseline.bsrnn import BSRNN
from bsbimamba.training.config import Optim, Run
from bsbimamba.training.loop import Trainer
from bsbimamba.training.step import Result
from bsbimamba.utils import FailedError

STEPS = 3  # an epoch
RUN = Run(workers=0, device="cpu", amp="off", log_every=1, validate_every=STEPS)
OPTIM = Optim(epochs=4, warmup_steps=0, fall=0.0)


def poison(trainer: Trainer, bad: Callable[[int], bool]) -> list[tuple[int, float]]:
    """Put NaN into the batches of some steps, counted from 1; a list of steps and rates to come."""
    seen: list[tuple[int, float]] = []
    step = trainer.train_step

    def poisoned(batch: dict[str, Any]) -> Result:
        if bad(trainer.step + 1):
            batch["noisy"][0, 100] = torch.nan
        result = step(batch)
        rate = trainer.rate_factor * trainer.config.optim.learning_rate
        seen.append((trainer.step + 1, rate))
        return result

    trainer.train_step = poisoned  # type: ignore[method-assign]
    return seen


def weights(trainer: Trainer) -> list[Tensor]:
    """Everything that a step may move, of generator and discriminator."""
    learner = trainer.learner
    parts = (learner.model, learner.ema, learner.optimizer, learner.discriminator.optimizer)
    states = [*(part.state_dict() for part in parts), learner.discriminator.flat.tensor]
    return [x.detach().clone() for x in tree_leaves(states)]


def logged(folder: Path, kind: str) -> list[dict]:
    """The lines of a run's log that hold such values."""
    return [line for line in metrics(folder) if kind in line]


@pytest.mark.parametrize("fault", ["input", "gradient", "discriminator"])
def test_neither_network_takes_a_broken_step(fault: str, make: Callable[..., Trainer]) -> None:
    trainer = make()
    trainer.train_step(batch_of(trainer))
    before = weights(trainer)
    bad = batch_of(trainer)
    hook = None
    if fault == "input":
        bad["noisy"][1, 7] = math.inf
    elif fault == "gradient":
        hook = trainer.learner.flat.tensor.register_hook(lambda g: g * math.nan)
    else:
        hook = trainer.learner.discriminator.flat.tensor.register_hook(lambda g: g * math.nan)
    broken = trainer.train_step(bad).broken
    wanted = {
        "input": "loss",
        "gradient": "grad_norm",
        "discriminator": "discriminator_grad_norm",
    }[fault]
    assert wanted in broken
    assert not math.isfinite(broken[wanted])
    torch.testing.assert_close(weights(trainer), before, rtol=0, atol=0, equal_nan=True)
    assert not trainer.learner.discriminator.pending.waveforms.any()  # silence has no label
    if hook:
        hook.remove()
    assert not trainer.train_step(batch_of(trainer)).broken
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))


def test_skipped_step_is_counted_and_logged_with_its_files(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(run=RUN, optim=OPTIM)
    poison(trainer, lambda step: step in (2, 5))
    fit_to(trainer, 7)
    assert (trainer.health.skipped, trainer.health.in_a_row) == (2, 0)
    found = logged(trainer.folder, "skipped")
    assert [line["step"] for line in found] == [2, 5]
    assert all(len(line["names"]) == 2 for line in found)
    assert [line["skipped"]["loss"] for line in found] == [None, None]
    for line in found:
        assert f"skipped step {line['step']}: loss nan" in caplog.text
        assert ", ".join(line["names"]) in caplog.text
    assert [line["step"] for line in logged(trainer.folder, "train")] == [1, 3, 4, 6, 7]
    assert trainer.learner.flat.tensor.isfinite().all()


def test_run_rolls_back_after_some_skips_in_a_row_at_a_smaller_rate(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    optim = replace(OPTIM, skips_in_a_row=3, learning_rate=1e-3)
    trainer = make(run=RUN, optim=optim)
    # From step 5 on all is broken, until the rate is a quarter. The last state to go back to is
    # that of the validation at step 3.
    seen = poison(trainer, lambda step: step >= 5 and trainer.health.rollbacks < 2)
    fit_to(trainer, 9)
    steps = [step for step, _ in seen]
    assert steps == [1, 2, 3, *(4, 5, 6, 7) * 2, *range(4, 10)]
    rates = [rate for step, rate in seen if step == 4]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert (trainer.health.rollbacks, trainer.health.skipped) == (2, 6)
    assert caplog.text.count("back to step 3") == 2
    assert [x["rollback"] for x in logged(trainer.folder, "rollback")] == [
        {"from": 7, "rate_factor": 0.5},
        {"from": 7, "rate_factor": 0.25},
    ]
    again = make(run=RUN, optim=optim)
    assert (again.step, again.health.rollbacks, again.health.skipped) == (9, 2, 6)


@pytest.mark.parametrize("bad", [range(5, 9), pytest.param(range(6, 10), marks=pytest.mark.slow)])
def test_rollback_resumes_bit_for_bit(bad: range, make: Callable[..., Trainer]) -> None:
    """Wherever the run was stopped or saved; also where it validates amid skipped steps."""
    optim, run = replace(OPTIM, skips_in_a_row=4), replace(RUN, save_minutes=0)

    def broken(trainer: Trainer) -> Callable[[int], bool]:
        return lambda step: step in bad and trainer.health.rollbacks == 0

    whole = make("whole", run=RUN, optim=optim)
    poison(whole, broken(whole))
    fit_to(whole, 10)
    for stop in (4, 5, 6, 7, 8, 10):
        part = make("part", run=run, optim=optim)
        poison(part, broken(part))
        fit_to(part, stop)
    assert part.health == whole.health
    assert part.health.rollbacks == 1
    for run_ in (whole, part):
        found = [(x["step"], x["rollback"]["from"]) for x in logged(run_.folder, "rollback")]
        assert found == [(3, bad[-1])]
    torch.testing.assert_close(weights(whole), weights(part), rtol=0, atol=0, equal_nan=True)


def test_rollback_keeps_the_best_score(make: Callable[..., Trainer]) -> None:
    trainer = make(run=RUN, optim=replace(OPTIM, skips_in_a_row=3))
    trainer.pool.pesq = [2.0, 2.0, 2.5, 2.5, 2.2, 2.2, 2.1, 2.1]
    poison(trainer, lambda step: step in (5, 6, 7) and trainer.health.rollbacks == 0)
    fit_to(trainer, 10)
    # The run went back behind the validation that came to 2.5; best.pt is of it all the same.
    assert trainer.health.rollbacks == 1
    assert trainer.best == pytest.approx(2.5)
    assert [x["valid"]["pesq_wb"] for x in logged(trainer.folder, "valid")] == pytest.approx(
        [2.0, 2.5, 2.2, 2.1]
    )


def test_run_stops_with_a_report_after_some_rollbacks(make: Callable[..., Trainer]) -> None:
    trainer = make(run=RUN, optim=replace(OPTIM, skips_in_a_row=2, rollbacks=2))
    seen = poison(trainer, lambda step: step >= 2)
    with pytest.raises(FailedError) as raised:
        trainer.fit()
    assert [step for step, _ in seen] == [1, 2, 3] * 3
    report = str(raised.value)
    assert "6 steps were skipped" in report
    assert "the run went back 2 times" in report
    assert "--optim.learning-rate" in report
    again = make(run=RUN, optim=replace(OPTIM, skips_in_a_row=2, rollbacks=2))
    assert all(p.isfinite().all() for p in again.learner.model.parameters())


# fp16: what belongs to the scaler


def test_fp16_overflow_is_the_scalers_and_a_broken_loss_is_not(
    make: Callable[..., Trainer],
) -> None:
    trainer = make(run=replace(RUN, amp="fp16"))
    learner = trainer.learner
    scaler, other = learner.optimizer.scaler, learner.discriminator.optimizer.scaler
    hook = learner.flat.tensor.register_hook(lambda g: g * math.inf)
    trainer.train_step(batch_of(trainer))
    scale = float(scaler.factor)
    result = trainer.train_step(batch_of(trainer))
    assert not result.broken
    assert not math.isfinite(result.values["grad_norm"])
    assert float(scaler.factor) == scale / 2
    scaler.factor.fill_(1.0)  # there is nothing left to halve: it is no overflow
    result = trainer.train_step(batch_of(trainer))
    assert "grad_norm" in result.broken
    hook.remove()
    assert not trainer.train_step(batch_of(trainer)).broken
    scales = [float(s.factor) for s in (scaler, other)]
    bad = batch_of(trainer)
    bad["noisy"][0, 0] = math.nan
    assert "loss" in trainer.train_step(bad).broken
    assert scales == [float(s.factor) for s in (scaler, other)]
    assert not trainer.train_step(batch_of(trainer)).broken


# Half-precision complex numbers


class NoComplexHalf(TorchDispatchMode):
    """Fails on the first tensor of complex halves; counts tensors of half precision."""

    halves = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                assert value.dtype != torch.complex32, f"{func} made complex halves"
                self.halves += value.dtype in (torch.float16, torch.bfloat16)
        return result


@pytest.mark.parametrize("network", [BSRNN, MBSNet1, MBSNet2, MBSNet3])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_training_step_makes_no_complex_halves(
    precision: str, network: type, make: Callable[..., Trainer]
) -> None:
    model = {"num_layers": 1, "channels": 12}
    trainer = make("run", network, run=replace(RUN, amp=precision), model=model)
    with NoComplexHalf() as watching:
        for _ in range(2):  # the second one teaches the discriminator too
            trainer.train_step(batch_of(trainer))
        assert watching.halves > 100
        fit_to(trainer, STEPS + 1)  # with validation
        with pytest.raises(AssertionError, match="complex halves"):
            torch.zeros(3, dtype=torch.complex64).to(torch.complex32)
