"""The page's parts by themselves: models, limits, pictures, files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile as sf
from recordings import sound
from saved_runs import save_run

from data.audio import AudioError
from data.utils import DataError
from enhancement.audio_file import FileSource
from enhancement.model import Model, load
from evaluation.spectrogram import levels
from page import markup, models, upload, work
from page.interface import answers
from page.pictures import drawn, powers
from page.store import Store, names_of
from page.upload import Upload
from page.work import Progress, Result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "abl3")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run, "cpu")


def put(path: Path, x: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    sf.write(path, x, rate, subtype)
    return path


def finished(path: Path, chosen: list[tuple[str, Model]], out: Path) -> Result:
    *before, result = work.work(Upload(path), chosen, out)
    assert all(isinstance(each, Progress) for each in before)
    assert isinstance(result, Result)
    return result


def test_all_that_is_here_is_offered(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("BSBIMAMBA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(models, "RUNS", tmp_path / "runs")
    with pytest.raises(DataError, match=r"no trained model here\. Train one .*export"):
        models.offered([], "cpu")
    save_run(tmp_path / "runs" / "b", name="last.pt")
    save_run(tmp_path / "runs" / "a")
    save_run(tmp_path / "runs" / "c").joinpath("best.pt").write_bytes(b"damaged")
    assert list(models.offered([], "cpu")) == ["a", "b"]
    assert "app.py: left out: " in capsys.readouterr().err
    with pytest.raises(DataError, match=r"best\.pt"):
        models.offered([str(tmp_path / "runs" / "c")], "cpu")
    with pytest.raises(DataError, match="no such run folder, checkpoint or model"):
        models.offered(["unknown"], "cpu")
    offered = models.offered([str(run)], "cpu")
    assert models.described(offered) == {
        "abl3": "abl3 (MBSNet), 149,240 parameters, trained for 3 steps (1.5 epochs)"
    }


def test_models_of_one_name_are_told_apart():
    labels = models.labelled(["x/abl3", "y/abl3", "x/abl1", "x/abl1", "named"])
    assert labels == {
        "x/abl3": "x/abl3",
        "y/abl3": "y/abl3",
        "x/abl1": "abl1",
        "named": "named",
    }


def test_too_much_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = put(tmp_path / "a.wav", np.tile(sound(1.0)[:, None], 2))
    monkeypatch.setattr(upload, "MOST_MINUTES", 0.5 / 60)
    monkeypatch.setattr(FileSource, "blocks", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(AudioError, match=r"too long: 0\.0 minutes"):
        Upload(path)
    monkeypatch.setattr(upload, "MOST_MINUTES", 10)
    monkeypatch.setattr(upload, "MOST_CHANNEL_MINUTES", 1.5 / 60)
    with pytest.raises(AudioError, match="too long: 2 channels"):
        Upload(path)


def test_more_than_the_header_tells_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = Upload(put(tmp_path / "a.wav", sound(1.0)))
    decoded = []

    def endless(self: FileSource) -> Any:
        for _ in range(100):
            decoded.append(np.zeros((1, 4000), np.float32))
            yield decoded[-1]

    monkeypatch.setattr(FileSource, "blocks", endless)
    monkeypatch.setattr(upload, "MOST_MINUTES", 2 / 60)
    with pytest.raises(AudioError, match="too long"):
        list(found.blocks())
    assert len(decoded) == 9


@pytest.mark.parametrize(
    ("subtype", "kept"),
    [("PCM_16", "PCM_16"), ("PCM_U8", "PCM_16"), ("PCM_24", "PCM_24"), ("PCM_32", "PCM_24"),
     ("FLOAT", "FLOAT"), ("DOUBLE", "FLOAT"), ("ULAW", "PCM_16")],
)  # fmt: skip
def test_results_are_as_fine_as_what_came(tmp_path: Path, model: Model, subtype: str, kept: str):
    """And equal to the model's own, at any rate and number of channels."""
    x = np.stack([sound(0.7, 22050), sound(0.7, 22050, 1)], 1)
    path = put(tmp_path / "a.wav", x, 22050, subtype)
    result = finished(path, [("abl3", model)], tmp_path / "out")
    x, rate = sf.read(path, dtype="float32")
    (outcome,) = result.outcomes
    step = {"PCM_16": 2**-15, "PCM_24": 2**-23, "FLOAT": 1e-6}[kept]
    clean = model(np.ascontiguousarray(x.T), rate).T
    expected = ((result.noisy, x), (outcome.enhanced, clean), (outcome.removed, x - clean))
    for version, values in expected:
        info = sf.info(version.sound)
        assert (info.samplerate, info.subtype, info.format) == (rate, kept, "WAV")
        assert sf.read(version.sound)[0] == pytest.approx(values, abs=step)


def test_what_a_file_cannot_hold_is_counted(tmp_path: Path, model: Model, store: Store):
    path = put(tmp_path / "a.wav", np.sign(sound(0.5)))
    result = finished(path, [("abl3", model)], tmp_path / "out")
    y = model(sf.read(path, dtype="float32")[0], 16000)
    assert result.outcomes[0].clipped == np.count_nonzero(np.abs(y) > 1) > 0
    assert "beyond full scale" in markup.results(result, store)


