"""Audio files: reading every kind and pieces of it, checking, finding and writing."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put, sound

from bsbimamba.data import audio
from bsbimamba.data.audio import AudioError, Info, find_audio, inspect, look_over, read, write
from bsbimamba.utils import DataError

RATE = 16000

# Reading


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_24", 2**-23),
        ("a.WAV", "PCM_32", 1e-7),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ULAW", 2**-5),
        ("a.Flac", "PCM_24", 2**-23),
    ],
)
@pytest.mark.parametrize("channels", [1, 8])
def test_read_averages_channels_of_every_encoding(
    tmp_path: Path, name: str, subtype: str, error: float, channels: int
) -> None:
    x = np.stack([sound(0.1, seed=channel) for channel in range(channels)], axis=1)
    sf.write(tmp_path / name, x, RATE, subtype)
    found = read(tmp_path / name)
    assert found.dtype == np.float32
    assert found.shape == (1600,)
    assert np.abs(found - x.mean(axis=1)).max() <= error
    assert inspect(tmp_path / name).channels == channels


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 96000])
def test_read_resamples_without_change_of_frequency_level_or_length(
    tmp_path: Path, rate: int
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    sf.write(tmp_path / "a.wav", tone, rate, "FLOAT")
    found = read(tmp_path / "a.wav")
    assert found.shape == (RATE,)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert np.abs(found - expected)[800:-800].max() < 1e-4  # the edges ring
    info = inspect(tmp_path / "a.wav")
    assert (info.frames, info.rate) == (RATE, rate)
    assert info.level == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.02)


# Rate, and how far a piece may be from that of the whole.
_KINDS = {
    "a.wav": (RATE, 0.0),
    "gsm.wav": (RATE, 0.0),  # cannot be sought in
    "a.flac": (44100, 0.0),
    "a.ogg": (RATE, 0.0),
    # The decoder's memory of what came before a seek: measured up to 0.0025 on speech.
    "a.opus": (48000, 0.01),
}


@pytest.fixture(scope="module", params=_KINDS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, float]:
    rate, error = _KINDS[request.param]
    path = tmp_path_factory.mktemp("kinds") / request.param
    kind, subtype = audio._FORMATS[path.suffix]
    subtype = "GSM610" if path.stem == "gsm" else subtype
    with sf.SoundFile(path, "w", rate, 1, subtype, format=kind) as file:
        file.write(sound(3.01, rate))
    return path, read(path), error


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_read_gives_a_piece_of_the_whole(
    whole: tuple[Path, np.ndarray, float], data: st.DataObject
) -> None:
    path, x, error = whole
    # Near the end more often: there libsndfile's own seeking in Vorbis goes wrong.
    start = data.draw(st.one_of(st.integers(0, len(x)), st.integers(len(x) - 8000, len(x) + 99)))
    frames = data.draw(st.one_of(st.none(), st.integers(1, 40000)))
    piece = read(path, start, frames)
    expected = x[start:] if frames is None else x[start : start + frames]
    assert piece.shape == expected.shape
    assert piece.dtype == np.float32
    assert np.abs(piece - expected).max(initial=0) <= error


# Faults


def _wav(x: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Callable[[Path], None]:
    return lambda path: sf.write(path, x, rate, subtype)


def _cut(name: str, share: float, hole: int = 0) -> Callable[[Path], None]:
    """A good file that ends after a share of its bytes, or has a hole of zeros there."""

    def make(path: Path) -> None:
        good = path.with_name(name)
        write(good, sound(8))
        content = good.read_bytes()
        good.unlink()
        place = int(share * len(content))
        rest = content[place + hole :] if hole else b""
        path.write_bytes(content[:place] + bytes(hole) + rest)

    return make


def _flac_of_unknown_length(path: Path) -> None:
    sf.write(path, sound(1), RATE, "PCM_16", format="FLAC")
    content = bytearray(path.read_bytes())
    content[18:26] = (int.from_bytes(content[18:26], "big") >> 36 << 36).to_bytes(8, "big")
    path.write_bytes(content)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda path: path.touch(), "empty: no bytes"),
    "no samples": (_wav(np.zeros(0)), "empty: no samples"),
    "one sample, lost in resampling": (_wav(np.ones(1), 48000), "empty: no samples"),
    "text": (lambda path: path.write_text("hello"), "cannot be decoded"),
    "missing": (lambda path: None, "cannot be opened .No such file"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "cannot be opened .No such file"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "pipe": (lambda path: os.mkfifo(path), "not a file"),
    "cut wav": (_cut("b.wav", 0.6), "cut short or damaged"),
    "cut flac": (_cut("b.flac", 0.6), "cannot be decoded"),
    "holey vorbis": (_cut("b.ogg", 0.5, 500), "cut short or damaged"),
    "holey opus": (_cut("b.opus", 0.5, 500), "cut short or damaged|malformed"),
    "flac of unknown length": (_flac_of_unknown_length, "does not tell its length"),
    "NaN": (_wav(np.where(np.arange(48000) == 99, np.nan, 0.1), 48000), "NaN or infinite"),
    "beyond float": (_wav(np.full(RATE, 1e300), subtype="DOUBLE"), "NaN or infinite"),
    "not audio": (_wav(1e30 * sound(1)), "above 200 dB"),
    "silent": (_wav(np.full(RATE, 0.9e-5)), "silent: below -100 dB"),
    "rate of 7 Hz": (_wav(sound(1), 7), "a sampling rate of 7 Hz"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_inspect_names_every_fault(tmp_path: Path, fault: str) -> None:
    make, reason = FAULTS[fault]
    make(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=reason):
        inspect(tmp_path / "a.wav")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["wav", "flac", "ogg", "opus"]), st.data())
def test_damage_raises_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, extension: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{extension}"
    write(path, sound(0.3))
    content = bytearray(path.read_bytes())
    # Headers are where damage does the most.
    place = data.draw(st.one_of(st.integers(0, 99), st.integers(0, len(content) - 1)))
    content[place : place + 8] = data.draw(st.binary(max_size=12))
    path.write_bytes(content)
    for use in (inspect, read, lambda path: read(path, 1000, 500)):
        with suppress(AudioError):
            use(path)


def test_wav_written_into_a_pipe_is_whole(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", 1)
    content = bytearray(path.read_bytes())
    for announced in (0xFFFFFFFF, 0x7FFFFFFF):
        content[4:8] = content[40:44] = struct.pack("<I", announced)
        path.write_bytes(content)
        assert inspect(path).frames == RATE


# What is remembered of files


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch, own_index: None) -> list[str]:
    """The names of the files that were decoded."""
    names: list[str] = []

    def counted(path: Path) -> Info:
        names.append(path.name)
        return inspect(path)

    monkeypatch.setattr(audio, "inspect", counted)
    return names


def test_look_over_decodes_only_new_and_changed_files(tmp_path: Path, inspected: list[str]) -> None:
    paths = [put(tmp_path / "a.wav"), put(tmp_path / "b.flac", 1)]
    first = look_over(paths)
    assert first == {path: inspect(path) for path in paths}
    assert look_over(paths[::-1]) == first
    assert sorted(inspected) == ["a.wav", "b.flac"]
    paths[1].unlink()
    changed = put(tmp_path / "a.wav", seed=1)
    os.utime(changed, ns=(0, 1))
    assert look_over([changed]) == {changed: inspect(changed)} != {changed: first[changed]}
    assert inspected[2:] == ["a.wav"]
    known = json.loads(audio.INDEX.read_text())["files"]
    assert {stamped.split("|")[0] for stamped in known} == {str(changed)}  # not what is gone


def test_look_over_does_not_remember_faults(tmp_path: Path, inspected: list[str]) -> None:
    """The reason may lie outside the file."""
    path = tmp_path / "a.wav"
    assert look_over([path]) == {path: "cannot be opened (No such file or directory)"}
    put(path)
    assert look_over([path]) == {path: inspect(path)}


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 2, "files": {"x": {"frames": 1}}}'])
def test_look_over_ignores_a_damaged_index(
    tmp_path: Path, inspected: list[str], content: str
) -> None:
    path = put(tmp_path / "a.wav")
    audio.INDEX.parent.mkdir()
    audio.INDEX.write_text(content)
    assert look_over([path]) == look_over([path]) == {path: inspect(path)}
    assert inspected == ["a.wav"]


# Finding


def test_find_audio_lists_files_by_name(tmp_path: Path) -> None:
    names = ["b.wav", "a-1.FLAC", "a/ü ö.ogg", "a/b/c.d.opus"]
    for name in [*names, "a/._b.wav", ".hidden/c.wav", "a/notes.txt", "folder.wav/x.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_audio(tmp_path)
    assert list(found) == ["a/b/c.d", "a/ü ö", "a-1", "b", "folder.wav/x"]
    assert found["a-1"] == tmp_path / "a-1.FLAC"
    (tmp_path / "b.flac").touch()
    with pytest.raises(AudioError, match=r"both .*b\.flac and .*b\.wav are there; remove one"):
        find_audio(tmp_path)


def test_find_audio_follows_links_to_folders_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "x.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "itself").symlink_to(tmp_path / "corpus")
    assert list(find_audio(tmp_path / "corpus")) == ["linked/x"]


# Writing


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [("a.wav", None, 2**-15), ("a.wav", "FLOAT", 1e-7), ("a.FLAC", None, 2**-15)],
)
def test_read_gives_what_was_written(
    tmp_path: Path, name: str, subtype: str | None, error: float
) -> None:
    x = sound(1)
    write(tmp_path / name, x, subtype)
    assert np.abs(read(tmp_path / name) - x).max() <= error
    assert os.listdir(tmp_path) == [name]


def test_write_clips_at_full_scale(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.5]))
    assert read(tmp_path / "a.wav") == pytest.approx([1, -1, 0.5], abs=1e-4)


@pytest.mark.parametrize("place", ["missing/a.wav", "file/a.wav", "folder.wav"])
def test_write_says_where_it_cannot(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(DataError, match=f"{place} cannot be written"):
        write(tmp_path / place, sound(1))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]
