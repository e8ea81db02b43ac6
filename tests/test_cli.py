"""The command line of `train.py`: its flags, the messages for wrong ones, and the run folder."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import put, put_pairs
from saved_runs import assert_same_state, change, load

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from bsbimamba.training import cli, precision
from bsbimamba.training.config import diff, flatten

QUICK = ["--steps", "1", "--workers", "0", "--batch-size", "2", "--crop", "0.5"]
# Without a fall of the rate at its end, a run goes on with more steps from its last one.
NARROW = ["--optim.fall=0", "--model.channels=16"]

CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pairs of four speakers."""
    put_pairs(tmp_path / "train", [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)])
    return tmp_path


@pytest.fixture
def options(corpus: Path) -> list[str]:
    """Of one step of a narrow network."""
    return ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """Return the message with which `train.py` ends with that status."""
    with pytest.raises(SystemExit) as ended:
        cli.main(MBSNet, CONFIG, PRESETS, [str(argument) for argument in arguments])
    assert ended.value.code == status
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return " ".join(errors.replace("│", " ").split())  # tyro puts its messages into a box


def train(*options: str) -> None:
    cli.main(MBSNet, CONFIG, PRESETS, list(options))


def config_file(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text("utf-8"))


def fail_in_a_step(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli.Trainer, "train_step", fail)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.d-stat 8", "Perhaps you meant: --model.d-state"),
        ("--recipe metrik", "unknown name 'metrik'; did you mean metric?"),
        ("--preset uniform32", "unknown name 'uniform32'; did you mean uniform31?"),
        ("--batch-size 0", "data.batch_size is 0, expected 1 to"),
        ("--crop 0.1", "data.crop_seconds is 0.1, expected 0.25 to 600"),
        ("--epochs 0", "optim.epochs is 0, expected 1 to"),
        ("--minutes 0", "--minutes is 0.0, expected more than 0"),
        ("--optim.algorithm sgd", "invalid choice"),
        ("--optim.learning-rate nan", "optim.learning_rate is nan, expected"),
        ("--workers -1", "run.workers is -1, expected 0 to 256"),
        ("--loss.phase -0.1", "loss.phase is -0.1, expected at least 0"),
        ("--loss.phase 0 --loss.complex 0 --loss.magnitude 0 --loss.time 0", "must be above 0"),
        ("--data.snr-db 5 0", "lowest and a highest value"),
        ("--seed -1", "seed must be at least 0"),
        ("--model.channels 99999999", "model.channels is 99999999, expected 1 to 65536"),
        ("--model.hidden 1 2", "Expected 3 values"),
        ("--amp bf17", "invalid choice"),
        ("--sample --data here", "not allowed together"),
        ("--mix clean", "--mix"),
        ("--epoch 3", "Unrecognized options"),
        ("--data.root /", "Unrecognized options"),
    ],
)
def test_wrong_flag_gets_a_message(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *words.split())


def test_bad_file_is_named_and_left_out_on_request(
    corpus: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (corpus / "train" / "noisy" / "s1_1.wav").write_text("not audio")
    (corpus / "train" / "clean" / "s2_2.wav").unlink()
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    message = refused(capsys, *options)
    assert "s1_1.wav: cannot be decoded" in message
    assert "s2_2.wav: has no clean file of that name" in message
    assert "--skip-bad" in message
    assert not (corpus / "run").exists()
    cli.main(MBSNet, CONFIG, PRESETS, [str(o) for o in (*options, "--skip-bad")])
    assert any("s1_1.wav: cannot be decoded" in text for text in caplog.messages)
    assert (corpus / "run" / "last.pt").is_file()


def test_mixing_trains_and_a_preset_names_its_network(tmp_path: Path) -> None:
    for speaker in range(4):
        put(tmp_path / "speech" / f"s{speaker}_1.wav", 0.4, speaker)
        put(tmp_path / "noise" / f"{speaker}.wav", 1, 100 + speaker)
    folders = [str(tmp_path / "speech"), str(tmp_path / "noise")]
    run = tmp_path / "run"
    options = ["--mix", *folders, "--run", str(run), "--preset", "uniform31", "--recipe", "metric"]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, *QUICK, *NARROW])
    written = config_file(run)["config"]
    assert written["name"] == "uniform31"
    assert written["model.hidden"] == [31, 31, 31]
    assert written["recipe"] == "metric"
    assert written["loss.metric"] == 0.05
    assert [written["data.clean"], written["data.noise"]] == folders


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--model.d-state 8", "model.d_state", 8),
        ("--model.use-checkpoint full", "model.use_checkpoint", "full"),
        ("--model.use-checkpoint False", "model.use_checkpoint", False),
        ("--model.hidden 8 9 10", "model.hidden", (8, 9, 10)),
        ("--optim.learning-rate 1e-3", "optim.learning_rate", 1e-3),
        ("--recipe bsrnn --loss.phase 0.5", "loss.phase", 0.5),
        ("--recipe bsrnn", "loss.phase", 0.0),
        ("--preset uniform31", "model.hidden", (31, 31, 31)),
        ("--data.snr-db 0 20", "data.snr_db", (0.0, 20.0)),
        ("--data.validation-speakers p1 p2", "data.validation_speakers", ("p1", "p2")),
        ("--run.no-packed", "run.packed", False),
        ("--amp off", "run.amp", "off"),
        ("--steps 7", "optim.steps", 7),
        ("--seed 5", "seed", 5),
        ("--mix a b", "data.clean", str(Path("a").absolute())),
    ],
)
def test_flags_set_what_they_name_and_nothing_else(words: str, name: str, value: object) -> None:
    got = cli.parse(MBSNet, CONFIG, PRESETS, words.split())[1].config
    assert flatten(got)[name] == value
    assert type(flatten(got)[name]) is type(value)
    plain = cli.parse(MBSNet, CONFIG, PRESETS, [])[1].config
    if words.count("--") == 1 and words.split()[0] not in ("--recipe", "--preset", "--mix"):
        assert set(diff(plain, got)) == {name}


