"""The command line of `train.py`: what it makes of its flags, and what a wrong one is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from recordings import put, put_pairs
from saved_runs import change

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from training import cli
from training.runlog import CONFIG as CONFIG_FILE
from training.runlog import RunLog

QUICK = ["--max-steps", "1", "--workers", "0", "--batch-size", "2", "--crop", "0.5"]
NARROW = ["--set", "model.channels=16"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pairs of four speakers."""
    put_pairs(tmp_path / "train", [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)])
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """The one message with which `train.py` ends with that status."""
    with pytest.raises(SystemExit) as ended:
        cli.main(MBSNet, CONFIG, PRESETS, [str(argument) for argument in arguments])
    assert ended.value.code == status
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set model.d_stat=8", "unknown setting 'model.d_stat'; did you mean model.d_state?"),
        ("--set model.d_state", "--set takes NAME=VALUE"),
        ("--recipe plane", "unknown recipe 'plane'; did you mean plain?"),
        ("--preset uniform32", "unknown preset 'uniform32'; did you mean uniform31?"),
        ("--batch-size 0", "data.batch_size must be at least 1"),
        ("--batch-size many", "invalid int value"),
        ("--crop 0.1", "data.crop_seconds is 0.1, expected 0.25 to 600"),
        ("--epochs 0", "run.epochs must be at least 1"),
        ("--max-steps 0", "--max-steps is 0, expected at least 1"),
        ("--workers -1", "run.workers must be at least 0"),
        ("--workers 100000", "run.workers must be at least 0, at most 256"),
        ("--set run.pesq_workers=1000000000", "run.pesq_workers must be at least 0, at most 256"),
        ("--epochs 99999999999999999999", "run.epochs must be at least 1, at most a million"),
        ("--accumulate 0", "run.accumulate must be at least 1"),
        ("--set optim.skips_in_a_row=0", "optim.skips_in_a_row must be at least 1"),
        ("--set optim.rollback_decay=0.0", "optim.rollback_decay must be in (0, 1]"),
        ("--seed -1", "seed must be at least 0"),
        ("--seed 99999999999999999999", "seed must be at least 0 and below 2^63"),
        ("--set model.channels=99999999", "model.channels is 99999999, expected at least 1 and at"),
        ("--amp bf17", "invalid choice"),
        ("--synthetic --data here", "not allowed with"),
        ("--mix clean", "expected 2 arguments"),
        ("--epoch 3", "unrecognized arguments"),
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


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_WORLD_SIZE"])
def test_half_of_torchruns_variables_is_told(
    missing: str,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "0" if "RANK" in name else "2")
    monkeypatch.delenv(missing)
    assert f"{missing}=None" in refused(capsys, "--data", corpus, *QUICK)


def test_no_data_set_is_told_three_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--data", tmp_path / "nowhere", *QUICK)
    assert message.startswith(f"train.py: no data set at {tmp_path / 'nowhere'}")
    assert all(way in message for way in ("--synthetic", "--data ROOT", "--mix CLEAN NOISE"))


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


def test_a_run_folder_that_is_a_file(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "run").write_text("")
    message = refused(capsys, "--data", corpus, "--run", corpus / "run", *QUICK, *NARROW)
    assert f"{corpus / 'run'}: File exists" in message


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04 and nothing more", b"\x80\x04cos\nsystem\n."]
)
def test_what_is_no_checkpoint_is_not_continued(
    content: bytes, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = corpus / "run" / "last.pt"
    last.parent.mkdir()
    last.write_bytes(content)
    message = refused(capsys, "--data", corpus, "--run", last.parent, *QUICK, *NARROW)
    assert f"{last} is damaged, or is not a checkpoint" in message
    assert last.read_bytes() == content


def test_mixing_trains_and_a_preset_names_its_network(tmp_path: Path) -> None:
    for speaker in range(4):
        put(tmp_path / "speech" / f"s{speaker}_1.wav", 0.4, speaker)
        put(tmp_path / "noise" / f"{speaker}.wav", 1, 100 + speaker)
    folders = [str(tmp_path / "speech"), str(tmp_path / "noise")]
    run = tmp_path / "run"
    options = ["--mix", *folders, "--run", str(run), "--preset", "uniform31", "--recipe", "plain"]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, *QUICK, *NARROW])
    written = json.loads((run / CONFIG_FILE).read_text("utf-8"))["config"]
    assert written["name"] == "uniform31"
    assert written["model.hidden"] == [31, 31, 31]
    assert written["recipe"] == "plain"
    assert written["loss.metric"] == 0
    assert [written["data.clean"], written["data.noise"]] == folders


@pytest.mark.parametrize("name", ["model", "ema", "optimizer", "adversary", "values"])
def test_a_checkpoint_of_another_make_is_not_continued(
    name: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "run"
    options = ["--data", str(corpus), "--run", str(run), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    change(run / "last.pt", **{name: {"unknown": torch.zeros(3)}})
    assert f"{run / 'last.pt'} does not fit this version's network" in refused(capsys, *options)


def test_a_setting_given_at_its_default_is_the_same_setting(corpus: Path) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "model.expand=2", "--max-steps", "2"])
    assert torch.load(corpus / "run" / "last.pt", weights_only=True)["values"]["step"] == 2


