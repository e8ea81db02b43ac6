"""Audio files: reading every kind and pieces of it, checking, writing; levels."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import put, sound

from bsbimamba.data import audio
from bsbimamba.data.audio import AudioError, inspect, look_over, read
from bsbimamba.data.levels import FRAME, active_frames, active_level, active_rms, lag_of
from bsbimamba.inference.files import FileSource

RATE = 16000

# Reading


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [("a.wav", "PCM_U8", 2**-7), ("a.WAV", "DOUBLE", 1e-7), ("a.Flac", "PCM_24", 2**-23)],
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


@pytest.mark.parametrize("rate", [11025, 48000])
def test_read_resamples_and_keeps_frequency_and_level(tmp_path: Path, rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    sf.write(tmp_path / "a.wav", tone, rate, "FLOAT")
    found = read(tmp_path / "a.wav")
    assert found.shape == (RATE,)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    assert np.abs(found - expected)[800:-800].max() < 1e-4  # the edges ring
    info = inspect(tmp_path / "a.wav")
    assert (info.frames, info.slow) == (RATE, True)
    assert info.active_level == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.2)


# Rate, and how far a piece may be from that of the whole.
_KINDS = {
    "a.wav": (RATE, 0.0),
    "gsm.wav": (RATE, 0.0),  # cannot be sought in
    "a.flac": (44100, 0.0),
    "a.ogg": (RATE, 0.0),
    "a.mp3": (RATE, 0.0),
    # The decoder's memory of what came before a seek: measured up to 0.0025 on speech.
    "a.opus": (48000, 0.01),
}


@pytest.fixture(scope="module", params=_KINDS)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, float]:
    rate, error = _KINDS[request.param]
    path = tmp_path_factory.mktemp("kinds") / request.param
    subtype = {"gsm": "GSM610"}.get(path.stem, "OPUS" if path.suffix == ".opus" else None)
    sf.write(path, sound(3.01, rate), rate, subtype, format="OGG" if subtype == "OPUS" else None)
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


# Files that do not store their length


def _no_xing(content: bytes) -> bytes:  # the header becomes a frame of silence
    return content.replace(b"Xing", bytes(4), 1)


def _announcing(content: bytes, size: bytes) -> bytes:  # as a wav file that was written into a pipe
    return content[:4] + size + content[8:40] + size + content[44:]


_COVER = b"ID3\3\0\0\0\0\x27\x10" + bytes(5008)  # a tag of 5,018 bytes
NO_LENGTH: dict[str, Callable[[bytes], bytes]] = {
    "mp3.wav": _no_xing,
    "cover.MP3": lambda x: 2 * _COVER + _no_xing(x),
    "cut within a frame.mp3": lambda x: _no_xing(x)[:-140],
    "interrupted.mp3": lambda x: x[:21] + bytes(8) + x[29:],  # frames and bytes
    "a.flac": lambda x: x[:21] + bytes([x[21] & 0xF0, 0, 0, 0, 0]) + x[26:],
    "2 GB.wav": lambda x: _announcing(x, b"\xff\xff\xff\x7f"),
    "4 GB.wav": lambda x: _announcing(x, b"\xff" * 4),
}


@pytest.mark.parametrize("name", NO_LENGTH)
def test_files_without_a_length_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    x, path = sound(12), tmp_path / name
    x[:RATE] *= 1e-3  # from which libsndfile estimates too short a length
    is_mp3 = "mp3" in name.lower()
    sf.write(path, x, RATE, format="MP3" if is_mp3 else None)
    path.write_bytes(NO_LENGTH[name](path.read_bytes()))
    whole, source = read(path), FileSource(path)
    lag, _, gain = lag_of(x, whole[: len(x)])
    assert 0 <= lag <= 2 * 1152 * is_mp3
    assert gain == pytest.approx(1, abs=0.3)
    assert abs(len(whole) - lag - len(x)) <= 2 * 1152 * is_mp3
    assert inspect(path).frames == source.frames == len(whole)
    np.testing.assert_array_equal(np.concatenate(list(source.blocks()), axis=1)[0], whole)
    np.testing.assert_array_equal(read(path, 9000, 300), whole[9000:9300])
    before = len(os.listdir("/proc/self/fd"))
    next(source.blocks())  # and no more
    assert len(os.listdir("/proc/self/fd")) == before


# Faults


def _wav(x: np.ndarray, rate: int = RATE) -> Callable[[Path], None]:
    return lambda path: sf.write(path, x, rate, "FLOAT")


def _cut(kind: str) -> Callable[[Path], object]:
    """A good file that ends in its middle."""

    def make(path: Path) -> None:
        sf.write(path, sound(8), RATE, format=kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda path: path.touch(), "empty: no bytes"),
    "no samples": (_wav(np.zeros(0)), "empty: no samples"),
    "text": (lambda path: path.write_text("hello"), "cannot be decoded"),
    "pipe": (lambda path: os.mkfifo(path), "not a file"),
    "missing": (lambda path: None, "cannot be opened .No such file"),
    "cut wav": (_cut("WAV"), "cut short"),
    "cut flac": (_cut("FLAC"), "cannot be decoded"),
    "cut mp3": (_cut("MP3"), "cut short or damaged: .* of 128000 samples"),
    "NaN": (_wav(np.where(np.arange(48000) == 99, np.nan, 0.1), 48000), "NaN or infinite"),
    "silent": (_wav(np.full(RATE, 0.9e-5)), "silent: below -100 dB"),
    "channels": (lambda path: sf.write(path, np.outer(sound(1), [1, -1]), RATE), "channels cancel"),
    "rate of 7 Hz": (_wav(sound(1), 7), "a sampling rate of 7 Hz"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_inspect_names_every_fault(tmp_path: Path, fault: str) -> None:
    make, reason = FAULTS[fault]
    make(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=reason):
        inspect(tmp_path / "a.wav")


# What is remembered of files


def test_look_over_decodes_only_new_and_changed_files(tmp_path: Path, own_index: None) -> None:
    path, other = put(tmp_path / "a.wav"), put(tmp_path / "b.flac", 1)
    first = look_over([path, other])
    assert first == {path: inspect(path), other: inspect(other)}
    time = path.stat().st_mtime_ns
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, ns=(time, time))
    assert look_over([path, other]) == first
    put(path, seed=1)
    other.unlink()
    found = look_over([path, other])
    assert found[path] == inspect(path) != first[path]
    assert "cannot be opened" in str(found[other])
    audio.INDEX.write_text("{")
    assert look_over([path]) == {path: inspect(path)}


# Levels


def _level_by_definition(x: np.ndarray) -> float:
    """`active_level` as its docstring says it, one sample and one threshold at a time."""
    power = np.mean(x**2)
    keep = np.exp(-1 / (0.03 * RATE))
    once = twice = 0.0
    envelope = []
    for value in np.abs(x) / np.sqrt(power):
        once = keep * once + (1 - keep) * value
        twice = keep * twice + (1 - keep) * once
        envelope.append(twice)
    looked_at = np.array(envelope[:: RATE // 1000])
    for threshold in np.arange(-60, 20, 0.5):
        over = looked_at >= 10 ** (threshold / 20)
        active = sum(over[max(0, i - 199) : i + 1].any() for i in range(len(over)))
        level = 10 * np.log10(len(over) / max(active, 1))
        if level - threshold <= 15.9:
            return float(10 * np.log10(power) + level)
    raise AssertionError


@pytest.mark.parametrize(
    ("seconds", "before", "after"), [(0.0001, 0, 0), (0.004, 0, 40), (0.3, 2000, 12000)]
)
def test_active_level_follows_its_definition(seconds: float, before: int, after: int) -> None:
    x = np.pad(sound(seconds), (before, after))
    assert active_level(x) == pytest.approx(_level_by_definition(x), abs=1e-9)


def test_active_frames_and_rms_go_by_the_loudest_frame() -> None:
    levels = np.array([0, 1, 0.0101, 0.0099, 0.5, 0.032])
    x = np.repeat(levels, FRAME)[:-100]  # the last frame is a shorter one
    x[::2] *= -1
    assert active_frames(x).tolist() == [False, True, True, False, True, True]
    assert active_rms(x) == pytest.approx(np.sqrt((1 + 0.25 + 0.032**2) / 3))
    assert active_rms(1e-20 * x) == pytest.approx(1e-20 * active_rms(x))
    assert active_rms(np.zeros(7)) == 0
    assert not active_frames(np.zeros(7)).any()
