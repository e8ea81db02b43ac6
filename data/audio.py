"""Audio files: finding them, looking them over, reading and writing them. Free of torch.

Everything inside the project is 16 kHz mono float32. Other rates (soxr, very high quality) and
channel counts (their mean) are converted on reading.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from data.levels import active_level

SAMPLE_RATE = 16_000
EXTENSIONS = {".wav", ".flac", ".ogg", ".opus"}
# In dB of full scale: a file below that is silent, as it is to the networks.
SILENCE = -100.0
# Source samples read on either side of a piece before it is resampled, for the filter's flanks.
_MARGIN = 2048

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
    """

    frames: int
    rate: int
    channels: int
    level: float
    active_level: float


def find_audio(folder: Path) -> dict[str, Path]:
    """Audio files below `folder` by their relative path without extension, in sorted order.

    Raises:
        AudioError: two files differ in their extension only.
    """
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise AudioError(f"both {found[name].name} and {path.name} are there; remove one")
        if path.is_file() and not path.name.startswith("."):
            found[name] = path
    return found


def inspect(path: Path) -> Info:
    """Decode a file once, completely.

    Raises:
        AudioError: it is unreadable, empty, silent, or has values that are no numbers.
    """
    x, rate, channels = _decode(path)
    if x.size == 0:
        raise AudioError("empty: no samples")
    if not np.isfinite(x).all():
        raise AudioError("has NaN or infinite samples")
    mono = _to_16k(x, rate)
    power = float(np.mean(np.square(mono, dtype=np.float64))) if mono.size else 0.0
    if power < 10 ** (SILENCE / 10):
        raise AudioError(f"silent: below {SILENCE:.0f} dB of full scale")
    return Info(len(mono), rate, channels, 10 * math.log10(power), active_level(mono))


def read(path: Path, start: int = 0, frames: int | None = None) -> Signal:
    """Samples `start` to `start + frames` (to the end where None) of a file at 16 kHz, mono (s,).

    Fewer come back where the file ends earlier. A piece of a file at another rate is resampled by
    itself, so it equals the same piece of the whole but for the resampler's rounding.

    Raises:
        AudioError: the file cannot be decoded.
    """
    if start == 0 and frames is None:
        x, rate, _ = _decode(path)
        return _to_16k(x, rate)
    try:
        with sf.SoundFile(path) as file:
            rate = file.samplerate
            if rate == SAMPLE_RATE:
                first, margin = start, 0
                count = -1 if frames is None else frames
            else:
                # A whole number of periods of the two rates keeps the pieces' samples in phase.
                period = rate // np.gcd(rate, SAMPLE_RATE)
                first = max(0, (start * rate // SAMPLE_RATE - _MARGIN) // period * period)
                margin = start - first * SAMPLE_RATE // rate
                count = -1
                if frames is not None:
                    count = (margin + frames) * rate // SAMPLE_RATE + _MARGIN
            if first >= file.frames:
                return np.zeros(0, np.float32)
            file.seek(first)
            x = file.read(count, dtype="float32", always_2d=True).mean(axis=1)
    except (sf.LibsndfileError, OSError) as error:
        raise AudioError(f"cannot be decoded ({_reason(error)})") from None
    piece = _to_16k(x, rate)[margin:]
    return piece if frames is None else piece[:frames]


def write(path: Path, x: NDArray, subtype: str | None = None) -> None:
    """Write a mono signal (s,) at 16 kHz; to a temporary name first, so that no torn file is left.

    subtype: of soundfile, "PCM_16" or "FLOAT"; the format's usual one where None.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        sf.write(temporary, x, SAMPLE_RATE, subtype=subtype)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode(path: Path) -> tuple[Signal, int, int]:
    """Mono samples at the file's own rate, that rate, and the number of channels."""
    try:
        x, rate = sf.read(path, dtype="float32", always_2d=True)
    except (sf.LibsndfileError, OSError) as error:
        raise AudioError(f"cannot be decoded ({_reason(error)})") from None
    return x.mean(axis=1), rate, x.shape[1]


def _to_16k(x: Signal, rate: int) -> Signal:
    return x if rate == SAMPLE_RATE else soxr.resample(x, rate, SAMPLE_RATE, quality="VHQ")


def _reason(error: Exception) -> str:
    if isinstance(error, sf.LibsndfileError):
        return error.error_string.rstrip(".")
    return getattr(error, "strerror", None) or str(error)
