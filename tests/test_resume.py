"""An interrupted run is the uninterrupted one, wherever it was interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from saved_runs import assert_same_state, load, metrics
from torch import Tensor

from abl1.mbs_net import MBSNet
from training.config import Loss, Run
from training.trainer import Trainer

STEPS = 3  # an epoch
RUN = Run(workers=0, device="cpu", amp="off", log_every=1, epochs=4)


class Dropping(MBSNet):
    """A network with something random in it, besides."""

    def forward(self, noisy: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(F.dropout(noisy, 0.2, self.training), scale)


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
def test_step_by_step_is_all_at_once(
    network: type, workers: tuple[int, int], make: Callable[..., Trainer]
) -> None:
    runs = [Run(**{**vars(RUN), "workers": count}) for count in workers]
    whole = make("whole", network, run=runs[0])
    whole.fit(max_steps=7)
    for stop in (1, 2, 4, 7) if sum(workers) else range(1, 8):
        part = make("part", network, run=runs[1])
        part.fit(max_steps=stop)
    assert_same(whole.folder, part.folder)
    assert_same(whole.folder, part.folder, "best.pt")
    dropped = [line["train"]["loss"] for line in metrics(whole.folder) if "train" in line]
    assert len(set(dropped)) == len(dropped) == 7


def test_a_metric_that_starts_later(make: Callable[..., Trainer]) -> None:
    loss = Loss(metric_from_epoch=1)
    whole = make("whole", run=RUN, loss=loss)
    whole.fit(max_steps=7)
    for stop in range(1, 8):
        part = make("part", run=RUN, loss=loss)
        part.fit(max_steps=stop)
    assert_same(whole.folder, part.folder)


@pytest.mark.parametrize("utterance", [0, 1, 2, 3])
def test_a_signal_in_a_validation_leaves_it_for_the_next_time(
    utterance: int, make: Callable[..., Trainer]
) -> None:
    whole = make("whole", run=RUN)
    whole.fit(max_steps=5)
    part = make("part", run=RUN)
    validate, asked = part.pool.validate, []

    def interrupted(*arguments: Any) -> Any:
        if len(asked) == utterance:  # noisy and enhanced of two
            os.kill(os.getpid(), signal.SIGTERM)
        asked.append(arguments)
        return validate(*arguments)

    part.pool.validate = interrupted  # type: ignore[method-assign]
    assert part.fit()
    values = load(part.folder / "last.pt")["values"]
    assert (values["step"], values["validated"]) == (STEPS, 0)
    assert not (part.folder / "best.pt").exists()
    part = make("part", run=RUN)
    assert not part.fit(max_steps=5)
    assert_same(whole.folder, part.folder)


def test_a_signal_while_scores_are_waited_for_waits_for_no_more(
    make: Callable[..., Trainer],
) -> None:
    trainer = make("run", run=RUN)
    waited: list[int] = []

    def validate(*arguments: Any) -> Callable[[], dict[str, float]]:
        def wait() -> dict[str, float]:
            waited.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            return {"pesq_wb": 2.0, "stoi": 0.9}

        return wait

    trainer.pool.validate = validate  # type: ignore[method-assign]
    assert trainer.fit()
    assert len(waited) == 2  # of the first utterance, noisy and enhanced
    assert (trainer.step, trainer.validated) == (STEPS, 0)


class CrashError(Exception):
    """In the place of a power failure."""


SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)]


@pytest.mark.parametrize("write", [4, *SLOW])
def test_a_crash_at_any_write_of_a_checkpoint(
    write: int, make: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after each of the files that three epochs' ends and saves between them write."""
    run = Run(**{**vars(RUN), "save_minutes": 0})
    whole = make("whole", run=run)
    whole.fit(max_steps=7)
    for moment in ("before", "after"):
        part = make(moment, run=run)
        save, count = part.keeper.save, []

        def failing(*arguments: Any, save: Any = save, count: Any = count, m: str = moment) -> None:
            count.append(1)
            if len(count) == write and m == "before":
                raise CrashError
            save(*arguments)
            if len(count) == write:
                raise CrashError

        monkeypatch.setattr(part.keeper, "save", failing)
        with pytest.raises(CrashError):
            part.fit(max_steps=7)
        part = make(moment, run=run)
        part.fit(max_steps=7)
        assert_same(whole.folder, part.folder)
        assert_same(whole.folder, part.folder, "best.pt")


def test_the_log_is_cut_where_the_checkpoint_was_written(
    make: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make("run", run=RUN)
    trainer.fit(max_steps=2)
    log = trainer.folder / "metrics.jsonl"
    before = log.read_text()
    with log.open("a") as file:
        file.write('{"step": 3, "epoch": 0, "train": {"loss": 1.0}}\n{"step": 4, "ep')
    make("run", run=RUN)
    assert log.read_text() == before
    assert "changed by somebody else" not in caplog.text
    log.write_text(before[:-10])
    make("run", run=RUN)
    assert log.read_text() == before[: before.index("\n") + 1]  # whole lines only
    assert f"{log} has been changed by somebody else" in caplog.text
