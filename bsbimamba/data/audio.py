"""Find, check, read and write audio files, and measure levels.

Everything inside the project is 16 kHz mono float32. Other rates (soxr, very high quality) and
channel counts (their mean) are converted on reading.
"""

import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.signal import correlate, correlation_lags, lfilter

from bsbimamba.data.workers import in_threads
from bsbimamba.utils import replacing, write_text

SAMPLE_RATE = 16_000
FRAME = 160  # samples: 10 ms
# The extensions that folders are searched for. A file that is named itself may have any.
EXTENSIONS = frozenset((
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64",
    ".snd", ".sph", ".w64", ".wav", ".wave",
))  # fmt: skip
# In dB of full scale: a file below it is silent.
SILENCE = -100.0
# A sample from the first on is clipped; a signal with the second share of clipped samples is, too.
FULL_SCALE, CLIPPED = 32767 / 32768, 1e-4
RATES = range(4_000, 1_000_000)
# Frames further below the loudest one hold no sound: in a piece; and in a whole recording, where
# one click must not count as all there is.
_PIECE_DB, _RECORDING_DB = 30, 40
# Where `look_over` keeps the facts about good files. Its number goes up when results change.
_CACHES = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
INDEX = Path(_CACHES, "bs-bimamba", "audio-index-4.json")
# Formats that are written, by extension, with their usual encodings.
_WRITTEN = {".wav": ("WAV", None), ".flac": ("FLAC", None), ".opus": ("OGG", "OPUS")}
# libsndfile seeks to a wrong place near the end of Vorbis (its issue 885), and roughly in MP3.
_NOT_SOUGHT = ("VORBIS", "MPEG_LAYER_III")
_UNKNOWN_LENGTH = 1 << 48  # libsndfile's number where the header gives none is far above

Signal = NDArray[np.float32]


class AudioError(Exception):
    """A file cannot be used; the message says why, without naming the file."""


@dataclass(frozen=True)
class Info:
    """Facts about a whole file.

    Attributes:
        frames: length in samples at 16 kHz.
        rate: as stored, in Hz.
        active_level: of the 16-kHz mono signal in dB of full scale (function `active_level`).
        activity: which of its frames hold sound, 8 to a byte, in hexadecimal; see `active`.
    """

    frames: int
    rate: int
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
    the file cannot be decoded, is empty, cut short, silent, or has samples that are not finite.
    """
    with opened(path) as file:
        rate, announced, x = file.samplerate, file.frames, _mono(file)
    if len(x) < announced or is_cut_short(path):
        raise AudioError(f"cut short or damaged: its header announces more than {len(x)} samples")
    if not np.isfinite(x).all():
        raise AudioError("has NaN or infinite samples")
    mono = _to_16k(x, rate)
    if not len(mono):
        raise AudioError("empty: no samples")
    if power(mono) < 10 ** (SILENCE / 10):
        raise AudioError(f"silent: below {SILENCE:.0f} dB of full scale")
    activity = np.packbits(active_frames(mono)).tobytes().hex()
    return Info(len(mono), rate, active_level(mono), activity)


def read(path: Path, start: int = 0, frames: int | None = None) -> Signal:
    """Return samples `start` to `start + frames` (None: the end) of a file at 16 kHz, mono (s,).

    They are fewer where the file ends earlier. A piece equals the same piece of the whole bit for
    bit; in Opus but for the decoder's memory, less than 0.01 of full scale. Files of other rates,
    Vorbis and MP3 are decoded as a whole for each piece (but see `data.samples`).

    Raises AudioError if the file cannot be decoded.
    """
    with opened(path) as file:
        rate = file.samplerate
        if rate == SAMPLE_RATE and file.seekable() and file.subtype not in _NOT_SOUGHT:
            file.seek(min(start, file.frames))
            return _mono(file, frames)
        whole = _to_16k(_mono(file), rate)
    return whole[start : None if frames is None else start + frames]


def described(path: Path) -> tuple[int, int, str]:
    """Return the sampling rate, channel count and comment of a file as stored (see `write`)."""
    with opened(path) as file:
        return file.samplerate, file.channels, file.comment


def encode(x: NDArray, extension: str, subtype: str | None = None, comment: str = "") -> bytes:
    """Return a file's content for a mono signal (s,) at 16 kHz. The arguments are `write`'s."""
    kind, usual = _WRITTEN[extension]
    encoded = io.BytesIO()
    with sf.SoundFile(encoded, "w", SAMPLE_RATE, 1, subtype or usual, format=kind) as file:
        if comment:
            file.comment = comment
        file.write(x)
    return encoded.getvalue()


def write(path: Path, x: NDArray, subtype: str | None = None, comment: str = "") -> None:
    """Write a mono signal (s,) at 16 kHz within [-1, 1], the whole file or nothing.

    Args:
        path: the file, which ends in .wav, .flac or .opus.
        subtype: of soundfile, "PCM_16" or "FLOAT"; None for the format's usual one.
        comment: a line of text that the file carries beside its samples.
    """
    content = encode(x, path.suffix, subtype, comment)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def walk(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the audio files below `folder`, links followed, hidden names left out.

    above: the real folders that it lies in. Raises OSError if a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    if real in above:  # a link back to where this came from
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        elif path.suffix.lower() in EXTENSIONS:
            yield path


@contextmanager
def opened(path: Path) -> Iterator[sf.SoundFile]:
    """Open a file for decoding. Raise AudioError for what goes wrong until it is closed."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
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
    with np.errstate(all="ignore"):  # `inspect` refuses what is not finite
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


