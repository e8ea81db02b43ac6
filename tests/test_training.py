"""Real runs of `train.py`: they train, resume exactly, and survive what happens to real runs.

The narrow network saves after every step and has three steps an epoch. Its rate does not fall, so
that it may be told to end at any step.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from saved_runs import assert_same_state, load, metrics

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
ONE_STEP = ["--minutes", "1e-9"]  # is over after the first step


def command(corpus: Path, run: Path, *options: str) -> list[str]:
    words = [sys.executable, "train.py", "--data", str(corpus), "--run", str(run)]
    return [*words, *QUICK, *options]


def train(folder: str, corpus: Path, run: Path, *options: str, status: int = 0) -> str:
    """Call train.py as a user does, in that folder; return what it says."""
    result = subprocess.run(
        command(corpus, run, *options),
        cwd=ROOT / folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@contextmanager
def background(corpus: Path, run: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A narrow abl1 in the background, in a process group of its own, about to take a step."""
    log = run.with_name(f"{run.name}.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            command(corpus, run, *NARROW, *options),
            cwd=ROOT / "abl1",
            stderr=file,
            text=True,
            start_new_session=True,
        )
    try:
        wait_until(process, lambda: "at step" in log.read_text())
        yield process
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_until(process: subprocess.Popen, happened: object) -> None:
    deadline = time.monotonic() + 240
    while not happened():  # type: ignore[operator]
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def step_of(run: Path) -> int:
    return load(run / "last.pt")["values"]["step"] if (run / "last.pt").is_file() else -1


def assert_as_undisturbed(corpus: Path, run: Path) -> str:
    """After one more step the state is that of a run that nothing happened to."""
    steps = ["--steps", str(step_of(run) + 1)]
    said = train("abl1", corpus, run, *NARROW, *steps)
    whole = run.with_name("whole")
    train("abl1", corpus, whole, *NARROW, *steps)
    assert_same_state(whole, run)
    return said


# Each network, from inside its own folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_four_steps_are_one_and_three(folder: str, tiny_corpus: Path, tmp_path: Path) -> None:
    """Bit for bit, across an epoch's end (3 steps), a validation and the rate's fall.

    Discriminator and pending labels are included.
    The uninterrupted run loads its data itself, the interrupted one in two worker processes.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(folder, tiny_corpus, whole, "--steps", "4", "--workers", "0")
    options = ["--steps", "4", "--workers", "2"]
    train(folder, tiny_corpus, parts, *options, *ONE_STEP, status=75)
    train(folder, tiny_corpus, parts, *options)
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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_resumes(
    precision: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    if not can_do(precision):
        pytest.skip(f"this CPU cannot compute in {precision}")
    options = ["--steps", "3", "--amp", precision, "--workers", "0", "--model.channels=16"]
    train("abl3", tiny_corpus, tmp_path / "whole", *options)
    train("abl3", tiny_corpus, tmp_path / "parts", *options, *ONE_STEP, status=75)
    train("abl3", tiny_corpus, tmp_path / "parts", *options)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def test_run_folder_explains_itself_and_continues_no_other_run(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    narrow = ["--steps", "1", "--workers", "0", "--model.channels=16"]
    said = train("abl1", tiny_corpus, tmp_path, *narrow)
    assert "GMAC per second of audio" in said
    assert "speakers held out for validation" in said
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["network"] == "abl1.mbs_net:MBSNet"
    assert content["config"]["model.channels"] == 16
    assert content["difference_from_base"]["data.crop_seconds"] == [2.0, 0.5]
    assert content["sessions"][0]["versions"]["torch"] == torch.__version__
    assert content["facts"]["parameters"] > 10_000
    before = (tmp_path / "last.pt").read_bytes()
    other = [*narrow, "--loss.phase=0.1", "--optim.learning_rate=2e-4"]
    said = train("abl2", tiny_corpus, tmp_path, *narrow, status=2)
    assert "abl1.mbs_net:MBSNet, not abl2.mbs_net:MBSNet" in said
    assert "--fresh" in said
    said = train("abl1", tiny_corpus, tmp_path, *other, status=2)
    assert "loss.phase: 0.3 there, 0.1 now" in said
    assert "optim.learning_rate: 0.002 there, 0.0002 now" in said
    assert (tmp_path / "last.pt").read_bytes() == before
    train("abl1", tiny_corpus, tmp_path, *other, "--fresh")


def test_default_corpus_does_not_depend_on_the_working_directory(tmp_path: Path) -> None:
    if (ROOT / "data" / "voicebank_demand").is_dir():
        pytest.skip("data/voicebank_demand is here; the message about its absence cannot be seen")
    words = [sys.executable, str(ROOT / "abl1" / "train.py"), "--steps", "1"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert str(ROOT / "data" / "voicebank_demand") in result.stderr
    assert "Traceback" not in result.stderr


# What happens to real runs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_the_run_goes_on(number: int, tiny_corpus: Path, tmp_path: Path) -> None:
    """To the whole group, as a terminal or scheduler sends it; the workers are of that group."""
    run = tmp_path / "run"
    with background(tiny_corpus, run) as process:
        if number != signal.SIGUSR1:  # that one while the workers start
            wait_until(process, lambda: step_of(run) >= 2)
        else:
            wait_until(process, lambda: step_of(run) >= 0)
        os.killpg(process.pid, number)
        assert process.wait(timeout=120) == 75
    if number == signal.SIGTERM:
        assert_as_undisturbed(tiny_corpus, run)


@pytest.mark.slow
def test_killed_run_loses_no_checkpoint(tiny_corpus: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(0)
    for _ in range(10):
        with background(tiny_corpus, run) as process:
            begun = step_of(run)
            wait_until(process, lambda begun=begun: step_of(run) > begun)
            time.sleep(rng.uniform(0, 0.5))
        for path in (run / "last.pt", run / "previous.pt"):
            if path.is_file():
                load(path)  # none of them is ever torn
    assert_as_undisturbed(tiny_corpus, run)
    assert not any(run.glob(".*.partial"))


@pytest.mark.slow
def test_second_process_in_a_run_folder_is_refused(tiny_corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with background(tiny_corpus, run) as process:
        wait_until(process, lambda: step_of(run) >= 1)
        for options in ([], ["--fresh"]):
            said = train("abl1", tiny_corpus, run, *NARROW, *options, status=2)
            assert "is in use by another process" in said
        begun = step_of(run)
        wait_until(process, lambda: step_of(run) >= begun + 2)
    assert_as_undisturbed(tiny_corpus, run)
