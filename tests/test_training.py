"""Every train.py from inside its own folder: it trains, resumes exactly, stops when it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from saved_runs import assert_same_state, metrics

from training.precision import can_do

FOLDERS = ("baseline", "abl1", "abl2", "abl3")
QUICK = [
    *("--batch-size", "2", "--crop", "0.5"),
    *("--run.log_every=1", "--run.validate_every=3", "--optim.ema_decay=0.9"),
    "--loss.metric=0.05",
]
ONE_STEP = ["--minutes", "1e-9"]  # is over after the first step


def train(
    folder: str, corpus: Path, run: Path, *options: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """One call of train.py, as a user makes it, in that folder."""
    command = [sys.executable, "train.py", "--data", str(corpus), "--run", str(run), *QUICK]
    result = subprocess.run(
        [*command, *options], cwd=ROOT / folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == status, result.stderr
    return result


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


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_resuming_anywhere_changes_nothing(
    folder: str, workers: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    """One step at a time, whatever the workers, equals six at once."""
    options = ["--steps", "6", "--workers", workers, "--run.validate_every=6"]
    train(folder, tiny_corpus, tmp_path / "whole", *options)
    for _ in range(6):
        train(folder, tiny_corpus, tmp_path / "parts", *options, *ONE_STEP, status=75)
    train(folder, tiny_corpus, tmp_path / "parts", *options)  # the last step's validation
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


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


def test_a_run_folder_explains_itself(tiny_corpus: Path, tmp_path: Path) -> None:
    result = train("abl3", tiny_corpus, tmp_path, "--steps", "1", "--model.channels=16")
    assert "GMAC per second of audio" in result.stderr
    assert "speakers held out for validation" in result.stderr
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["network"] == "abl3.mbs_net:MBSNet"
    assert content["config"]["model.channels"] == 16
    assert content["difference_from_base"]["data.crop_seconds"] == [2.0, 0.5]
    assert content["versions"]["torch"] == torch.__version__
    assert content["facts"]["parameters"] > 10_000
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_signal_ends_the_run_after_its_step_and_the_run_goes_on(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    options = ["--model.channels=16", "--optim.fall=0", "--workers", "2"]
    command = [sys.executable, "train.py", "--data", str(tiny_corpus), "--run", str(tmp_path)]
    process = subprocess.Popen(
        [*command, *QUICK, *options],
        cwd=ROOT / "abl1",
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / "metrics.jsonl"
    while not (log.is_file() and log.read_text().count("\n") >= 2):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the workers are of that group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "Traceback" not in errors
    step = torch.load(tmp_path / "last.pt", weights_only=True)["values"]["step"]
    assert step >= 1
    train("abl1", tiny_corpus, tmp_path, "--steps", str(step + 2), *options)
    assert metrics(tmp_path)[-1]["step"] == step + 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_group_while_workers_start_is_no_fault(
    number: int, tiny_corpus: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "train.py", "--data", str(tiny_corpus), "--run", str(tmp_path)]
    process = subprocess.Popen(
        [*command, *QUICK, "--model.channels=16", "--workers", "2"],
        cwd=ROOT / "abl1",
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "at step 0" in line:
                break
        time.sleep(0.5)
        os.killpg(process.pid, number)
        errors = process.stderr.read()
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    assert torch.load(tmp_path / "last.pt", weights_only=True)["values"]["step"] <= 1


def test_another_network_or_setting_is_not_continued(tiny_corpus: Path, tmp_path: Path) -> None:
    narrow = ["--steps", "1", "--workers", "0", "--model.channels=16"]
    train("abl1", tiny_corpus, tmp_path, *narrow)
    before = (tmp_path / "last.pt").read_bytes()
    command = [sys.executable, "train.py", "--data", str(tiny_corpus), "--run", str(tmp_path)]
    for folder, options, messages in (
        ("abl2", narrow, ["abl1.mbs_net:MBSNet, not abl2.mbs_net:MBSNet", "--fresh"]),
        (
            "abl1",
            [*narrow, "--loss.phase=0.1", "--optim.learning_rate=2e-4"],
            ["loss.phase: 0.3 there, 0.1 now", "optim.learning_rate: 0.002 there, 0.0002 now"],
        ),
    ):
        result = subprocess.run(
            [*command, *QUICK, *options],
            cwd=ROOT / folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert all(message in result.stderr for message in messages), result.stderr
    assert (tmp_path / "last.pt").read_bytes() == before
    train("abl1", tiny_corpus, tmp_path, *narrow, "--loss.phase=0.1", "--fresh")


def test_paths_do_not_depend_on_the_working_directory(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "abl1" / "train.py"), "--steps", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if (ROOT / "data" / "voicebank_demand").is_dir():
        pytest.skip("data/voicebank_demand is here; the message about its absence cannot be seen")
    assert result.returncode == 2
    assert str(ROOT / "data" / "voicebank_demand") in result.stderr
    assert all(way in result.stderr for way in ("--sample", "--data ROOT", "--mix CLEAN NOISE"))
    assert "Traceback" not in result.stderr
