"""Find, check, read and write audio files.

Everything inside the project is 16 kHz mono float32. Other rates (soxr, very high quality) and
channel counts (their mean) are converted on reading.
"""

import io
import json
import logging
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from bsbimamba.data.levels import (
    FRAME,
    SAMPLE_RATE,
    SILENCE,
    Signal,
    active_frames,
    active_level,
    power,
)
from bsbimamba.data.workers import in_threads
from bsbimamba.utils import replacing, write_text

log = logging.getLogger("data")

# The extensions that folders are searched for. A file that is named itself may have any.
EXTENSIONS = frozenset((
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".sph", ".w64", ".wav", ".wave",
))  # fmt: skip
# Those of recordings that libsndfile cannot decode.
FOREIGN = frozenset((".3gp", ".aac", ".amr", ".m4a", ".mkv", ".mov", ".mp4", ".webm", ".wma"))
_CANCELLED = 0.01  # share of the channels' power: they cancel if their mean has less
RATES = range(4_000, 1_000_000)
# Where `look_over` keeps the facts about good files. Its number goes up when results change.
_CACHES = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
INDEX = Path(_CACHES, "bs-bimamba", "audio-index-5.json")
# Formats that are written, by extension, with their usual encodings.
_WRITTEN = {".wav": ("WAV", None), ".flac": ("FLAC", None), ".opus": ("OGG", "OPUS")}
# libsndfile seeks to a wrong place near the end of Vorbis (its issue 885), and roughly in MP3.
_NOT_SOUGHT = ("VORBIS", "MPEG_LAYER_III")
UNKNOWN_LENGTH = 1 << 40  # samples, years; libsndfile's number is above it if none is stored
_BLOCK = 1 << 17  # samples; libsndfile crashes if it is given minutes of Vorbis at once


class AudioError(Exception):
    """A file cannot be used; the message says why, without naming the file."""


