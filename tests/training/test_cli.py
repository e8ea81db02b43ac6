"""The command line of `train.py`, called as a function: flags, refusals and the run folder."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from recordings import put_pairs
from saved_runs import assert_same_state, change, load

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from bsbimamba.training import cli, precision
from bsbimamba.training.config import diff, flatten
from bsbimamba.utils import hold

# One step of a narrow network. Without a fall of the rate at its end, a run goes on with more steps
# from its last one.
QUICK = [
    *("--steps", "1", "--workers", "0", "--batch-size", "2", "--crop", "0.5"),
    *("--optim.fall=0", "--model.channels=16"),
]
Refused = Callable[..., str]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Return the command line of such a run on pairs of four speakers."""
    put_pairs(tmp_path / "train", [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)])
    return ["--data", str(tmp_path), "--run", str(tmp_path / "run"), *QUICK]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return its folder, which is not there yet."""
    return tmp_path / "run"


def train(*options: str) -> None:
    cli.main(MBSNet, CONFIG, PRESETS, options)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return a function that returns the message with which `train.py` ends with a status."""

    def message(*options: str, status: int = 2) -> str:
        with pytest.raises(SystemExit) as ended:
            train(*options)
        assert ended.value.code == status
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return " ".join(errors.replace("│", " ").split())  # tyro puts its messages into a box

    return message


def step_of(run: Path) -> int:
    return load(run / "last.pt")["values"]["step"]


def config_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text("utf-8"))


# Flags


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.d-stat 8", "Perhaps you meant: --model.d-state"),
        ("--recipe metrik", "invalid choice 'metrik'"),
        ("--preset uniform32", "invalid choice 'uniform32'"),
        ("--batch-size 0", "data.batch_size is 0, expected 1 to"),
        ("--optim.learning-rate nan", "optim.learning_rate is nan, expected"),
        ("--loss.phase 0 --loss.complex 0 --loss.magnitude 0 --loss.time 0", "must be above 0"),
        ("--data.snr-db 5 0", "lowest and a highest value"),
        ("--model.hidden 1 2", "Expected 3 values"),
        ("--model.d-state 0", "model.d_state is 0, expected 1 to"),
        ("--sample --data here", "not allowed together"),
        ("--epoch 3", "Unrecognized options"),
    ],
)
def test_wrong_flag_gets_a_message(words: str, message: str, refused: Refused) -> None:
    assert message in refused(*words.split())


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--model.d-state 8", "model.d_state", 8),
        ("--model.use-checkpoint full", "model.use_checkpoint", "full"),
        ("--model.hidden 8 9 10", "model.hidden", (8, 9, 10)),
        ("--optim.learning-rate 1e-3", "optim.learning_rate", 1e-3),
        ("--recipe bsrnn --loss.phase 0.5", "loss.phase", 0.5),
        ("--recipe metric", "loss.metric", 0.05),
        ("--preset uniform31", "model.hidden", (31, 31, 31)),
        ("--preset uniform31", "name", "uniform31"),
        ("--data.snr-db 0 20", "data.snr_db", (0.0, 20.0)),
        ("--data.validation-speakers p1 p2", "data.validation_speakers", ("p1", "p2")),
        ("--run.no-packed", "run.packed", False),
        ("--mix a b", "data.noise", str(Path("b").absolute())),
    ],
)
def test_flags_set_what_they_name_and_nothing_else(words: str, name: str, value: object) -> None:
    got = cli.parse(MBSNet, CONFIG, PRESETS, words.split())[1].config
    assert flatten(got)[name] == value
    assert type(flatten(got)[name]) is type(value)
    plain = cli.parse(MBSNet, CONFIG, PRESETS, [])[1].config
    if words.split()[0] not in ("--recipe", "--preset", "--mix"):
        assert set(diff(plain, got)) == {name}


# A run goes on, or not


