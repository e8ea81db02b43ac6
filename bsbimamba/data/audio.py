"""Find, check, read and write audio files.

Everything inside the project is 16 kHz mono float32. Other rates (soxr, very high quality) and
channel counts (their mean) are converted on reading.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from bsbimamba.data.sound import FRAME, SAMPLE_RATE, active_frames, active_level
from bsbimamba.data.workers import in_threads
from bsbimamba.utils import ROOT, DataError, replacing, write_text

log = logging.getLogger("data")

# Format and encoding of the files that are written, by extension.
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
EXTENSIONS = _FORMATS.keys()
# In dB of full scale: a file below the first is silent, one above the second holds no audio,
# however its samples were scaled (32-bit integers reach 187).
SILENCE, LOUDEST = -100.0, 200.0
# A sample from the first on is clipped; a signal with the second share of clipped samples is, too.
FULL_SCALE, CLIPPED = 32767 / 32768, 1e-4
RATES = range(4_000, 1_000_000)
_WRITTEN_BLOCK = 1 << 18
# Where `look_over` keeps what it knows of good files. Its version goes up when results change.
INDEX = ROOT / ".cache" / "audio-index.json"
_VERSION = 2
_UNKNOWN_LENGTH = 1 << 48  # libsndfile's number where the header gives none is far above

Signal = NDArray[np.float32]


class AudioError(Exception):
    """A file cannot be used; the message says why, without naming the file."""


@dataclass(frozen=True)
class Info:
    """Facts about a whole file.

    Attributes:
        frames: length in samples at 16 kHz.
        rate, channels: as stored.
        level: of the 16-kHz mono signal in dB of full scale (root mean square).
        active_level: that of its active parts (`data.sound.active_level`).
        activity: which of its frames hold sound, 8 to a byte, in hexadecimal; see `active`.
    """

    frames: int
    rate: int
    channels: int
    level: float
    active_level: float
    activity: str

    @property
    def active(self) -> NDArray[np.bool_]:
        """Return which frames hold sound, (ceil(frames / FRAME),) (`data.sound.active_frames`)."""
        packed = np.frombuffer(bytes.fromhex(self.activity), np.uint8)
        return np.unpackbits(packed, count=-(-self.frames // FRAME)).astype(bool)


def find_audio(folder: Path) -> dict[str, Path]:
    """Return the audio files below `folder` by relative path without extension, sorted.

    Links are followed; hidden files and folders are left out.

    Raises:
        AudioError: two files differ in their extension only.
        OSError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for path in sorted(walk(folder)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise AudioError(f"both {found[name]} and {path} are there; remove one")
        found[name] = path
    return found


def look_over(paths: Sequence[Path]) -> dict[Path, Info | str]:
    """Return for each file its facts (`examine`), or why it cannot be used.

    Facts of good files are kept in INDEX. A file is decoded again if its size or its time of change
    is another one.
    """
    try:
        index = json.loads(INDEX.read_text("utf-8"))
        files = index["files"] if index["version"] == _VERSION else {}
        known = {stamped: Info(**info) for stamped, info in files.items()}
    except (OSError, ValueError, LookupError, TypeError):  # missing, damaged or another version's
        known = {}
    # Taken before a file is read, so that a change in between is noticed the next time.
    stamps = {path: stamp(path) for path in paths}
    result: dict[Path, Info | str] = {
        path: known[stamped] for path, stamped in stamps.items() if stamped in known
    }
    new = [path for path in stamps if path not in result]

    def facts_or_reason(path: Path) -> Info | str:
        try:
            return inspect(path)
        except AudioError as error:
            return str(error)

    result |= dict(zip(new, in_threads(facts_or_reason, new, "checking audio"), strict=True))
    good = {stamps[path]: info for path in new if isinstance(info := result[path], Info)}
    if good:
        there = {s: info for s, info in known.items() if os.path.exists(s.split("|")[0])}
        files = {stamped: asdict(info) for stamped, info in (there | good).items()}
        try:
            INDEX.parent.mkdir(exist_ok=True)
            write_text(INDEX, json.dumps({"version": _VERSION, "files": files}))
        except OSError as error:
            log.info("the list of checked files is not kept (%s)", error)
    return result


def stamp(path: Path) -> str:
    """Return path, size and time of change of a file, by which it is recognised."""
    try:
        status = path.stat()
    except OSError:
        return os.path.abspath(path)
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def inspect(path: Path) -> Info:
    """Return the facts about a file. Raise AudioError as `examine` does."""
    return examine(path)[0]


def examine(path: Path) -> tuple[Info, Signal]:
    """Decode a file completely; return its facts, and its samples (s,) as `read` gives them.

    An Ogg file that lacks its beginning or its end passes for a shorter one.

    Raises:
        AudioError: it cannot be decoded, is empty, cut short, silent, or holds no audio.
    """
    with opened(path) as file:
        rate, channels, announced = file.samplerate, file.channels, file.frames
        x = _mono(file)
        if file.seekable():
            file.seek(announced // 2)  # as it will be when pieces are read
        cut_short = len(x) < announced or is_cut_short(path)
    if cut_short:
        raise AudioError(f"cut short or damaged: its header announces more than {len(x)} samples")
    if not np.isfinite(x).all():
        raise AudioError("has NaN or infinite samples")
    mono = _to_16k(x, rate)
    if not len(mono):
        raise AudioError("empty: no samples")
    power = float(np.mean(np.square(mono, dtype=np.float64)))
    if power < 10 ** (SILENCE / 10):
        raise AudioError(f"silent: below {SILENCE:.0f} dB of full scale")
    if not power < 10 ** (LOUDEST / 10):
        raise AudioError(f"no audio: above {LOUDEST:.0f} dB of full scale")
    activity = np.packbits(active_frames(mono)).tobytes().hex()
    level = 10 * math.log10(power)
    return Info(len(mono), rate, channels, level, active_level(mono), activity), mono


def read(path: Path, start: int = 0, frames: int | None = None) -> Signal:
    """Return samples `start` to `start + frames` (None: the end) of a file at 16 kHz, mono (s,).

    They are fewer where the file ends earlier. A piece equals the same piece of the whole bit for
    bit; in Opus but for the decoder's memory, less than 0.01 of full scale. Files of other rates
    and Vorbis are decoded as a whole for each piece (but see `data.samples`).

    Raises:
        AudioError: the file cannot be decoded.
    """
    with opened(path) as file:
        rate = file.samplerate
        # libsndfile (issue 885) misses its place when it seeks near the end of Vorbis.
        if rate == SAMPLE_RATE and file.seekable() and file.subtype != "VORBIS":
            file.seek(min(start, file.frames))
            return _mono(file, frames)
        whole = _to_16k(_mono(file), rate)
    return whole[start : None if frames is None else start + frames]


def described(path: Path) -> tuple[int, int, str]:
    """Return the sampling rate, channel count and comment of a file as stored (see `write`)."""
    with opened(path) as file:
        return file.samplerate, file.channels, file.comment


def encode(x: NDArray, extension: str, subtype: str | None = None, comment: str = "") -> bytes:
    """Return a file's content for a mono signal (s,) at 16 kHz. Arguments: see `write`."""
    kind, usual = _FORMATS[extension]
    encoded = io.BytesIO()
    with sf.SoundFile(encoded, "w", SAMPLE_RATE, 1, subtype or usual, format=kind) as file:
        if comment:
            file.comment = comment
        # libsndfile crashes where it is given minutes of Vorbis at once.
        for first in range(0, len(x), _WRITTEN_BLOCK):
            file.write(x[first : first + _WRITTEN_BLOCK])
    return encoded.getvalue()


def write(path: Path, x: NDArray, subtype: str | None = None, comment: str = "") -> None:
    """Write a mono signal (s,) at 16 kHz, the whole file or nothing.

    Args:
        path: the file; its extension is one of EXTENSIONS.
        x: samples within [-1, 1].
        subtype: of soundfile, "PCM_16" or "FLOAT"; None for the format's usual one.
        comment: a line of text that the file carries beside its samples.

    Raises:
        DataError: it cannot be written.
    """
    content = encode(x, path.suffix.lower(), subtype, comment)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror})") from None


