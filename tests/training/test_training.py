"""Real runs of `train.py`: they train, resume exactly, and survive what happens to real runs.

The narrow network saves after every step and has three steps an epoch. Its rate does not fall, so
that it may be told to end at any step.
"""

import copy
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from fake_pool import batch_of
from saved_runs import assert_same_state, load, metrics

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from baseline.bsrnn import BSRNN
from bsbimamba.network.net import loudness
from bsbimamba.network.stft import stft
from bsbimamba.training.checkpoint import CheckpointError
from bsbimamba.training.config import BASE, RECIPES, override
from bsbimamba.training.loop import Trainer
from bsbimamba.training.losses import TERMS
from bsbimamba.training.precision import can_do

FOLDERS = ("baseline", "abl1", "abl2", "abl3")
QUICK = [
    *("--batch-size", "2", "--crop", "0.5", "--run.log_every=1", "--run.validate_every=3"),
    *("--optim.ema_decay=0.9", "--loss.metric=0.05", "--data.validation_seconds=1"),
]
NARROW = [
    *("--model.channels=16", "--workers", "1", "--run.save_minutes=0", "--run.pesq_workers=1"),
    *("--optim.epochs=400", "--optim.fall=0"),
]


def command(corpus: Path, run: Path, *options: str) -> list[str]:
    words = [sys.executable, "train.py", "--data", str(corpus), "--run", str(run)]
    return [*words, *QUICK, *options]


def train(folder: str, corpus: Path, run: Path, *options: str, status: int = 0) -> str:
    """Call train.py as a user does, in that folder; return what it says."""
    words = command(corpus, run, *options)
    result = subprocess.run(
        words, cwd=ROOT / folder, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def step_of(run: Path) -> int:
    with suppress(CheckpointError):  # none yet, or just being replaced
        return load(run / "last.pt")["values"]["step"]
    return 0


@contextmanager
def background(corpus: Path, run: Path) -> Iterator[subprocess.Popen[str]]:
    """A narrow abl1 in a process group of its own, once it has taken and saved two steps."""
    until, deadline = step_of(run) + 2, time.monotonic() + 240
    log, words = run.with_name(f"{run.name}.log"), command(corpus, run, *NARROW)
    with log.open("w") as file:
        process = subprocess.Popen(
            words, cwd=ROOT / "abl1", stderr=file, text=True, start_new_session=True
        )
    try:
        while step_of(run) < until:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def assert_as_undisturbed(corpus: Path, run: Path) -> None:
    """After one more step the state is that of a run that nothing happened to."""
    steps, whole = ["--steps", str(step_of(run) + 1)], run.with_name("whole")
    for folder in (run, whole):
        train("abl1", corpus, folder, *NARROW, *steps)
    assert_same_state(whole, run)


# Each network by each recipe


@pytest.mark.parametrize("folder", FOLDERS)
def test_four_steps_are_one_and_three(folder: str, tiny_corpus: Path, tmp_path: Path) -> None:
    """Bit for bit, across an epoch's end (3 steps), a validation and the rate's fall.

    The uninterrupted run loads its data itself, the interrupted one in a worker process.
    """
    amp = "bf16" if folder == "abl3" and can_do("bf16") else "auto"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--steps", "4", "--amp", amp, "--model.channels=16", "--workers"]
    train(folder, tiny_corpus, whole, *options, "0")
    train(folder, tiny_corpus, parts, *options, "1", "--minutes", "1e-9", status=75)
    assert step_of(parts) == 1
    train(folder, tiny_corpus, parts, *options, "1")
    assert_same_state(whole, parts)
    assert metrics(whole) == metrics(parts)
    assert [line["step"] for line in metrics(whole)] == [1, 2, 3, 3, 4, 4]
    for line in metrics(whole):
        values = line.get("train", line.get("valid"))
        assert all(torch.isfinite(torch.tensor(v)) for v in values.values()), line
    # Of two crops; one that is mostly silence has no PESQ.
    assert metrics(whole)[1]["train"]["labelled"] in (1, 2)
    assert (whole / "best.pt").is_file()
    assert len(list((whole / "samples").glob("*.wav"))) == 6


@pytest.mark.parametrize("network", [BSRNN, MBSNet1, MBSNet2, MBSNet3])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_network_trains_by_every_recipe(
    recipe: str, network: type, make: Callable[..., Trainer]
) -> None:
    config = override(BASE, RECIPES[recipe])
    optim, model = replace(config.optim, warmup_steps=0), {"num_layers": 1, "channels": 12}
    trainer = make("run", network, model=model, loss=config.loss, optim=optim)
    trainer.step = trainer.schedule.metric_from
    before = [p.detach().clone() for p in trainer.learner.model.parameters()]
    for _ in range(2):  # the second one teaches the discriminator too
        values = trainer.train_step(batch_of(trainer)).values
    terms = {name for name in (*TERMS, "metric") if getattr(config.loss, name)}
    assert values.keys() & {*TERMS, "metric"} == terms
    assert ("discriminator" in values) == (recipe != "default")
    for old, new in zip(before, trainer.learner.model.parameters(), strict=True):
        assert new.isfinite().all()
        assert not old.equal(new)


def test_bsrnn_loss_is_the_public_one(make: Callable[..., Trainer]) -> None:
    """Written from the source's equations, in float64, beside the loss of one step.

    L1 on magnitudes to the power 0.3, half of it, and half of the moduli of the uncompressed
    complex spectra's differences.
    """
    trainer = make(loss=override(BASE, RECIPES["bsrnn"]).loss)
    batch = batch_of(trainer)
    clean, noisy = (batch[side] / loudness(batch["noisy"]) for side in ("clean", "noisy"))
    with torch.no_grad():
        enhanced = copy.deepcopy(trainer.learner.model).train()(noisy)[1].to(torch.complex128)
    target = stft(clean.double())
    magnitudes = (enhanced.abs() ** 0.3 - target.abs() ** 0.3).abs().mean()
    moduli = (enhanced - target).abs().mean()
    values = trainer.train_step(batch).values
    assert values["loss"] == pytest.approx(float(0.5 * magnitudes + 0.5 * moduli), rel=1e-3)


# What happens to real runs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_the_run_goes_on(number: int, tiny_corpus: Path, tmp_path: Path) -> None:
    """To the whole group, as a terminal or scheduler sends it; the workers are of that group."""
    run = tmp_path / "run"
    with background(tiny_corpus, run) as process:
        os.killpg(process.pid, number)
        assert process.wait(timeout=120) == 75
    if number == signal.SIGTERM:
        assert_as_undisturbed(tiny_corpus, run)


@pytest.mark.slow
def test_killed_run_loses_no_checkpoint(tiny_corpus: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(0)
    for _ in range(5):
        with background(tiny_corpus, run):
            time.sleep(rng.uniform(0, 0.5))
        for path in (run / "last.pt", run / "previous.pt"):
            load(path)  # none of them is ever torn
    assert_as_undisturbed(tiny_corpus, run)
    assert not any(run.glob(".*.partial"))