@dataclass(frozen=True)
class Info:
    """Facts about a whole file.

    Attributes:
        frames: length in samples at 16 kHz.
        slow: whether pieces of it take long to decode.
        active_level: of the 16-kHz mono signal in dB of full scale (function `active_level`).
        activity: which of its frames hold sound, 8 to a byte, in hexadecimal; see `active`.
    """

    frames: int
    slow: bool
    active_level: float
    activity: str

    @property
    def active(self) -> NDArray[np.bool_]:
        """Return which frames hold sound, (ceil(frames / FRAME),) (`active_frames`)."""
        packed = np.frombuffer(bytes.fromhex(self.activity), np.uint8)
        return np.unpackbits(packed, count=-(-self.frames // FRAME)).astype(bool)


def look_over(paths: Sequence[Path]) -> dict[Path, Info | str]:
    """Return the facts about each file (`inspect`), or why it cannot be used.

    Facts about good files are kept in INDEX. A file is decoded again if its size or its time of
    change differs from the index.
    """
    try:
        index = json.loads(INDEX.read_text("utf-8"))
    except (OSError, ValueError):  # missing or damaged
        index = {}
    # Taken before a file is read, so that a change in between is noticed the next time.
    stamps = {path: stamp(path) for path in paths}
    new = [path for path, stamped in stamps.items() if stamped not in index]

    def facts_or_reason(path: Path) -> Info | str:
        try:
            return inspect(path)
        except AudioError as error:
            return str(error)

    found = dict(zip(new, in_threads(facts_or_reason, new, "checking audio"), strict=True))
    index |= {stamps[path]: asdict(x) for path, x in found.items() if isinstance(x, Info)}
    if found:
        with suppress(OSError):  # where nothing can be kept, files are decoded each time
            INDEX.parent.mkdir(parents=True, exist_ok=True)
            write_text(INDEX, json.dumps(index))
    return {path: found.get(path) or Info(**index[stamped]) for path, stamped in stamps.items()}


def stamp(path: Path) -> str:
    """Return path, size and time of change of a file, by which it is recognised."""
    if not os.path.exists(path):
        return os.path.abspath(path)
    status = path.stat()
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def inspect(path: Path) -> Info:
    """Decode a file completely and return the facts about it.

    An Ogg file that lacks its beginning or its end passes for a shorter one. Raises AudioError if
    the file cannot be decoded, is empty, cut short, silent, or has samples that are not finite, or
    if its channels cancel.
    """
    with opened(path) as file:
        rate, slow = file.samplerate, file.format == "OGG" or not _can_seek(file)
        x, channels = _mono(file)
    if not np.isfinite(x).all():
        raise AudioError("has NaN or infinite samples")
    mono = _to_16k(x, rate)
    if not len(mono):
        raise AudioError("empty: no samples")
    if power(x) < _CANCELLED * channels:
        raise AudioError("its channels cancel: their mean is nearly silent; keep one of them")
    if power(mono) < 10 ** (SILENCE / 10):
        raise AudioError(f"silent: below {SILENCE:.0f} dB of full scale")
    activity = np.packbits(active_frames(mono)).tobytes().hex()
    return Info(len(mono), slow, active_level(mono), activity)


def read(path: Path, start: int = 0, frames: int | None = None) -> Signal:
    """Return samples `start` to `start + frames` (None: the end) of a file at 16 kHz, mono (s,).

    They are fewer where the file ends earlier. A piece equals the same piece of the whole bit for
    bit; in Opus but for the decoder's memory, less than 0.01 of full scale. Files of other rates,
    Vorbis and MP3 are decoded as a whole for each piece (but see `data.samples`).

    Raises AudioError if the file cannot be decoded.
    """
    with opened(path) as file:
        if frames is not None and _can_seek(file):
            file.seek(min(start, file.frames))
            return file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        whole = _to_16k(_mono(file)[0], file.samplerate)
    return whole[start : None if frames is None else start + frames]


def encode(x: NDArray, extension: str, subtype: str | None = None) -> bytes:
    """Return a file's content for a mono signal (s,) at 16 kHz. The arguments are `write`'s."""
    kind, usual = _WRITTEN[extension]
    encoded = io.BytesIO()
    sf.write(encoded, x, SAMPLE_RATE, subtype or usual, format=kind)
    return encoded.getvalue()


def write(path: Path, x: NDArray, subtype: str | None = None) -> None:
    """Write a mono signal (s,) at 16 kHz within [-1, 1], the whole file or nothing.

    Args:
        path: the file, which ends in .wav, .flac or .opus.
        subtype: of soundfile, "PCM_16" or "FLOAT"; None for the format's usual one.
    """
    content = encode(x, path.suffix, subtype)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def recordings(folder: Path) -> list[Path]:
    """Return the audio files below a folder, and warn of those that libsndfile cannot decode.

    Links are followed, hidden names left out. Raises OSError if a folder cannot be listed.
    """
    files = sorted(_walk(folder))
    if foreign := [file for file in files if file.suffix.lower() in FOREIGN]:
        counts = Counter(file.suffix.lower() for file in foreign)
        passed = ", ".join(f"{count} {extension}" for extension, count in counts.items())
        log.warning("%s: passed over %s; %s", folder, passed, _how_to_convert(foreign[0]))
    return [file for file in files if file.suffix.lower() not in FOREIGN]


def _how_to_convert(path: Path) -> str:
    command = ["ffmpeg", "-i", str(path), str(path.with_suffix(".wav"))]
    return f"convert such files, as by: {shlex.join(command)}"


def _walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the audio files below `folder`. above: the real folders that it lies in."""
    real = os.path.realpath(folder)
    if real in above:  # a link back to where this came from
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        elif path.suffix.lower() in EXTENSIONS | FOREIGN:
            yield path


class _Decoder(sf.SoundFile):
    def seekable(self) -> bool:
        """Return False: soundfile would seek after each read, which is not exact in all formats."""
        return False


class _Endless(io.FileIO):
    """A file that claims to end 16 TB later, with some zeros after its own end.

    libsndfile stops where it guesses from the size that an MP3 without a Xing header ends. The
    zeros complete a frame that was cut, which its decoder would refuse.
    """

    _rest = 1000  # its decoder gives up after 1024 bytes that are no frame

    def tell(self) -> int:
        """Return the place in the file; libsndfile asks at the end how long it is."""
        place = super().tell()
        return place + ((place == os.fstat(self.fileno()).st_size) << 44)

    def readinto(self, buffer: Any) -> int:
        """Read into the buffer. Return the number of bytes."""
        count = super().readinto(buffer) or 0
        added = min(len(buffer) - count, self._rest)
        buffer[count : count + added] = bytes(added)
        self._rest -= added
        return count + added


@contextmanager
def opened(path: Path) -> Iterator[_Decoder]:
    """Open a file for decoding; its `frames` are UNKNOWN_LENGTH or more if they are not stored.

    Raises AudioError for what goes wrong until it is closed.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
            raise AudioError("not a file")
        if status.st_size == 0:
            raise AudioError("empty: no bytes")
        # soundfile cannot open every name, and hides the system's reason.
        with path.open("rb", buffering=0) as raw, ExitStack() as stack:
            kind, announced = raw.read(4), raw.read(4)
            count = int.from_bytes(announced, "big" if kind == b"FORM" else "little")
            # Into a pipe, programs write a count of 0, or of 2 or 4 GB; others forget a header.
            if kind in (b"RIFF", b"FORM") and status.st_size + 64 < count < 0x7FFF0000:
                raise AudioError("cut short: its header announces more than there is")
            raw.seek(0)
            file = stack.enter_context(_Decoder(raw.fileno(), closefd=False))
            if file.samplerate not in RATES:
                raise AudioError(f"no audio: a sampling rate of {file.samplerate} Hz")
            if file.subtype == "MPEG_LAYER_III":
                endless = _Decoder(stack.enter_context(_Endless(path)))
                stack.enter_context(endless)
                file = endless if endless.frames >= UNKNOWN_LENGTH else file
            yield file
    except sf.LibsndfileError as error:
        how = f"; {_how_to_convert(path)}" if path.suffix.lower() in FOREIGN else ""
        raise AudioError(f"cannot be decoded ({error.error_string.rstrip('.')}){how}") from None
    except OSError as error:
        raise AudioError(f"cannot be opened ({error.strerror or error})") from None


def blocks(file: sf.SoundFile) -> Iterator[NDArray[np.float32]]:
    """Yield the samples (n, c) of a file that was just opened, until its decoder ends.

    Raises AudioError if they are fewer than its header says.
    """
    missing = file.frames
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        missing -= len(block)
        yield block
    if missing > 0 and file.frames < UNKNOWN_LENGTH:
        raise AudioError(f"cut short or damaged: {missing} of {file.frames} samples are missing")


def _mono(file: sf.SoundFile) -> tuple[Signal, float]:
    """Return the channels' mean at the file's own rate, (s,), and the mean of their powers."""
    pieces, energy = [np.zeros(0, np.float32)], 0.0
    with np.errstate(all="ignore"):  # `inspect` refuses what is not finite
        for block in blocks(file):
            pieces.append(block.mean(axis=1))
            energy += power(block) * len(block)
    x = np.concatenate(pieces)
    return x, energy / max(1, len(x))


def _can_seek(file: _Decoder) -> bool:
    """Tell whether a piece is decoded without what lies before it, and needs no resampling."""
    exact = file.subtype not in _NOT_SOUGHT and file.frames < UNKNOWN_LENGTH
    return exact and file.samplerate == SAMPLE_RATE and sf.SoundFile.seekable(file)


def _to_16k(x: Signal, rate: int) -> Signal:
    return x if rate == SAMPLE_RATE else soxr.resample(x, rate, SAMPLE_RATE, quality="VHQ")