def active_level(signal: NDArray) -> float:
    """Return the active speech level of ITU-T P.56 (method B) in dB: 0 is a mean square of 1.

    The envelope is |x| smoothed twice with a time constant of 0.03 s. A sample is active if the
    envelope reached a threshold during the last 0.2 s. The level is the energy over the active
    samples for that threshold which lies 15.9 dB below the level itself. Thresholds are 0.5 dB
    apart and relative to the signal (P.56: 6 dB, absolute), which makes the measure independent
    of its gain. The envelope is sampled every millisecond.

    signal: (s,), any scale, not silent.
    """
    signal = np.asarray(signal, np.float64)
    total = power(signal)
    pole = np.exp(-1 / (0.03 * SAMPLE_RATE))
    envelope = np.abs(signal) / np.sqrt(total)
    for _ in range(2):
        envelope = lfilter([1 - pole], [1, -pole], envelope)
    envelope = envelope[:: SAMPLE_RATE // 1000]
    held = 200
    envelope = maximum_filter1d(envelope, held, mode="constant", origin=(held - 1) // 2)
    thresholds = np.arange(-60, 20, 0.5)
    active = len(envelope) - np.searchsorted(np.sort(envelope), 10 ** (thresholds / 20))
    levels = 10 * np.log10(len(envelope) / np.maximum(active, 1))
    crossing = int(np.argmax(levels - thresholds <= 15.9))
    return float(10 * np.log10(total) + levels[crossing])


def active_frames(signal: NDArray) -> NDArray[np.bool_]:
    """Return which frames of a recording (s,) are within 40 dB of the loudest, (ceil(s / FRAME),).

    The last frame may be a shorter one.
    """
    powers = _frame_powers(signal)
    return powers > 10 ** (-_RECORDING_DB / 10) * powers.max()


def active_rms(signal: NDArray) -> float:
    """Return the root mean square of a piece (s,) over its frames within 30 dB of the loudest."""
    powers = _frame_powers(signal)
    return float(np.sqrt(powers[powers >= 10 ** (-_PIECE_DB / 10) * powers.max()].mean()))


def _frame_powers(signal: NDArray) -> NDArray[np.float64]:
    starts = np.arange(0, len(signal), FRAME)
    energies = np.add.reduceat(np.square(signal, dtype=np.float64), starts)
    return energies / np.diff(starts, append=len(signal))


def power(x: NDArray) -> float:
    """Return the mean square of a signal (s,), 0 of an empty one."""
    return float(np.mean(np.square(x, dtype=np.float64))) if len(x) else 0.0


def lag_of(clean: NDArray, other: NDArray) -> tuple[int, float]:
    """Return by how many samples another signal is late (below 0: early), and how alike they are.

    The lag is where their correlation is largest, of either sign. The likeness is that correlation,
    -1 to 1: below 0 where the other signal is inverted, near 0 where it holds nothing of the clean
    one. Differences are correlated rather than the signals (s,): rumble, which both may have much
    of, would hide the maximum.
    """
    x, y = (np.diff(np.asarray(side, np.float64), prepend=0) for side in (clean, other))
    correlation = correlate(y, x, method="fft")
    place = int(np.abs(correlation).argmax())
    lag = int(correlation_lags(len(y), len(x))[place])
    return lag, float(correlation[place] / (np.sqrt((x @ x) * (y @ y)) or 1))