def test_work_given_up_leaves_nothing(tmp_path: Path, model: Model):
    path = put(tmp_path / "a.wav", sound(0.5))
    steps = work.work(Upload(path), [("abl3", model)], tmp_path / "out")
    next(steps)
    next(steps)
    assert (tmp_path / "out").exists()
    steps.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "out").exists()
    bad = put(tmp_path / "nan.wav", np.full(4000, np.inf), subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN or infinite"):
        list(work.work(Upload(bad), [("abl3", model)], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_picture_is_the_spectrogram(tmp_path: Path):
    """In blocks it is what the page of scores shows, which computes it at once."""
    x = sound(9.0)  # fewer frames than columns, several blocks
    source = FileSource(put(tmp_path / "a.wav", x, subtype="FLOAT"))
    power = powers(source, len(x))
    expected = levels({"a": x.astype(np.float32)})["a"]
    assert power.shape == expected.shape
    found = 10 * np.log10(np.maximum(power / power.max(), 1e-8))
    assert found == pytest.approx(expected, abs=0.02)


def test_pictures_are_no_wider_than_a_screen_and_on_one_scale(tmp_path: Path):
    t = np.arange(30 * 8000) / 8000
    tones = {}
    for number, level in enumerate((0.5, 0.05)):
        x = level * np.sin(2 * np.pi * 1000 * t) * (t < 15)
        tones[str(number)] = powers(
            FileSource(put(tmp_path / f"{number}.wav", x, 8000, "FLOAT")), len(x)
        )
    assert tones["0"].shape == (257, 1200)
    assert {int(row) for row in tones["0"][:, 10:590].argmax(0)} == {32}  # 31.25 Hz each
    assert tones["0"][:, 610:].max() < 1e-6 * tones["0"].max()
    assert tones["0"].max() / tones["1"].max() == pytest.approx(100, rel=1e-3)
    images = {}
    for name, content in drawn(tones).items():
        (tmp_path / name).with_suffix(".png").write_bytes(content)
        images[name] = matplotlib.image.imread((tmp_path / name).with_suffix(".png"))
    # The row of the tone, from the top; magma is brighter where it is louder.
    loud, soft = (images[name][256 - 32, 300, :3].sum() for name in "01")
    assert loud > soft > images["0"][0, 300, :3].sum()


@pytest.mark.parametrize("frames", [1, 2, 511, 700])
def test_short_recordings_have_pictures(tmp_path: Path, frames: int):
    for rate in (4000, 16000, 48000):
        source = FileSource(put(tmp_path / "a.wav", sound(1.0)[:frames], rate))
        power = powers(source, frames)
        assert power.shape[0] == 257
        assert power.shape[1] >= 1
        assert np.isfinite(power).all()


def test_names_are_text_and_nothing_else(tmp_path: Path, model: Model, store: Store):
    path = put(tmp_path / "<img src=x onerror=alert(1)> ${a} {{b}} `'\".wav", sound(0.5))
    result = finished(path, [('<script>"', model)], store.place())
    shown = markup.results(result, store)
    for sign in ("<img src=x", "<script", "${", "{{", "`", "'\""):
        assert sign not in shown
    assert "/" not in "".join(names_of(result).values())
    assert markup.fault("<b>") == '<p class="fault" role="alert">&lt;b&gt;</p>'
    assert "<script>" not in markup.introduction({"<script>": "<script>"})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1 / 16000, ["0"]),
        (0.5, ["0", "0.1 s", "0.2 s", "0.3 s", "0.4 s"]),
        (4.36, ["0", "1 s", "2 s", "3 s", "4 s"]),
        (95, ["0", "20 s", "40 s", "60 s", "80 s"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min"]),
    ],
)
def test_the_time_axis_has_round_numbers(seconds: float, expected: list[str]):
    assert [label for _, label in markup._ticks(seconds)] == expected


def test_old_files_go(store: Store, tmp_path: Path):
    old, new = store.uploads / "x" / "old.wav", store.uploads / "y" / "new.wav"
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"x")
    for path in (old, old.parent):
        os.utime(path, (1, 1))
    address = store.address(old)
    store.sweep()
    assert not old.exists()
    assert new.exists()
    store.sweep()  # its folder, whose time was that of the removal, later
    assert address.removeprefix("/results/") not in store.results
    assert store.uploads.is_dir()
    assert not store.full()


@pytest.mark.parametrize("closed", [False, True])
def test_a_disk_that_fails_is_reported_unless_the_page_is_ending(
    closed: bool,
    tmp_path: Path,
    model: Model,
    store: Store,
    caplog: pytest.LogCaptureFixture,
):
    """When it ends its folder is removed, whoever writes there."""
    noisy = put(tmp_path / "noisy.wav", sound(1.0))
    states = answers(str(noisy), ["abl3"], {"abl3": model}, store)
    next(states)
    if closed:
        store.close()
    else:
        shutil.rmtree(store.folder)
    *_, (said, shown) = states
    assert "disk failed (No such file or directory)" in said
    assert shown == ""
    assert bool(caplog.messages) is not closed
