"""Models by name: kept in a folder, downloaded into it, refused where they were changed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from http_server import Server
from recordings import sound
from saved_runs import save_run

from data.utils import FailedError
from enhance import load, main
from enhancement import find, published
from enhancement.folder import CONFIG, SUMS, WEIGHTS, write_model
from enhancement.published import Published, fetch
from training.checkpoint import CheckpointError
from training.trained import load_trained


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of models."""
    monkeypatch.setenv(find.MODELS, str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A model folder, elsewhere."""
    folder = tmp_path / "exported"
    folder.mkdir()
    write_model(folder, load_trained(save_run(tmp_path / "run")), "small")
    return folder


@pytest.fixture
def online(server: Server, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The same on a web server, published under the name "small"."""
    for path in exported.iterdir():
        server.files[f"v1/{path.name}"] = path.read_bytes()
    sums = hashlib.sha256((exported / SUMS).read_bytes()).hexdigest()
    model = Published(server.address("v1"), sums)
    monkeypatch.setattr(find, "PUBLISHED", {"small": model})
    return model


def test_nothing_is_published_yet():
    assert not published.PUBLISHED


def test_a_name_is_looked_up_in_the_folder_first(models: Path, exported: Path, online: Published):
    shutil.copytree(exported, models / "mine")
    assert find.names() == ["mine", "small"]
    assert load("mine").trained.digest == load(exported).trained.digest
    with pytest.raises(CheckpointError, match="Models known by name: mine, small"):
        load("other")


def test_a_name_is_a_name_wherever_one_is(
    models: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A folder of that name in the working directory is something else, as abl3/ is."""
    shutil.copytree(exported, models / "abl3")
    (tmp_path / "abl3").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("abl3").trained.digest == load(exported).trained.digest


def test_a_published_model_is_downloaded_once(
    models: Path, exported: Path, online: Published, server: Server
):
    x = sound(0.2)
    expected = load(exported)(x, 16_000)
    np.testing.assert_array_equal(load("small")(x, 16_000), expected)
    assert sorted(path.name for path in (models / "small").iterdir()) == [SUMS, CONFIG, WEIGHTS]
    asked = len(server.asked)
    np.testing.assert_array_equal(load("small")(x, 16_000), expected)
    assert len(server.asked) == asked


@pytest.mark.parametrize("name", [SUMS, CONFIG, WEIGHTS])
def test_another_file_on_the_server_is_refused(
    models: Path, online: Published, server: Server, name: str
):
    content = bytearray(server.files[f"v1/{name}"])
    content[len(content) // 2] ^= 1
    server.files[f"v1/{name}"] = bytes(content)
    with pytest.raises(FailedError, match="is not what was published"):
        load("small")
    assert not (models / "small" / SUMS).exists()
    assert not (models / "small" / name).exists()


def test_a_server_that_lacks_it_is_a_message(
    models: Path, online: Published, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "a.wav").touch()
    del server.files[f"v1/{WEIGHTS}"]
    words = [str(tmp_path / "a.wav"), "-o", str(tmp_path / "out"), "--checkpoint", "small"]
    assert main(words) == 1
    message = capsys.readouterr().err
    assert "model.safetensors cannot be downloaded" in message
    assert f"put the file into {models / 'small'} yourself" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_begun_is_gone_on_with(
    models: Path, exported: Path, online: Published, server: Server
):
    (models / "small").mkdir(parents=True)
    shutil.copy(exported / WEIGHTS, models / "small")
    (models / "small" / CONFIG).write_text("damaged")
    load("small")
    assert f"/v1/{WEIGHTS}" not in [path for path, *_ in server.asked]


def test_a_list_that_names_files_elsewhere_is_refused(tmp_path: Path, server: Server):
    lines = "".join(f"{'0' * 64}  {name}\n" for name in (WEIGHTS, CONFIG, "../../x"))
    server.files[SUMS] = lines.encode()
    model = Published(server.address("")[:-1], hashlib.sha256(lines.encode()).hexdigest())
    with pytest.raises(CheckpointError, match="is not a list of a model's files"):
        fetch(model, tmp_path / "models" / "small")
    assert [path for path, *_ in server.asked] == [f"/{SUMS}"]
