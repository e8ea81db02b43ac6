"""A resumed run equals an uninterrupted one, bit for bit, wherever it was interrupted."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from saved_runs import assert_same_state, fit_to, load, metrics
from torch import Tensor

from abl1.mbs_net import MBSNet
from bsbimamba.training.checkpoint import CheckpointError
from bsbimamba.training.config import Loss, Optim, Run
from bsbimamba.training.loop import Trainer

STEPS = 3  # an epoch
RUN = Run(workers=0, device="cpu", amp="off", log_every=1, validate_every=STEPS)

OPTIM = Optim(epochs=4, fall=0.0)


class Dropping(MBSNet):
    """A network with something random in it, besides."""

    def forward(self, noisy: Tensor, *of_recording: Tensor | None) -> tuple[Tensor, Tensor]:
        return super().forward(F.dropout(noisy, 0.2, self.training), *of_recording)


def assert_same(one: Path, other: Path, name: str = "last.pt") -> None:
    """Of two runs, a checkpoint and all that they have logged."""
    assert_same_state(one, other, name)
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize(
    ("network", "workers"),
    [
        (Dropping, (0, 0)),
        (MBSNet, (2, 0)),
        pytest.param(MBSNet, (0, 1), marks=pytest.mark.slow),
    ],
)
def test_resume_continues_bit_for_bit(
    network: type, workers: tuple[int, int], make: Callable[..., Trainer]
) -> None:
    runs = [Run(**{**vars(RUN), "workers": count}) for count in workers]
    whole = make("whole", network, run=runs[0], optim=OPTIM)
    fit_to(whole, 7)
    for stop in (1, 2, 4, 7) if sum(workers) else range(1, 8):
        part = make("part", network, run=runs[1], optim=OPTIM)
        fit_to(part, stop)
    assert_same(whole.folder, part.folder)
    assert_same(whole.folder, part.folder, "best.pt")
    dropped = [line["train"]["loss"] for line in metrics(whole.folder) if "train" in line]
    assert len(set(dropped)) == len(dropped) == 7


def test_resume_is_exact_across_the_first_use_of_the_metric_and_the_fall(
    make: Callable[..., Trainer],
) -> None:
    """And the warm-up, with a third pair to remember."""
    settings = {
        "run": RUN,
        "loss": Loss(metric=0.05, metric_from=0.4, third_pair=True),
        "optim": Optim(steps=7, warmup_steps=2, fall=0.3),
    }
    whole = make("whole", **settings)
    whole.fit()
    for stop in range(1, 9):
        part = make("part", **settings)
        fit_to(part, stop)
    assert_same(whole.folder, part.folder)
    assert_same_state(whole.folder, part.folder, "before_fall.pt")
    assert load(whole.folder / "before_fall.pt")["values"]["step"] == 5


@pytest.mark.parametrize("scored", [1, 2, 3, 4])  # noisy and enhanced of two
def test_validation_that_is_stopped_is_left_for_the_next_time(
    scored: int, make: Callable[..., Trainer]
) -> None:
    whole = make("whole", run=RUN, optim=OPTIM)
    fit_to(whole, 5)
    part = make("part", run=RUN, optim=OPTIM)
    validate, asked = part.pool.validate, []

    def counted(*arguments: Any) -> Any:
        asked.append(arguments)
        return validate(*arguments)

    part.pool.validate = counted  # type: ignore[method-assign]
    assert part.fit(lambda: len(asked) >= scored)
    values = load(part.folder / "last.pt")["values"]
    assert (values["step"], values["validated"]) == (STEPS, 0)
    assert not (part.folder / "best.pt").exists()
    part = make("part", run=RUN, optim=OPTIM)
    fit_to(part, 5)
    assert_same(whole.folder, part.folder)


class CrashError(Exception):
    """In the place of a power failure."""


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)]


@pytest.mark.parametrize("write", [4, *SLOW])
def test_resume_after_a_crash_at_any_save(
    write: int, make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after each of the files that two validations and saves between them write."""
    run = Run(**{**vars(RUN), "save_minutes": 0})
    whole = make("whole", run=run, optim=OPTIM)
    fit_to(whole, 7)
    for moment in ("before", "after"):
        part = make(moment, run=run, optim=OPTIM)
        save, count = part.checkpoints.save, []

        def failing(*arguments: Any, save: Any = save, count: Any = count, m: str = moment) -> None:
            count.append(1)
            if len(count) == write and m == "before":
                raise CrashError
            save(*arguments)
            if len(count) == write:
                raise CrashError

        monkeypatch.setattr(part.checkpoints, "save", failing)
        with pytest.raises(CrashError):
            fit_to(part, 7)
        part = make(moment, run=run, optim=OPTIM)
        fit_to(part, 7)
        assert_same(whole.folder, part.folder)
        assert_same(whole.folder, part.folder, "best.pt")


