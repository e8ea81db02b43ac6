"""What can be wrong with an audio file: every fault is told, none ends in another error."""

from __future__ import annotations

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
from recordings import sound

from data.audio import AudioError, inspect, read, write

RATE = 16000


def _wav(x: np.ndarray, rate: int = RATE, subtype: str = "FLOAT") -> Callable[[Path], None]:
    return lambda path: sf.write(path, x, rate, subtype)


def _cut(name: str, share: float, stretch: bytes = b"") -> Callable[[Path], None]:
    """A good file, of which a part is missing or replaced."""

    def make(path: Path) -> None:
        write(path.with_name(name), sound(8))
        content = path.with_name(name).read_bytes()
        place = int(share * len(content))
        rest = content[place + len(stretch) :] if stretch else b""
        path.with_name(name).unlink()
        path.write_bytes(content[:place] + stretch + rest)

    return make


def _flac(change: Callable[[bytearray], None]) -> Callable[[Path], None]:
    """A good flac file with another header."""

    def make(path: Path) -> None:
        sf.write(path, sound(1), RATE, "PCM_16", format="FLAC")
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)

    return make


def _announce(content: bytearray, samples: int) -> None:
    field = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    content[18:26] = field.to_bytes(8, "big")


def _no_block_size(content: bytearray) -> None:
    content[10:12] = bytes(2)


def _stereo_infinite(path: Path) -> None:
    x = np.zeros((RATE, 2))
    x[500] = np.inf, -np.inf
    sf.write(path, x, RATE, "FLOAT")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero bytes": (lambda path: path.touch(), "empty: no bytes"),
    "no samples": (_wav(np.zeros(0)), "empty: no samples"),
    "one sample, lost in resampling": (_wav(np.ones(1), 48000), "empty: no samples"),
    "text": (lambda path: path.write_text("hello"), "cannot be decoded"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "cannot be decoded"),
    "missing": (lambda path: None, "cannot be opened .No such file"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "cannot be opened .No such file"),
    "circular link": (lambda path: path.symlink_to(path), "cannot be opened .Too many levels"),
    "folder": (lambda path: path.mkdir(), "not a file"),
    "pipe": (lambda path: os.mkfifo(path), "not a file"),
    "cut wav": (_cut("b.wav", 0.6), "cut short or damaged"),
    "wav of a header": (_cut("b.wav", 44 / 256044), "cut short or damaged"),
    "cut flac": (_cut("b.flac", 0.6), "cannot be decoded"),
    "holey flac": (_cut("b.flac", 0.5, bytes(3000)), "cannot be decoded"),
    "holey vorbis": (_cut("b.ogg", 0.5, bytes(500)), "cut short or damaged"),
    "holey opus": (_cut("b.opus", 0.5, bytes(500)), "cut short or damaged|malformed"),
    "flac of unknown length": (_flac(lambda b: _announce(b, 0)), "does not tell its length"),
    "flac of 49 days": (_flac(lambda b: _announce(b, 2**36 - 1)), "cannot be decoded|cut short"),
    "flac that cannot be sought in": (_flac(_no_block_size), "cannot be decoded"),
    "NaN": (_wav(np.where(np.arange(48000) == 99, np.nan, 0.1), 48000), "NaN or infinite"),
    "infinite": (_wav(np.full(RATE, -np.inf)), "NaN or infinite"),
    "infinite, both signs": (_stereo_infinite, "NaN or infinite"),
    "beyond float": (_wav(np.full(RATE, 1e300), subtype="DOUBLE"), "NaN or infinite"),
    "not audio": (_wav(1e30 * sound(1)), "above 200 dB"),
    "silent": (_wav(np.zeros(RATE)), "silent: below -100 dB"),
    "almost silent": (_wav(np.full(RATE, 0.9e-5)), "silent: below -100 dB"),
    "rate of 7 Hz": (_wav(sound(1), 7), "a sampling rate of 7 Hz"),
    "rate of 2 GHz": (_wav(sound(1), 2**31 - 1), "a sampling rate of 2147483647 Hz"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_told(tmp_path: Path, fault: str):
    make, reason = FAULTS[fault]
    make(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=reason) as raised:
        inspect(tmp_path / "a.wav")
    assert str(tmp_path) not in str(raised.value)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["wav", "flac", "ogg", "opus"]), st.data())
def test_no_damage_leads_to_another_error(
    tmp_path_factory: pytest.TempPathFactory, extension: str, data: st.DataObject
):
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


def test_what_programs_write_into_a_pipe_is_whole(tmp_path: Path):
    path = tmp_path / "a.wav"
    write(path, sound(1))
    content = bytearray(path.read_bytes())
    for announced in (0xFFFFFFFF, 0x7FFFFFFF):
        content[4:8] = content[40:44] = struct.pack("<I", announced)
        path.write_bytes(content)
        assert inspect(path).frames == RATE


def test_a_file_scaled_to_integers_is_usable(tmp_path: Path):
    x = np.round(32768 * sound(1))
    sf.write(tmp_path / "a.wav", x, RATE, "FLOAT")
    assert np.array_equal(read(tmp_path / "a.wav"), x)
    level = 10 * np.log10(np.mean(x**2))
    assert inspect(tmp_path / "a.wav").level == pytest.approx(level, abs=1e-6)