def walk(
    folder: Path, extensions: Collection[str] = EXTENSIONS, above: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Yield files of the extensions below `folder`, links followed, hidden names left out.

    above: the real folders that it lies in. Raises OSError if a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    if real in above:  # a link back to where this came from
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if os.path.isdir(path):
            yield from walk(path, extensions, (*above, real))
        elif path.suffix.lower() in extensions:
            yield path


@contextmanager
def opened(path: Path) -> Iterator[sf.SoundFile]:
    """Open a file for decoding. Raise AudioError for what goes wrong until it is closed."""
    try:
        status = path.stat()
        # Opening a named pipe would wait forever.
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("not a file")
        if status.st_size == 0:
            raise AudioError("empty: no bytes")
        # soundfile cannot open every name, and hides the system's reason.
        with path.open("rb") as raw, sf.SoundFile(raw.fileno(), closefd=False) as file:
            if file.samplerate not in RATES:
                raise AudioError(f"no audio: a sampling rate of {file.samplerate} Hz")
            if file.frames > _UNKNOWN_LENGTH:
                raise AudioError("its header does not tell its length; encode it again")
            yield file
    except sf.LibsndfileError as error:
        raise AudioError(f"cannot be decoded ({error.error_string.rstrip('.')})") from None
    except OSError as error:
        raise AudioError(f"cannot be opened ({error.strerror or error})") from None


def _mono(file: sf.SoundFile, frames: int | None = None) -> Signal:
    """Return the next `frames` samples (None: all) at the file's own rate, its channels' mean."""
    frames = file.frames if frames is None else frames
    with np.errstate(all="ignore"):  # `examine` refuses what is not finite
        return file.read(frames, dtype="float32", always_2d=True).mean(axis=1)


def is_cut_short(path: Path) -> bool:
    """Tell whether a wav or AIFF file announces more bytes than it has, which libsndfile allows.

    Programs that write into a pipe announce 0, or 2 or 4 GB; others miscount by a header.
    """
    with path.open("rb") as file:
        head = file.read(8)
    kind = head[:4]
    announced = int.from_bytes(head[4:8], "big" if kind == b"FORM" else "little")
    size = path.stat().st_size
    return kind in (b"RIFF", b"FORM") and size + 64 < announced < 0x7FFF0000


def _to_16k(x: Signal, rate: int) -> Signal:
    return x if rate == SAMPLE_RATE else soxr.resample(x, rate, SAMPLE_RATE, quality="VHQ")
