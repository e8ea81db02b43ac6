"""What can be wrong with a pair of recordings, told by their samples. Free of torch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from data.audio import SAMPLE_RATE, AudioError, Signal, examine
from data.files import sha256_of

# A waveform cut off at its top shows runs of samples at its largest value; four of them at least,
# and more of the file's samples than this, which no peak of a recording has.
_RUN, CLIPPED = 4, 1e-4
# Of two signals of which one is part of the other, in samples: looked for up to a second.
_LARGEST_LAG = SAMPLE_RATE
# Pairs are looked at up to this length for their lag: it does not change on the way.
_ENOUGH = 20 * SAMPLE_RATE
# In dB: below the first there is nothing but rounding; noise never makes pauses quieter, but for
# what it cancels by chance.
_NOISE, _FLOOR = 45.0, 3.0
_FRAME = SAMPLE_RATE // 50


@dataclass(frozen=True)
class Side:
    """One recording.

    Attributes:
        fault: why it cannot be used; "" if it can. All else is then unknown.
        rate, channels: as stored.
        frames: length at 16 kHz.
        clipped: share of its samples that are cut off.
        digest: of its samples, the same for the same sound in another file or format.
        sha256: of the file.
    """

    fault: str = ""
    rate: int = 0
    channels: int = 0
    frames: int = 0
    clipped: float = 0.0
    digest: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Looked:
    """Both recordings of a pair.

    Attributes:
        lag: of the noisy against the clean one in samples at 16 kHz.
        mixture: why the noisy one is no mixture of the clean one and noise; "" if it is.
    """

    clean: Side
    noisy: Side
    lag: int = 0
    mixture: str = ""

    @property
    def fault(self) -> str:
        """Why one of the two cannot be used, "" if both can; lag and mixture are then unknown."""
        return self.clean.fault or self.noisy.fault


def look_at(paths: tuple[Path, Path]) -> Looked:
    """Look at a clean and a noisy file."""
    (clean, x), (noisy, y) = (_side(path) for path in paths)
    if clean.fault or noisy.fault:  # without samples
        return Looked(clean, noisy)
    lag = lag_of(x[:_ENOUGH], y[:_ENOUGH])
    return Looked(clean, noisy, lag, "" if lag else mixture_fault(x, y))


def mixture_fault(clean: Signal, noisy: Signal) -> str:
    """Why a noisy signal, in time with a clean one, is not that and noise; "" if it is; (s,)."""
    length = min(len(clean), len(noisy))
    x, y = (np.diff(side[:length].astype(np.float64)) for side in (clean, noisy))
    power = float(x @ x)
    if power == 0:
        return ""
    gain = float(x @ y) / power
    if gain < 0:
        return "is turned upside down"
    residual = y - gain * x
    if float(residual @ residual) < 10 ** (-_NOISE / 10) * gain**2 * power:
        return "has no noise"
    missing = _floor(gain * clean[:length]) - _floor(noisy[:length])
    if missing > _FLOOR:
        return f"has {missing:.0f} dB less noise in its pauses than its clean file"
    return ""


def _floor(x: Signal) -> float:
    """The level in dB below which a tenth of all frames of 20 ms lies, at least -100."""
    frames = x[: len(x) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(frames):
        return -100.0
    powers = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return 10 * math.log10(max(float(np.quantile(powers, 0.1)), 1e-10))


def lag_of(clean: Signal, noisy: Signal) -> int:
    """By how many samples a noisy signal is late (below 0: early), by its correlation, (s,) each.

    Their differences are correlated rather than the signals: rumble, which both may have much of,
    would hide the maximum.
    """
    if min(len(clean), len(noisy)) < 2:
        return 0
    x, y = np.diff(clean), np.diff(noisy)
    size = next_fast_len(len(x) + len(y) + 1, real=True)
    correlation = irfft(rfft(y, size) * np.conj(rfft(x, size)), size)
    reach = min(_LARGEST_LAG, size // 2 - 1)
    around = np.concatenate([correlation[-reach:], correlation[: reach + 1]])
    return int(np.argmax(np.abs(around))) - reach  # of one turned upside down it is a minimum


def clipped_share(x: Signal) -> float:
    """The share of samples (s,) that are cut off at the top or at the bottom."""
    tops = (side >= 0.9999 * side.max() for side in (x, -x) if side.max() > 0)
    return sum(map(_in_runs, tops)) / len(x)


def _in_runs(marked: NDArray[np.bool_]) -> int:
    """How many are marked in runs of at least `_RUN`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= _RUN].sum())


def _side(path: Path) -> tuple[Side, Signal]:
    nothing = np.zeros(0, np.float32)
    try:
        (info, x), sha256 = examine(path), sha256_of(path)
    except (AudioError, OSError) as error:
        return Side(str(error)), nothing
    except MemoryError:
        return Side("needs more memory than there is; cut it into pieces"), nothing
    # In 16 bits, so that a copy in another format is the same.
    content = np.round(x * 32768).astype("<i4").tobytes()
    digest = hashlib.sha256(content).hexdigest()
    clipped = clipped_share(x)
    return Side("", info.rate, info.channels, info.frames, clipped, digest, sha256), x