def test_log_is_cut_where_the_checkpoint_was_written(make: Callable[..., Trainer]) -> None:
    trainer = make("run", run=RUN, optim=OPTIM)
    fit_to(trainer, 2)
    log = trainer.folder / "metrics.jsonl"
    before = log.read_text()
    with log.open("a") as file:
        file.write('{"step": 3, "epoch": 0, "train": {"loss": 1.0}}\n{"step": 4, "ep')
    make("run", run=RUN, optim=OPTIM)
    assert log.read_text() == before


# Another length


def lengths(steps: int, **more: float) -> dict[str, Any]:
    """Settings of a run of so many steps, validated every third, that ends with a fall."""
    return {"run": RUN, "optim": Optim(steps=steps, warmup_steps=2, fall=0.4, **more)}


@pytest.mark.parametrize("stop", [6, 8], ids=["stopped while its rate fell", "finished"])
def test_lengthened_run_equals_the_longer_one(
    stop: int, make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    """Bit for bit: weights, averages, optimizers, the discriminator, and all that is logged."""
    caplog.set_level(logging.INFO, "training")
    whole = make("whole", **lengths(12))
    whole.fit()
    short = make("run", **lengths(8))
    fit_to(short, stop)
    short.close()
    if stop == 8:  # a damaged checkpoint is no obstacle
        (short.folder / "last.pt").write_bytes(b"torn")
    longer = make("run", **lengths(12))
    assert longer.step == load(short.folder / "before_fall.pt")["values"]["step"] == 5
    assert "what the run of 8 steps came to is kept as last-8.pt" in caplog.text
    for name in ("good.pt", "previous.pt"):  # neither is of the shorter run's fall
        assert load(longer.folder / name)["values"]["step"] == 5
    assert not longer.fit()
    assert_same(whole.folder, longer.folder)
    for name in ("before_fall.pt", "good.pt"):
        assert_same_state(whole.folder, longer.folder, name)
    if stop != 8:  # what the shorter run has come to is kept, as it was
        assert load(longer.folder / "last-8.pt")["values"]["step"] == stop


def test_run_that_has_not_begun_to_fall_takes_any_length(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "training")
    whole = make("whole", **lengths(6))
    whole.fit()
    for steps, stop in ((12, 2), (100, 4), (6, 7)):
        part = make("part", **lengths(steps))
        fit_to(part, stop)
    assert_same(whole.folder, part.folder)
    assert "is kept as" not in caplog.text


def test_lengthening_keeps_the_best_score(make: Callable[..., Trainer]) -> None:
    """`best.pt` stays that of the shorter run until a better one comes."""
    short = make("run", **lengths(8))
    short.pool.pesq = [2.0] * 4 + [2.5] * 2  # after 3, 6 and 8 steps, two utterances each
    short.fit()
    longer = make("run", **lengths(12))
    longer.pool.pesq = [2.2] * 6
    longer.fit()
    assert longer.best == pytest.approx(2.5)
    assert load(longer.folder / "best.pt")["values"]["step"] == 8


def test_length_is_refused_where_the_runs_have_no_checkpoint_in_common(
    make: Callable[..., Trainer],
) -> None:
    """And nothing is changed by that, nor where other settings differ besides."""
    trainer = make("run", **lengths(8))
    trainer.fit()
    trainer.close()
    before = {path.name: path.read_bytes() for path in trainer.folder.glob("*.pt")}
    for settings, message in (
        (lengths(7), "the same up to step 4 only"),
        (lengths(12, learning_rate=0.1), "was made with other settings"),
    ):
        with pytest.raises(CheckpointError, match=message):
            make("run", **settings)
        assert {path.name: path.read_bytes() for path in trainer.folder.glob("*.pt")} == before
    (trainer.folder / "before_fall.pt").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint from before that"):
        make("run", **lengths(20))