def test_run_may_go_on_with_other_settings_that_change_no_result(
    run: Path, options: list[str]
) -> None:
    """As the advice for a lack of memory has it; a setting at its default is no other setting."""
    train(*options)
    train(*options, "--model.use-checkpoint=full", "--model.expand=2", "--steps", "2")
    whole = run.with_name("whole")
    train(*options, "--run", str(whole), "--run.validate_every=1", "--steps", "2")
    assert_same_state(run, whole)
    content = config_of(run)
    assert content["network"] == "abl3.mbs_net:MBSNet"
    assert content["difference_from_base"]["data.crop_seconds"] == [2.0, 0.5]
    assert [session["first_step"] for session in content["sessions"]] == [0, 1]


def test_run_may_go_on_in_another_precision(
    run: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda amp: True)  # every CPU can, without an LSTM
    for step, amp in enumerate(["off", "fp16", "bf16"], start=1):
        train(*options, "--amp", amp, "--steps", str(step))
        assert step_of(run) == step
        assert ("factor" in load(run / "last.pt")["optimizer"]) is (amp == "fp16")


@pytest.mark.parametrize(
    ("changed", "flags", "message"),
    [
        ({"optimizer": {"unknown": torch.zeros(3)}}, [], "does not fit this version"),
        ({"network": "abl1.mbs_net:MBSNet"}, [], "abl1.mbs_net:MBSNet, not abl3.mbs_net:MBSNet"),
        ({"data": "others"}, [], "was trained on other files than are named now"),
        ({}, ["--loss.phase=0.1"], "loss.phase: 0.3 there, 0.1 now"),
    ],
)
def test_run_of_something_else_is_not_continued(
    changed: dict, flags: list[str], message: str, run: Path, options: list[str], refused: Refused
) -> None:
    train(*options)
    change(run / "last.pt", **changed)
    before = (run / "last.pt").read_bytes()
    assert message in refused(*options, *flags)
    assert (run / "last.pt").read_bytes() == before


def test_run_folder_in_use_is_refused(run: Path, options: list[str], refused: Refused) -> None:
    run.mkdir()
    lock = hold(run)
    for flags in ([], ["--fresh"]):
        assert "is in use by another process" in refused(*options, *flags)
    lock.release()
    train(*options)


def test_bad_file_is_named_and_left_out_on_request(
    run: Path, options: list[str], refused: Refused
) -> None:
    (run.parent / "train" / "noisy" / "s1_1.wav").write_text("not audio")
    (run.parent / "train" / "clean" / "s2_2.wav").unlink()
    message = refused(*options)
    for part in ("s1_1.wav: cannot be decoded", "s2_2.wav: has no clean file", "--skip-bad"):
        assert part in message
    assert not run.exists()
    train(*options, "--skip-bad")
    assert step_of(run) == 1


def test_refused_command_makes_and_clears_no_run(
    run: Path, options: list[str], refused: Refused
) -> None:
    wrong = ["--batch-size", "20"]
    assert "do not fill one batch of 20; use a smaller" in refused(*options, *wrong)
    assert not run.exists()
    train(*options)
    before = (run / "last.pt").read_bytes()
    refused(*options, *wrong, "--fresh")
    assert (run / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_fresh_clears_no_folder_of_something_else(
    content: str | None, run: Path, options: list[str], refused: Refused
) -> None:
    run.mkdir()
    (run / "best.pt").write_text("mine")
    if content is not None:
        (run / "config.json").write_text(content)
    assert str(run) in refused(*options, "--fresh")
    assert (run / "best.pt").read_text() == "mine"


def test_fresh_begins_again_at_its_first_start_and_keeps_other_files(
    run: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*options, "--steps", "2")
    (run / "notes.txt").write_text("mine")
    for restarts, steps, sessions in (("1", 3, 2), ("0", 1, 1)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        train(*options, "--fresh", "--steps", str(steps))
        assert step_of(run) == steps
        assert len(config_of(run)["sessions"]) == sessions
    assert (run / "notes.txt").read_text() == "mine"


# What fails in a step


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "--batch-size"),
        (torch.OutOfMemoryError("CUDA out of memory"), "--batch-size"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (RuntimeError("the words: out of memory"), None),
    ],
)
def test_failure_gets_a_message_only_where_the_user_can_act(
    error: Exception,
    message: str | None,
    options: list[str],
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli.Trainer, "train_step", Mock(side_effect=error))
    if message:
        assert message in refused(*options, status=1)
    else:
        with pytest.raises(type(error)):
            train(*options)
