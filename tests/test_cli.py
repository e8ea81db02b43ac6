"""The command line of `train.py`: what it makes of its flags, and what a wrong one is told."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from commands import NARROW, QUICK, refused
from recordings import put, put_pairs
from saved_runs import assert_same_state

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from training import cli, precision
from training.config import diff, flatten
from training.logging import CONFIG as CONFIG_FILE


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pairs of four speakers."""
    put_pairs(tmp_path / "train", [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)])
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model.d-stat 8", "Perhaps you meant: --model.d-state"),
        ("--recipe metrik", "unknown name 'metrik'; did you mean metric?"),
        ("--preset uniform32", "unknown name 'uniform32'; did you mean uniform31?"),
        ("--batch-size 0", "data.batch_size is 0, expected 1 to"),
        ("--batch-size many", "invalid literal for int"),
        ("--crop 0.1", "data.crop_seconds is 0.1, expected 0.25 to 600"),
        ("--epochs 0", "optim.epochs is 0, expected 1 to"),
        ("--epochs 99999999999999999999", "expected 1 to 1e+06"),
        ("--minutes 0", "--minutes is 0.0, expected more than 0"),
        ("--minutes nan", "--minutes is nan, expected more than 0"),
        ("--optim.fall 1.5", "optim.fall is 1.5, expected 0 to 1"),
        ("--optim.warmup-steps -1", "optim.warmup_steps is -1, expected 0 to"),
        ("--optim.algorithm sgd", "invalid choice"),
        ("--optim.learning-rate nan", "optim.learning_rate is nan, expected"),
        ("--workers -1", "run.workers is -1, expected 0 to 256"),
        ("--accumulate 0", "run.accumulate is 0, expected 1 to"),
        ("--loss.phase -0.1", "loss.phase is -0.1, expected at least 0"),
        ("--loss.phase 0 --loss.complex 0 --loss.magnitude 0 --loss.time 0", "must be above 0"),
        ("--data.snr-db 5 0", "lowest and a highest value"),
        ("--data.snr-db 5", "Expected 2 values"),
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
def test_a_wrong_flag_is_told_what_is_expected(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *words.split())


def test_a_device_that_is_not_there(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    run = corpus / "run"
    message = refused(capsys, "--data", corpus, "--run", run, "--device", "cuda", *QUICK, *NARROW)
    assert "--device cuda: PyTorch sees no CUDA device here" in message


def test_no_data_set_is_told_three_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--data", tmp_path / "nowhere", *QUICK)
    assert message.startswith(f"train.py: no data set at {tmp_path / 'nowhere'}")
    assert all(way in message for way in ("--sample", "--data ROOT", "--mix CLEAN NOISE"))


def test_a_bad_file_is_named_and_left_out_on_request(
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


def test_too_little_data_for_a_batch(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*QUICK, *NARROW, "--batch-size", "20"]
    message = refused(capsys, "--data", corpus, "--run", corpus / "run", *options)
    assert not (corpus / "run").exists()
    assert "do not fill one batch of 20; use a smaller --batch-size" in message


def test_mixing_trains_and_a_preset_names_its_network(tmp_path: Path) -> None:
    for speaker in range(4):
        put(tmp_path / "speech" / f"s{speaker}_1.wav", 0.4, speaker)
        put(tmp_path / "noise" / f"{speaker}.wav", 1, 100 + speaker)
    folders = [str(tmp_path / "speech"), str(tmp_path / "noise")]
    run = tmp_path / "run"
    options = ["--mix", *folders, "--run", str(run), "--preset", "uniform31", "--recipe", "metric"]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, *QUICK, *NARROW])
    written = json.loads((run / CONFIG_FILE).read_text("utf-8"))["config"]
    assert written["name"] == "uniform31"
    assert written["model.hidden"] == [31, 31, 31]
    assert written["recipe"] == "metric"
    assert written["loss.metric"] == 0.05
    assert [written["data.clean"], written["data.noise"]] == folders


def test_a_setting_given_at_its_default_is_the_same_setting(corpus: Path) -> None:
    folders = ["--data", str(corpus), "--run", str(corpus / "run")]
    options = [*folders, *QUICK, *NARROW, "--run.validate_every=1"]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--model.expand=2", "--steps", "2"])
    assert torch.load(corpus / "run" / "last.pt", weights_only=True)["values"]["step"] == 2


def test_precision_may_change_in_the_middle_of_a_run(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda amp: True)  # every CPU can, without an LSTM
    for step, amp in enumerate(["off", "fp16", "bf16", "fp16"], start=1):
        options = ["--data", str(corpus), "--run", str(corpus / "run"), "--amp", amp]
        cli.main(MBSNet, CONFIG, PRESETS, [*options, *QUICK, *NARROW, "--steps", str(step)])
        state = torch.load(corpus / "run" / "last.pt", weights_only=True)
        assert state["values"]["step"] == step
        assert bool(state["scaler"]) is (amp == "fp16")


def test_what_is_kept_may_change_in_the_middle_of_a_run(corpus: Path) -> None:
    """As the advice for a lack of memory has it; what is learnt stays the same."""
    folders = ["--data", str(corpus), "--run", str(corpus / "run")]
    options = [*folders, *QUICK, *NARROW, "--run.validate_every=1"]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--model.use-checkpoint", "full", "--steps", "2"])
    options[3] = str(corpus / "whole")
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--steps", "2"])
    assert_same_state(corpus / "run", corpus / "whole")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_tells_what_needs_less(
    error: Exception,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli.Trainer, "train_step", fail)
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    message = refused(capsys, *options, status=1)
    assert "out of memory" in message
    assert "--batch-size" in message


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the words: out of memory"),
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/kernel.so"),
    ],
)
def test_training_error_that_is_not_the_users_keeps_its_traceback(
    error: Exception, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(cli.Trainer, "train_step", fail)
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    with pytest.raises(type(error)) as raised:
        cli.main(MBSNet, CONFIG, PRESETS, [str(option) for option in options])
    assert raised.value is error


@pytest.mark.parametrize("name", [None, "run/metrics.jsonl"])
def test_training_names_a_run_folder_that_cannot_be_written(
    name: str | None,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk, where an open file has no name, and a file that may no longer be written."""
    path = str(corpus / name) if name else None

    def fail(*arguments: object) -> None:
        raise OSError(errno.EACCES if path else errno.ENOSPC, "told by the system", path)

    monkeypatch.setattr(cli.Trainer, "train_step", fail)
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    message = refused(capsys, *options, status=1)
    assert f"train.py: {path or corpus / 'run'}: told by the system" in message


def test_a_loop_of_links_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert "no data set at" in refused(capsys, "--data", tmp_path / "one", *QUICK)


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
