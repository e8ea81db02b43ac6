"""Enhancing files: what comes out, what is kept, what is said of those that cannot be."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from recordings import put
from torch import Tensor

from abl3.mbs_net import MBSNet
from data.audio import described, read, write
from data.utils import DataError
from enhancement import whole
from enhancement.whole import enhance_files


@pytest.fixture
def network() -> MBSNet:
    return MBSNet(channels=8).eval()


class Counted(MBSNet):
    """Counts what it enhances."""

    count = 0

    def enhance(self, noisy: Tensor) -> Tensor:
        self.count += 1
        return super().enhance(noisy)


def test_files_are_enhanced_whole_into_the_same_folders(tmp_path: Path, network: MBSNet):
    noisy = {name: put(tmp_path / "noisy" / f"{name}.flac") for name in ("a", "sub/b")}
    made = enhance_files(network, noisy, tmp_path / "out", "weights", "network")
    assert made == {name: tmp_path / "out" / f"{name}.wav" for name in noisy}
    expected = network.enhance(torch.from_numpy(read(noisy["sub/b"]))[None])[0]
    assert read(tmp_path / "out" / "sub" / "b.wav") == pytest.approx(expected.numpy(), abs=1e-6)


def test_what_is_there_is_not_made_again(tmp_path: Path):
    torch.manual_seed(0)
    network = Counted(channels=8).eval()
    noisy = {name: put(tmp_path / "noisy" / f"{name}.wav", seed=n) for n, name in enumerate("abc")}

    def again(made_by: str = "weights") -> int:
        before = network.count
        enhance_files(network, noisy, tmp_path / "out", made_by, "network")
        return network.count - before

    assert again() == 3
    assert again() == 0
    put(noisy["a"], seed=9)
    assert again() == 1
    (tmp_path / "out" / "b.wav").unlink()
    (tmp_path / "out" / "c.wav").write_bytes((tmp_path / "out" / "c.wav").read_bytes()[:60])
    assert again() == 2
    cut = tmp_path / "out" / "b.wav"
    samples = read(cut)
    write(cut, samples[:-100], "FLOAT", described(cut)[2])
    assert again() == 1
    assert np.array_equal(read(cut), samples)
    assert again("other weights") == 3
    assert again("other weights") == 0
    for change in ("code", "package", "backend"):
        with pytest.MonkeyPatch.context() as patch:
            if change == "code":
                patch.setattr(whole, "code_digest", lambda: "other code")
            elif change == "package":
                patch.setattr(torch, "__version__", "2.14.0")
            else:
                patch.setenv("BSBIMAMBA_SCAN", "reference")
            assert again() == 3, change


def test_the_code_that_counts_is_that_of_the_networks(monkeypatch: pytest.MonkeyPatch):
    seen: list[Path] = []
    monkeypatch.setattr(whole, "digest_of", lambda paths: seen.extend(paths) or "x")
    whole.code_digest.__wrapped__()
    names = {path.relative_to(ROOT).as_posix() for path in seen}
    assert {"real_mamba_optimized.py", "abl3/mamba.py", "baseline/bsrnn.py", "bandsplit/stft.py",
            "scan/cpu_kernels.py", "data/audio.py"} <= names  # fmt: skip


def test_a_file_that_cannot_be_read_has_a_reason(tmp_path: Path, network: MBSNet):
    noisy = {name: tmp_path / f"{name}.wav" for name in ("empty", "none", "text")}
    put(noisy["empty"], seconds=0)
    noisy["text"].write_text("no audio")
    made = enhance_files(network, noisy, tmp_path / "out", "weights", "network")
    assert made["empty"] == f"{noisy['empty']}: empty: no samples"
    assert made["none"] == f"{noisy['none']}: cannot be opened (No such file or directory)"
    assert str(made["text"]).startswith(f"{noisy['text']}: cannot be decoded")
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_memory_of_its_device_does_not_hold_has_a_reason(
    tmp_path: Path, network: MBSNet, monkeypatch: pytest.MonkeyPatch
):
    def full(noisy: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "enhance", full)
    path = put(tmp_path / "long.wav")
    made = enhance_files(network, {"long": path}, tmp_path / "out", "weights", "network")
    assert made == {"long": f"{path}: too long for the memory of cpu"}


def test_files_of_somebody_else_are_left_alone(tmp_path: Path, network: MBSNet):
    path = put(tmp_path / "a.wav")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a.wav is in the way: it was not made here"):
        enhance_files(network, {"a": path}, tmp_path, "weights", "network")
    assert path.read_bytes() == before


def test_a_name_that_is_a_file_and_a_folder_has_a_reason(tmp_path: Path, network: MBSNet):
    out = tmp_path / "out"
    (out / "a.wav").mkdir(parents=True)
    (out / "b").write_text("a file")
    noisy = {name: put(tmp_path / "noisy" / f"{name}.flac") for name in ("a", "b/c", "d")}
    made = enhance_files(network, noisy, out, "weights", "network")
    assert made["a"] == f"{out / 'a.wav'}: a folder is where a file should be"
    assert made["b/c"] == f"{out / 'b'}: File exists"
    assert made["d"] == out / "d.wav"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path, network: MBSNet):
    os.mkfifo(tmp_path / "a.wav")
    made = enhance_files(network, {"a": tmp_path / "a.wav"}, tmp_path / "o", "weights", "network")
    assert made == {"a": f"{tmp_path / 'a.wav'}: cannot be opened (not a file)"}


def test_a_file_says_what_it_was_made_from_and_nothing_about_where(tmp_path: Path, network: MBSNet):
    enhance_files(network, {"a": put(tmp_path / "a.flac")}, tmp_path / "out", "weights", "network")
    rate, channels, comment = described(tmp_path / "out" / "a.wav")
    assert (rate, channels) == (16000, 1)
    assert re.fullmatch(r"made from [0-9a-f]{64}, samples [0-9a-f]{64}", comment)