# A run goes on, or not


def test_run_may_go_on_with_other_settings_that_change_no_result(
    corpus: Path, options: list[str]
) -> None:
    """As the advice for a lack of memory has it; a setting at its default is no other setting."""
    options = [*options, "--run.validate_every=1"]
    train(*options)
    train(*options, "--model.use-checkpoint=full", "--model.expand=2", "--steps", "2")
    options[3] = str(corpus / "whole")
    train(*options, "--steps", "2")
    assert_same_state(corpus / "run", corpus / "whole")


def test_run_may_go_on_in_another_precision(
    corpus: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda amp: True)  # every CPU can, without an LSTM
    for step, amp in enumerate(["off", "fp16", "bf16", "fp16"], start=1):
        train(*options, "--amp", amp, "--steps", str(step))
        state = load(corpus / "run" / "last.pt")
        assert state["values"]["step"] == step
        assert bool(state["scaler"]) is (amp == "fp16")


def test_other_files_are_another_run(
    corpus: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(*options)
    put_pairs(corpus / "train", ["s9_1.wav"])
    message = refused(capsys, *options, "--steps", "2")
    assert "was trained on other files than are named now" in message


@pytest.mark.parametrize("name", ["model", "ema", "optimizer", "discriminator", "values"])
def test_checkpoint_of_another_make_is_not_continued(
    name: str, corpus: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(*options)
    last = corpus / "run" / "last.pt"
    change(last, **{name: {"unknown": torch.zeros(3)}})
    assert f"{last} does not fit this version's network" in refused(capsys, *options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--batch-size", "20"], "do not fill one batch of 20; use a smaller --batch-size"),
        pytest.param(
            ["--device", "cuda"], "--device cuda: PyTorch sees no CUDA device here", marks=CUDA
        ),
    ],
)
def test_refused_command_clears_no_run(
    wrong: list[str],
    message: str,
    corpus: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(capsys, *options, *wrong)
    assert not (corpus / "run").exists()
    train(*options)
    before = (corpus / "run" / "last.pt").read_bytes()
    refused(capsys, *options, "--fresh", *wrong)
    assert (corpus / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_fresh_clears_no_folder_of_something_else(
    content: str | None, corpus: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "run"
    run.mkdir()
    (run / "best.pt").write_text("mine")
    if content is not None:
        (run / "config.json").write_text(content)
    assert "it may be somebody else's" in refused(capsys, *options, "--fresh")
    assert (run / "best.pt").read_text() == "mine"


def test_fresh_begins_again_at_its_first_start_and_keeps_other_files(
    corpus: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(*options, "--steps", "2")
    (corpus / "run" / "notes.txt").write_text("mine")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(*options, "--fresh", "--steps", "3")
    assert load(corpus / "run" / "last.pt")["values"]["step"] == 3
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    train(*options, "--fresh")
    assert load(corpus / "run" / "last.pt")["values"]["step"] == 1
    assert len(config_file(corpus / "run")["sessions"]) == 1
    assert (corpus / "run" / "notes.txt").read_text() == "mine"


# What fails


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_names_settings_that_need_less(
    error: Exception,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_in_a_step(monkeypatch, error)
    message = refused(capsys, *options, status=1)
    assert "out of memory" in message
    assert "--batch-size" in message


def test_full_disk_gets_a_message(
    corpus: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_in_a_step(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    message = refused(capsys, *options, status=1)
    assert f"train.py: {corpus / 'run'}: No space left on device" in message


def test_run_folder_that_is_a_file_is_refused(
    corpus: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (corpus / "run").write_text("")
    assert f"{corpus / 'run'}: File exists" in refused(capsys, *options)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("the words: out of memory"), OSError(errno.EMFILE, "Too many open files")],
)
def test_error_that_is_not_the_users_keeps_its_traceback(
    error: Exception, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_in_a_step(monkeypatch, error)
    with pytest.raises(type(error)) as raised:
        train(*options)
    assert raised.value is error
