"""`python -m tools.export`: what it writes, what it leaves alone, what it says when it cannot."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from exported import prepare, save_lively_run

from bandsplit.bands import WIDTHS
from data.utils import DataError
from enhancement import folder as model_folders
from enhancement.find import find
from enhancement.folder import read_model
from enhancement.windows import Windows, hops
from tools import export, onnx_check

FILES = {"model.safetensors", "model.onnx", "config.json", "SHA256SUMS"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(monkeypatch)
    monkeypatch.setenv("BSBIMAMBA_MODELS", str(tmp_path / "models"))
    return save_lively_run(tmp_path / "runs" / "mine")


def exported(*arguments: object, status: int = 0) -> None:
    assert export.main([str(argument) for argument in arguments]) == status


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """The one line with which a command ends."""
    capsys.readouterr()
    exported(*arguments, status=status)
    printed = capsys.readouterr()
    lines = [
        x for x in printed.err.splitlines() if "takes a minute" not in x and "differ by at" not in x
    ]
    assert len(lines) == 1
    assert not printed.out
    assert lines[0].startswith("export: ")
    return lines[0]


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_run_becomes_a_model_that_is_found_by_its_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    exported(run)
    folder = tmp_path / "models" / "mine"
    assert {path.name for path in folder.iterdir()} == FILES
    assert {path.name for path in folder.parent.iterdir()} == {"mine"}
    out, err = capsys.readouterr()
    assert out.startswith(f"{folder}: model.safetensors 0.6 MB, model.onnx 0.")
    assert "PyTorch differ by at most" in err
    noisy = torch.randn(1, 3000)
    expected = find(run).network.enhance(noisy)
    for source in ("mine", folder, folder / "model.safetensors"):
        assert torch.equal(find(source).network.enhance(noisy), expected)


def test_config_tells_other_programs_what_they_need(run: Path, tmp_path: Path):
    exported(run, "-o", tmp_path / "a" / "b", "--name", "a name")
    config = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert config["name"] == "a name"
    assert config["network"] == "abl3.mbs_net:MBSNet"
    assert config["signal"] == {
        "sample_rate": 16000, "n_fft": 512, "hop": 128, "window": "hann", "loudness_floor": 1e-5,
        "band_widths": list(WIDTHS), "variance_floor": 0.01,
    }  # fmt: skip
    assert config["windows"] == {"length": 12800, "context": 2560, "fade": 2048}
    onnx = config["onnx"]
    assert onnx["inputs"] == [
        {"name": "spectrum", "type": "float32", "shape": ["batch", 257, "frames", 2]},
        {"name": "statistics", "type": "float32", "shape": ["batch", 31, 2]},
    ]
    assert onnx["opset"] == 18
    assert onnx["checked"]["tolerance"] == 1e-4
    assert onnx["checked"]["frames"][-1] == 101
    assert 0 < onnx["checked"]["largest_difference"] < 1e-5


def test_checksums_are_as_sha256sum_takes_them(run: Path, tmp_path: Path):
    exported(run, "-o", tmp_path / "m")
    command = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
    if shutil.which(command[0]):
        done = subprocess.run(command, cwd=tmp_path / "m", capture_output=True, text=True)
        assert done.stdout.splitlines() == [
            f"{name}: OK" for name in ("model.safetensors", "model.onnx", "config.json")
        ]


def test_without_onnx_nothing_of_onnx_is_needed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    line = refused(capsys, run)
    assert "pip install -r requirements-export.txt" in line
    assert "--no-onnx" in line
    exported(run, "--no-onnx")
    assert {path.name for path in (tmp_path / "models" / "mine").iterdir()} == FILES - {
        "model.onnx"
    }
    find("mine")


def test_a_model_is_replaced_only_if_asked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "m"
    exported(run, "-o", folder)
    (folder / "notes.txt").write_text("mine")
    before = everything(folder)
    assert "holds a model already" in refused(capsys, run, "-o", folder)
    assert everything(folder) == before
    exported(run, "-o", folder, "--overwrite", "--no-onnx", "--name", "other")
    after = everything(folder)
    assert after.keys() == before.keys() - {"model.onnx"}
    assert after["notes.txt"] == b"mine"
    assert read_model(folder)


def test_files_of_somebody_else_are_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "m"
    (folder / "config.json").mkdir(parents=True)
    assert "is a folder, where a model has a file" in refused(
        capsys, run, "-o", folder, "--overwrite"
    )
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.tex").write_text("all of it")
    assert "is not empty already" in refused(capsys, run, "-o", folder)
    assert "is a file; -o takes a folder" in refused(capsys, run, "-o", folder / "thesis.tex")
    assert everything(folder) == {"thesis.tex": b"all of it"}


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-x", ""])
def test_a_name_that_no_folder_may_have(run: Path, capsys: pytest.CaptureFixture[str], name: str):
    assert "expected a name that a folder may have" in refused(capsys, run, f"--name={name}")


def test_no_such_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no such run folder, checkpoint or model" in refused(capsys, tmp_path / "absent")
    best = run / "best.pt"
    best.write_bytes(best.read_bytes()[:-500])
    assert "best.pt is damaged" in refused(capsys, run)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("there", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize("file", ["model.safetensors", "model.onnx", "config.json", "SHA256SUMS"])
def test_a_full_disk_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, there: bool,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    folder = tmp_path / "out" / "m"
    if there:
        exported(run, "-o", folder, "--name", "before")
    before = everything(tmp_path)
    replacing = model_folders.replacing

    def full(path: Path):  # type: ignore[no-untyped-def]
        if path.name == file:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return replacing(path)

    monkeypatch.setattr(model_folders, "replacing", full)
    monkeypatch.setattr("data.utils.replacing", full)
    line = refused(capsys, run, "-o", folder, "--overwrite", status=1)
    assert line.endswith(
        f"{folder} cannot be written (No space left on device); nothing was changed"
    )
    assert everything(tmp_path) == before
    assert (tmp_path / "out").exists() == there


@pytest.mark.parametrize("options", [[], ["--no-onnx"]], ids=["onnx", "no onnx"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "over another"])
def test_ctrl_c_leaves_what_was_there(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], there: bool
):
    """Before and after each file that is moved."""
    folder = tmp_path / "out" / "m"
    if there:
        exported(run, "-o", folder, "--name", "before")
    before = everything(tmp_path)
    rename = Path.rename
    moves = 0

    def interrupted(at: int, early: bool) -> int:
        nonlocal moves
        moves = 0

        def move(path: Path, target: Path) -> Path:
            nonlocal moves
            moves += 1
            if moves == at and (early or not path.exists()):
                raise KeyboardInterrupt
            moved = rename(path, target)
            if moves == at:
                raise KeyboardInterrupt
            return moved

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", move)
            return export.main([str(run), "-o", str(folder), "--overwrite", *options])

    at = 0
    while True:
        at += 1
        for early in (True, False):
            status = interrupted(at, early)
            if status == 0:
                break
            assert status == 130
            assert everything(tmp_path) == before
            assert not list(tmp_path.glob("**/.*"))
        if status == 0:
            break
    assert at == 4 + (3 if options else 4) + 1
    read_model(folder)


def test_a_model_that_differs_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def differs(*arguments: object) -> None:
        raise DataError("the ONNX model does not do what the network does")

    monkeypatch.setattr(onnx_check, "compare", differs)
    assert "does not do what the network does" in refused(capsys, run, "-o", tmp_path / "x" / "m")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_the_command_itself(tmp_path: Path):
    """As a user calls it, with the usual windows, and warnings as errors."""
    run = save_lively_run(tmp_path / "run")
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tools.export",
        str(run),
        "-o",
        str(tmp_path / "m"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2
    found = json.loads((tmp_path / "m" / "config.json").read_text())["windows"]
    assert found["length"] == hops(Windows().length)
