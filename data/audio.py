"""Audio files: finding them, looking them over, reading and writing them. Free of torch.

Everything inside the project is 16 kHz mono float32. Other rates (soxr, very high quality) and
channel counts (their mean) are converted on reading.
"""

from __future__ import annotations

import io
import math
import os
import stat
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from data.errors import DataError
from data.files import replacing
from data.levels import FRAME, active_frames, active_level

SAMPLE_RATE = 16_000
# Format and encoding of what is written under each extension.
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
EXTENSIONS = _FORMATS.keys()
# In dB of full scale: a file below the first is silent, as it is to the networks; one above the
# second holds no samples, whatever they were scaled to (32-bit integers reach 187).
SILENCE, LOUDEST = -100.0, 200.0
# From where a sample counts as clipped, and the share of them from which a signal does.
FULL_SCALE, CLIPPED = 32767 / 32768, 1e-4
RATES = range(4_000, 1_000_000)
# Source samples read on either side of a piece before it is resampled, for the filter's flanks.
_FLANK = 2048
# Frames read at once. soundfile seeks after each block, and in Opus, where libsndfile has sought
# before, that may miss its place: no piece that training asks for is longer than a block.
_BLOCK = 1 << 24
_WRITTEN_BLOCK = 1 << 18
_UNKNOWN_LENGTH = 1 << 48  # libsndfile's number where the header gives none is far above

Signal = NDArray[np.float32]


class AudioError(Exception):
    """A file cannot be used; the message says why, without naming the file."""


@dataclass(frozen=True)
class Info:
    """What one look at a whole file tells.

    Attributes:
        frames: length in samples at 16 kHz.
        rate, channels: as stored.
        level: of the 16-kHz mono signal in dB of full scale (root mean square).
        active_level: that of its active parts (`data.levels.active_level`).
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
        """Return which frames hold sound, (ceil(frames / FRAME),) (`data.levels.active_frames`)."""
        packed = np.frombuffer(bytes.fromhex(self.activity), np.uint8)
        return np.unpackbits(packed, count=-(-self.frames // FRAME)).astype(bool)


def find_audio(folder: Path) -> dict[str, Path]:
    """Audio files below `folder` by their relative path without extension, in sorted order.

    Links are followed; hidden files and folders are left out. Names are in Unicode's composed
    form, so that copies of a corpus from different systems agree. What looks like an audio file
    and is none (a broken link, say) is listed too: whoever reads it is told why it cannot be.

    Raises:
        AudioError: two files differ in their extension only, or a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    try:
        paths = sorted(walk(folder))
    except OSError as error:
        raise AudioError(f"{error.filename} cannot be listed ({error.strerror})") from None
    except RecursionError:
        raise AudioError("its folders are nested too deeply") from None
    for path in paths:
        relative = path.relative_to(folder).with_suffix("").as_posix()
        name = unicodedata.normalize("NFC", relative)
        if name in found:
            raise AudioError(f"both {found[name]} and {path} are there; remove one")
        found[name] = path
    return found


def inspect(path: Path) -> Info:
    """What `examine` finds out about a file."""
    return examine(path)[0]


def examine(path: Path) -> tuple[Info, Signal]:
    """Decode a file once, completely: what it is, and its samples (s,) as `read` gives them.

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
    """Samples `start` to `start + frames` (to the end where None) of a file at 16 kHz, mono (s,).

    Fewer come back where the file ends earlier. A piece equals the same piece of the whole: to the
    bit; at other rates, where it is resampled by itself, but for the resampler's rounding; and in
    Opus but for the decoder's memory, less than 0.01 of full scale.

    Raises:
        AudioError: the file cannot be decoded.
    """
    with opened(path) as file:
        rate = file.samplerate
        flank = 0 if rate == SAMPLE_RATE else _FLANK
        # A whole number of periods of the two rates keeps the pieces' samples in phase.
        period = rate // math.gcd(rate, SAMPLE_RATE)
        first = max(0, start * rate // SAMPLE_RATE - flank) // period * period
        margin = start - first * SAMPLE_RATE // rate
        if first >= file.frames:
            return np.zeros(0, np.float32)
        # libsndfile (issue 885) misses its place when it seeks near the end of Vorbis.
        if file.seekable() and file.subtype != "VORBIS":
            file.seek(first)
        else:
            _mono(file, first)
        if frames is None:
            return _to_16k(_mono(file), rate)[margin:]
        x = _mono(file, (margin + frames) * rate // SAMPLE_RATE + flank)
    return _to_16k(x, rate)[margin : margin + frames]


def described(path: Path) -> tuple[int, int, str]:
    """Sampling rate and channels of a file as stored, and its comment (see `write`).

    Raises:
        AudioError: the file cannot be opened.
    """
    with opened(path) as file:
        return file.samplerate, file.channels, file.comment


def encode(x: NDArray, extension: str, subtype: str | None = None, comment: str = "") -> bytes:
    """A file's content for a mono signal (s,) at 16 kHz. Arguments: see `write`."""
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
    """Write a mono signal (s,) at 16 kHz; to a temporary name first, so that no torn file is left.

    subtype: of soundfile, "PCM_16" or "FLOAT"; the format's usual one where None.
    comment: a line of text that the file carries beside its samples.

    Raises:
        DataError: it cannot be written; a file that was there before is untouched.
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
    """What has one of the extensions below `folder`, links followed, hidden names left out.

    above: the real folders that it lies in.

    Raises:
        OSError: a folder cannot be listed.
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
    """A file, open for decoding; what goes wrong until it is closed is an AudioError."""
    try:
        status = path.stat()
        # Opening a named pipe would wait forever.
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("not a file")
        if status.st_size == 0:
            raise AudioError("empty: no bytes")
        # soundfile itself does not open every name there can be, and hides the system's reason.
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


def _mono(file: sf.SoundFile, frames: float = math.inf) -> Signal:
    """The next `frames` samples of a file at its own rate, the mean of its channels.

    In blocks, as a damaged header may announce more than there is memory.
    """
    blocks = [np.zeros(0, np.float32)]
    while frames > 0:
        wanted = int(min(frames, _BLOCK))
        block = file.read(wanted, dtype="float32", always_2d=True)
        with np.errstate(all="ignore"):  # what is not finite, `inspect` refuses
            blocks.append(block.mean(axis=1))
        if len(block) < wanted:  # the end, or a gap in a damaged file
            break
        frames -= wanted
    return np.concatenate(blocks)


def is_cut_short(path: Path) -> bool:
    """Whether a wav or AIFF file announces more bytes than it has."""
    with path.open("rb") as file:
        return announces_more(file.read(8), path.stat().st_size)


def announces_more(head: bytes, size: int) -> bool:
    """Whether a wav or AIFF file's first bytes announce more than its size.

    libsndfile does not mind.

    Programs that write into a pipe announce 0, or 2 or 4 GB; others miscount by a header.
    """
    kind = head[:4]
    announced = int.from_bytes(head[4:8], "big" if kind == b"FORM" else "little")
    return kind in (b"RIFF", b"FORM") and size + 64 < announced < 0x7FFF0000


def _to_16k(x: Signal, rate: int) -> Signal:
    return x if rate == SAMPLE_RATE else soxr.resample(x, rate, SAMPLE_RATE, quality="VHQ")
