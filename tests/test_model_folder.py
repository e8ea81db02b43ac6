"""Model folders that are not what they were: refused, with a message, and never unpickled."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from saved_runs import save_run
from test_load_trained import Evil

from abl3.mbs_net import MBSNet
from enhancement.find import find
from enhancement.folder import OnnxFile, read_model, write_model
from training.checkpoint import CheckpointError
from training.trained import load_trained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    onnx = OnnxFile(b"an ONNX model", {"opset": 18})
    write_model(model, load_trained(save_run(tmp_path / "run")), "mine", onnx)
    return model


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a model, its checksum included."""
    old, new = (hashlib.sha256(x).hexdigest() for x in ((folder / name).read_bytes(), content))
    (folder / name).write_bytes(content)
    sums = folder / "SHA256SUMS"
    text = sums.read_text()
    assert text.count(old) == 1
    sums.write_text(text.replace(old, new))


def refused(folder: Path, reason: str) -> None:
    for source in (folder, folder / "model.safetensors"):
        with pytest.raises(CheckpointError, match=reason):
            find(source)


FILES = ("model.safetensors", "config.json", "model.onnx")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1], ids=["first byte", "last byte"])
def test_a_changed_file_is_refused(folder: Path, name: str, place: int):
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, rf"{re.escape(name)} is not what SHA256SUMS says: it is damaged")


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_missing_file_is_refused(folder: Path, name: str):
    (folder / name).unlink()
    refused(folder, re.escape(name))


@pytest.mark.parametrize("name", [*FILES, "SHA256SUMS"])
def test_a_truncated_file_is_refused(folder: Path, name: str):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    refused(folder, re.escape(name))


@pytest.mark.parametrize(
    "line",
    ["{}  ../x", "{}  /x", "{}  a/b", "{}  ..", "{}  .", "{}  .hidden", "{}  a\\b", "{}", "x  x",
     "{}  config.json", ""],
)  # fmt: skip
def test_a_list_of_something_else_is_refused(folder: Path, line: str):
    (folder.parent / "x").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{sums.read_text()}{line.format(digest)}\n")
    refused(folder, "SHA256SUMS is not a list of a model's files and their checksums")


def test_weights_of_another_network_are_refused(folder: Path):
    for channels in (8, 24):
        rewrite(folder, "model.safetensors", save(MBSNet(channels=channels).state_dict()))
        refused(folder, r"(?s)model.safetensors does not fit this version's network.*size mismatch")
    rewrite(folder, "model.safetensors", save({"weight": torch.zeros(3)}))
    refused(folder, r"(?s)model.safetensors does not fit this version's network.*Missing key")


def test_a_pickle_is_refused_and_never_unpickled(folder: Path, tmp_path: Path):
    mark = tmp_path / "mark"
    torch.save({"weight": Evil(mark)}, tmp_path / "evil.pt")
    for content in (pickle.dumps(Evil(mark)), (tmp_path / "evil.pt").read_bytes(), b""):
        rewrite(folder, "model.safetensors", content)
        refused(folder, str(folder))
    assert not mark.exists()


def settings(described: dict, **values: object) -> None:
    described["settings"] |= values


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.update(format=2), "format 2, where this version reads 1"),
        (lambda x: x.update(network="os:system"), "there is no network os:system"),
        (lambda x: x.pop("settings"), "does not describe a model"),
        (lambda x: x.pop("training"), "does not describe a model"),
        (lambda x: x["training"].update(step="three"), "does not describe a model"),
        (lambda x: settings(x, sed=1), "unknown setting 'sed'; did you mean seed"),
    ],
)
def test_another_description_is_refused(
    folder: Path, change: Callable[[dict], object], reason: str
):
    described = json.loads((folder / "config.json").read_text())
    change(described)
    rewrite(folder, "config.json", json.dumps(described).encode())
    refused(folder, reason)


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_a_description_that_is_none_is_refused(folder: Path, text: bytes):
    rewrite(folder, "config.json", text)
    refused(folder, "config.json does not describe a model")


def test_what_is_not_listed_is_not_looked_at(folder: Path):
    (folder / "notes.txt").write_text("mine")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text(
        "\n".join(line for line in lines if not line.endswith("model.onnx")) + "\n"
    )
    (folder / "model.onnx").write_bytes(b"another one")
    assert read_model(folder).step == 3


def test_the_weights_are_read_by_the_library_of_that_name(folder: Path):
    weights = load((folder / "model.safetensors").read_bytes())
    expected = load_trained(folder.parent / "run").network.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