def test_precision_may_change_in_the_middle_of_a_run(corpus: Path) -> None:
    for step, precision in enumerate(["off", "fp16", "bf16", "fp16"], start=1):
        options = ["--data", str(corpus), "--run", str(corpus / "run"), "--amp", precision]
        cli.main(MBSNet, CONFIG, PRESETS, [*options, *QUICK, *NARROW, "--max-steps", str(step)])
        state = torch.load(corpus / "run" / "last.pt", weights_only=True)
        assert state["values"]["step"] == step
        assert bool(state["scaler"]) is (precision == "fp16")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[...] can't allocate memory: 9")])
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


def test_a_full_disk_is_told(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **groups: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunLog, "record", fail)
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    message = refused(capsys, *options, status=1)
    assert f"{corpus / 'run'}: No space left on device" in message


def test_a_run_folder_whose_name_is_no_text(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", corpus, "--run", f"{corpus}/\udcff", *QUICK, *NARROW]
    assert "the name is no valid text" in refused(capsys, *options)


@pytest.mark.parametrize("wrong", [["--batch-size", "20"], ["--device", "cuda"]])
def test_what_is_refused_clears_no_run(
    wrong: list[str], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if wrong[1] == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    before = (corpus / "run" / "last.pt").read_bytes()
    refused(capsys, *options, "--fresh", *wrong)
    assert (corpus / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_fresh_clears_no_folder_of_something_else(
    content: str | None, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = corpus / "run"
    run.mkdir()
    (run / "best.pt").write_text("mine")
    if content is not None:
        (run / "config.json").write_text(content)
    message = refused(capsys, "--data", corpus, "--run", run, "--fresh", *QUICK, *NARROW)
    assert "it may be somebody else's" in message
    assert (run / "best.pt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_a_last_checkpoint_that_is_no_file(
    kind: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = corpus / "run" / "last.pt"
    last.parent.mkdir()
    if kind == "folder":
        last.mkdir()
    elif kind == "pipe":
        os.mkfifo(last)
    else:
        last.symlink_to("nowhere")
    message = refused(capsys, "--data", corpus, "--run", last.parent, *QUICK, *NARROW)
    assert f"{last} is not a file" in message


@pytest.mark.parametrize("name", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_fresh_is_for_the_first_start_only(
    name: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), "--fresh", *QUICK, *NARROW]
    for count, step in (("0", 1), ("1", 2), ("0", 1)):
        monkeypatch.setenv(name, count)
        cli.main(MBSNet, CONFIG, PRESETS, [*options, "--max-steps", str(step)])
        sessions = json.loads((corpus / "run" / CONFIG_FILE).read_text())["sessions"]
        assert sessions[-1]["first_step"] == step - 1
        assert len(sessions) == step


def test_other_files_are_another_run(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)
    put_pairs(corpus / "train", ["s9_1.wav"])
    message = refused(capsys, *options, "--max-steps", "2")
    assert "was trained on other files than are named now" in message


def test_a_run_that_fails_says_so_in_its_folder(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    monkeypatch.setattr(cli.Trainer, "train_step", fail)
    refused(capsys, *options, status=1)
    session = json.loads((corpus / "run" / CONFIG_FILE).read_text())["sessions"][-1]
    assert session["error"] == "MemoryError"
    assert session["last_step"] == 0


def test_a_recipe_whose_adversary_never_starts_is_told(
    corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--recipe", "bsrnn", "--epochs", "60"])
    assert "the metric discriminator starts after epoch 60, and this run ends" in caplog.text


@pytest.mark.parametrize("words", [["--run", ""], ["--data", ""], ["--mix", "speech", ""]])
def test_an_unset_variable_in_quotes_is_no_path(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "a path is expected, and this is empty" in refused(capsys, *words, *QUICK)


@pytest.mark.parametrize(
    "variables", ["5 1 0 1", "0 1 0 0", "-1 2 0 2", "0 0 0 0", "0 2 2 2", "0 2 0 3"]
)
def test_contradictory_variables_of_torchrun(
    variables: str,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    for name, value in zip(names, variables.split(), strict=True):
        monkeypatch.setenv(name, value)
    assert "contradict each other: RANK=" in refused(capsys, "--data", corpus, *QUICK)


def test_a_loop_of_links_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    assert "no data set at" in refused(capsys, "--data", tmp_path / "one", *QUICK)


def test_a_scan_backend_that_is_none(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSBIMAMBA_SCAN", "nonsense")
    options = ["--data", corpus, "--run", corpus / "run", *QUICK, *NARROW]
    assert "BSBIMAMBA_SCAN: 'nonsense' is not one of" in refused(capsys, *options)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_log_that_is_no_file(
    kind: str, name: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus / "run" / name
    path.parent.mkdir()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    message = refused(capsys, "--data", corpus, "--run", path.parent, *QUICK, *NARROW)
    assert f"{path} is not a file" in message


def test_a_lock_with_no_text_in_it(corpus: Path) -> None:
    (corpus / "run").mkdir()
    (corpus / "run" / ".lock").write_bytes(b"\xff\xfe\x80")
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, options)


def test_names_of_utterances_that_no_file_may_have(corpus: Path) -> None:
    put_pairs(corpus / "valid", [f"v1_{'x' * 240}.wav", "v2_\udcff.wav", "v3_a b.wav"])
    options = ["--data", str(corpus), "--run", str(corpus / "run"), *QUICK, *NARROW]
    cli.main(MBSNet, CONFIG, PRESETS, [*options, "--max-steps", "4"])
    samples = sorted(path.name for path in (corpus / "run" / "samples").glob("*_clean.wav"))
    assert samples[0].startswith("v1_xxxx")
    assert len(samples[0]) < 120
    assert samples[1:] == ["v2__udcff_clean.wav", "v3_a_b_clean.wav"]
