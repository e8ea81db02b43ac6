"""Audio files: every format, rate and channel count, pieces of them, finding and writing them."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put, sound

from data import audio
from data.audio import AudioError, find_audio, inspect, read, write
from data.utils import DataError

RATE = 16000


# Reading


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.WAV", "PCM_32", 1e-7),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.wav", "ULAW", 2**-5),
        ("a.flac", "PCM_16", 2**-15),
        ("a.Flac", "PCM_24", 2**-23),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_encodings_and_channels(
    tmp_path: Path, name: str, subtype: str, error: float, channels: int
):
    x = np.stack([sound(0.1, seed=channel) for channel in range(channels)], axis=1)
    sf.write(tmp_path / name, x, RATE, subtype)
    found = read(tmp_path / name)
    assert found.dtype == np.float32
    assert found.shape == (1600,)
    assert np.abs(found - x.mean(axis=1)).max() <= error
    assert inspect(tmp_path / name).channels == channels


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_other_rates_keep_frequency_level_and_length(tmp_path: Path, rate: int):
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    sf.write(tmp_path / "a.wav", tone, rate, "FLOAT")
    found = read(tmp_path / "a.wav")
    assert found.shape == (RATE,)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert np.abs(found - expected)[800:-800].max() < 1e-4  # the edges ring
    info = inspect(tmp_path / "a.wav")
    assert (info.frames, info.rate) == (RATE, rate)
    assert info.level == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.02)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"], ids=["vorbis", "opus"])
def test_lossy_files_keep_time_and_level(tmp_path: Path, name: str):
    x = soxr.resample(sound(2, 4000), 4000, RATE)
    write(tmp_path / name, x)
    found = read(tmp_path / name)
    assert len(found) == len(x)
    # A lag of one sample would be an error of 0.4 in this signal of 2 kHz.
    assert np.sqrt(np.mean((found - x) ** 2) / np.mean(x**2)) < 0.25


# Pieces

_KINDS = {
    "wav": ("a.wav", RATE, 0.0),
    "wav of telephony": ("gsm.wav", 8000, 1e-6),  # cannot be sought in
    "flac": ("a.flac", RATE, 0.0),
    "wav at 44.1 kHz": ("a.wav", 44100, 1e-6),
    "flac at 48 kHz": ("a.flac", 48000, 1e-6),
    "wav at 8 kHz": ("a.wav", 8000, 1e-6),
    "wav at an odd rate": ("a.wav", 15999, 1e-6),
    "vorbis": ("a.ogg", RATE, 0.0),
    "vorbis at 44.1 kHz": ("a.ogg", 44100, 1e-6),
    # The decoder's memory of what came before a seek: measured up to 0.0025 on speech.
    "opus": ("a.opus", RATE, 0.01),
    "opus at 48 kHz": ("a.opus", 48000, 0.01),
}


@pytest.fixture(scope="module", params=_KINDS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, float]:
    name, rate, error = _KINDS[request.param]
    path = tmp_path_factory.mktemp("kinds") / name
    format_, subtype = audio._FORMATS[path.suffix]
    subtype = "GSM610" if name == "gsm.wav" else subtype
    with sf.SoundFile(path, "w", rate, 1, subtype, format=format_) as file:
        file.write(sound(3.01, rate))
    assert inspect(path).rate == rate
    return path, read(path), error


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_piece_is_that_of_the_whole(whole: tuple[Path, np.ndarray, float], data: st.DataObject):
    path, x, error = whole
    # Near the end more often: there libsndfile's own seeking in Vorbis goes wrong.
    start = data.draw(st.one_of(st.integers(0, len(x)), st.integers(len(x) - 8000, len(x) + 99)))
    frames = data.draw(st.one_of(st.none(), st.integers(1, 40000)))
    piece = read(path, start, frames)
    expected = x[start:] if frames is None else x[start : start + frames]
    assert piece.shape == expected.shape
    assert piece.dtype == np.float32
    assert np.abs(piece - expected).max(initial=0) <= error


def test_pieces_of_real_recordings(shared_data: Path):
    folder = shared_data / "open_mix"
    for path in sorted(folder.rglob("*.opus"))[::400]:
        x = read(path)
        for start in range(0, len(x), 1 + len(x) // 7):
            piece = read(path, start, RATE)
            assert len(piece) == min(RATE, len(x) - start)
            assert np.abs(piece - x[start : start + RATE]).max() < 0.01


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes as Linux does")
@pytest.mark.parametrize("kind", ["wav", "flac", "opus"])
def test_a_piece_of_a_long_file_reads_little_of_it(tmp_path: Path, kind: str):
    """Bytes asked of the system, of a file of two minutes. (Vorbis is read from its start.)"""

    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    path = tmp_path / f"long.{kind}"
    write(path, np.tile(sound(10), 12))
    for start in (0, 60 * RATE, 117 * RATE):
        before = read_so_far()
        assert len(read(path, start, 2 * RATE)) == 2 * RATE
        assert read_so_far() - before < 150_000 + 0.05 * path.stat().st_size


def test_reading_behind_the_end_gives_nothing(tmp_path: Path):
    for rate in (RATE, 44100):
        sf.write(tmp_path / "a.wav", sound(0.5, rate), rate)
        assert read(tmp_path / "a.wav", 8000, 10).shape == (0,)
        assert read(tmp_path / "a.wav", 10**9).shape == (0,)
        assert read(tmp_path / "a.wav", 7990, 100).shape == (10,)


# Finding


def test_finding(tmp_path: Path):
    names = ["b.wav", "a-1.FLAC", "a/ü ö.ogg", "a/b/c.d.opus", "a/._b.wav", ".hidden/c.wav"]
    for name in [*names, "a/notes.txt", "wav", "folder.wav/x.wav"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "nowhere.wav").symlink_to("missing")
    found = find_audio(tmp_path)
    assert found == {
        "a/b/c.d": tmp_path / "a/b/c.d.opus",
        "a/ü ö": tmp_path / "a/ü ö.ogg",
        "a-1": tmp_path / "a-1.FLAC",
        "b": tmp_path / "b.wav",
        "folder.wav/x": tmp_path / "folder.wav/x.wav",
        "nowhere": tmp_path / "nowhere.wav",
    }
    assert list(found.values()) == sorted(found.values())


def test_names_agree_however_the_system_composes_letters(tmp_path: Path):
    for form in ("NFC", "NFD"):
        put(tmp_path / form / unicodedata.normalize(form, "é.wav"))
    assert find_audio(tmp_path / "NFC").keys() == find_audio(tmp_path / "NFD").keys() == {"é"}


def test_two_files_of_one_name(tmp_path: Path):
    put(tmp_path / "a" / "x.wav")
    put(tmp_path / "a" / "x.flac")
    with pytest.raises(AudioError, match=r"both .*x\.flac and .*x\.wav are there; remove one"):
        find_audio(tmp_path)
    (tmp_path / "a" / "x.flac").unlink()
    (tmp_path / "a" / "x.flac").mkdir()  # a folder is no file of that name
    assert list(find_audio(tmp_path)) == ["a/x"]


def test_links_to_folders_are_followed_once(tmp_path: Path):
    put(tmp_path / "elsewhere" / "x.wav")
    for folder in ("one", "two"):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "itself").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "one" / "other").symlink_to(tmp_path / "corpus" / "two")
    (tmp_path / "corpus" / "two" / "other").symlink_to(tmp_path / "corpus" / "one")
    assert list(find_audio(tmp_path / "corpus")) == ["linked/x"]


# Writing


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [("a.wav", None, 2**-15), ("a.wav", "FLOAT", 1e-7), ("a.FLAC", None, 2**-15)],
)
def test_written_is_read_again(tmp_path: Path, name: str, subtype: str | None, error: float):
    x = sound(1)
    write(tmp_path / name, x, subtype)
    assert np.abs(read(tmp_path / name) - x).max() <= error
    assert sf.info(tmp_path / name).samplerate == RATE
    assert os.listdir(tmp_path) == [name]


def test_what_exceeds_full_scale_is_clipped(tmp_path: Path):
    write(tmp_path / "a.wav", np.array([1.5, -1.5, 0.5]))
    assert read(tmp_path / "a.wav") == pytest.approx([1, -1, 0.5], abs=1e-4)


def test_long_vorbis_and_long_names(tmp_path: Path):
    name = 83 * "長" + ".ogg"  # 253 bytes, of at most 255
    write(tmp_path / name, np.tile(sound(10), 12))
    assert len(read(tmp_path / name)) == 120 * RATE


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    before = put(tmp_path / "old.wav").read_bytes()
    write_bytes = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write_bytes(path, bytes(content[: len(content) // 2]))
        raise error

    monkeypatch.setattr(Path, "write_bytes", half)
    told = DataError if isinstance(error, OSError) else KeyboardInterrupt
    for name in ("old.wav", "new.wav"):
        with pytest.raises(told) as raised:
            write(tmp_path / name, sound(1))
        if told is DataError:
            message = f"{tmp_path / name} cannot be written (No space left on device)"
            assert str(raised.value) == message
    assert os.listdir(tmp_path) == ["old.wav"]
    assert (tmp_path / "old.wav").read_bytes() == before


def test_a_full_disk_is_told(tmp_path: Path):
    code = (
        "import resource, signal, sys, numpy, pathlib\n"
        "from data.audio import write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))\n"
        "write(pathlib.Path(sys.argv[1]), numpy.ones(9999))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.wav")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr.endswith("a.wav cannot be written (File too large)\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["missing/a.wav", "file/a.wav", "folder.wav"])
def test_where_nothing_can_be_written(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(DataError, match=f"{place} cannot be written"):
        write(tmp_path / place, sound(1))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]
