"""The level of a signal where it holds sound; babble, speech-shaped noise and rooms.

Signals are (s,) at 16 kHz. Everything random is drawn from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter

SAMPLE_RATE = 16_000
FRAME = 160  # samples: 10 ms
# Frames further below the loudest one hold no sound: in a piece; and in a whole recording, where
# one click must not count as all there is.
_PIECE_DB, _RECORDING_DB = 30, 40
# Mean square below which a signal has no level that another could be set against.
SILENT = 1e-10
SPEED_OF_SOUND = 343.0  # m/s
_MIXING = 0.025  # s; images beyond the second mirrored room each way arrive later

Signal = NDArray[np.float64]
Talk = Callable[[np.random.Generator], NDArray]  # gives something that another speaker says, (s,)


def active_level(signal: NDArray) -> float:
    """Return the active speech level of ITU-T P.56 (method B) in dB: 0 is a mean square of 1.

    The envelope is |x| smoothed twice with a time constant of 0.03 s. A sample is active if the
    envelope reached a threshold during the last 0.2 s. The level is the energy over the active
    samples for that threshold which lies 15.9 dB below the level itself. Thresholds are 0.5 dB
    apart and relative to the signal (P.56: 6 dB, absolute), which makes the measure independent
    of its gain. The envelope is sampled every millisecond.

    Args:
        signal: (s,), any scale.

    Raises:
        ValueError: the signal is silent.
    """
    signal = np.asarray(signal, np.float64)
    total = power(signal)
    if total == 0:
        raise ValueError("a silent signal has no level")
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
    """Return which frames of a recording (s,) hold sound, (ceil(s / FRAME),).

    These are the frames within 40 dB of the loudest one. The last frame may be a shorter one.
    """
    powers = _frame_powers(signal)
    return powers > 10 ** (-_RECORDING_DB / 10) * powers.max()


def active_rms(signal: NDArray) -> float:
    """Return the root mean square of a piece (s,) over its frames within 30 dB of the loudest one.

    It is 0 if the piece is silent.
    """
    powers = _frame_powers(signal)
    return float(np.sqrt(powers[powers >= 10 ** (-_PIECE_DB / 10) * powers.max()].mean()))


def _frame_powers(signal: NDArray) -> Signal:
    starts = np.arange(0, len(signal), FRAME)
    energies = np.add.reduceat(np.square(signal, dtype=np.float64), starts)
    return energies / np.diff(starts, append=len(signal))


def power(x: NDArray) -> float:
    """Return the mean square of a signal (s,), 0 of an empty one."""
    return float(np.mean(np.square(x, dtype=np.float64))) if len(x) else 0.0


def drawn_between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number between two. NumPy takes -0.0 for less than 0.0, and refuses such a range."""
    return float(rng.uniform(low, high + 0.0))


def shaped_like(rng: np.random.Generator, samples: int, signal: Signal) -> Signal:
    """Return steady noise with the long-term spectrum of `signal` (s,), (samples,).

    The phases of the signal's discrete Fourier transform are replaced by random ones. The noise is
    periodic with the length of the transform, without a seam.
    """
    length = next_fast_len(len(signal), real=True)
    spectrum = rfft(signal, length)
    spectrum *= np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
    return np.resize(irfft(spectrum, length), samples)


def babble(rng: np.random.Generator, samples: int, talkers: int, talk: Talk) -> Signal:
    """Return people talking at once, (samples,), of unit RMS; zeros if none is heard.

    Levels spread by 8 dB. Each talker repeats what `talk` gives, with a pause of up to 0.2 s.
    """
    voices = [talk(rng).astype(np.float64) for _ in range(talkers)]
    total = np.zeros(samples)
    for voice in voices:
        if power(voice) <= SILENT:
            continue
        pause = np.zeros(int(rng.uniform(0.05, 0.2) * SAMPLE_RATE))
        turn = np.concatenate([voice / np.sqrt(np.mean(voice**2)), pause])
        talker = np.resize(np.roll(turn, -rng.integers(len(turn))), samples)
        total += talker * 10 ** (rng.uniform(-4, 4) / 20)
    rms = np.sqrt(np.mean(total**2))
    return total / rms if rms else total  # the piece may hold pauses only


def response(
    rng: np.random.Generator, size: NDArray | Sequence[float], decay: float, distance: float
) -> Signal:
    """Return the impulse response of a room, (decay * 16000,). It starts with the direct sound, 1.

    The early reflections are those of a shoebox by the image-source method (Allen and Berkley,
    "Image method for efficiently simulating small-room acoustics", JASA 65, 1979). From 25 ms on,
    where reflections are too dense to count, it is noise that decays exponentially (Polack's
    model). Its level follows from the room: there is no free parameter.

    Args:
        rng: draws where source and microphone are, and the tail.
        size: length, width and height in m.
        decay: time in s in which sound falls by 60 dB.
        distance: from source to microphone in m; less where a wall is nearer.
    """
    shape = np.array(size)
    surface = 2 * (shape[0] * shape[1] + shape[0] * shape[2] + shape[1] * shape[2])
    # Eyring's formula, solved for the share of energy that a wall absorbs.
    absorbed = 1 - np.exp(-0.161 * float(shape.prod()) / (surface * decay))
    microphone = rng.uniform(0.3, 0.7, 3) * shape
    way = rng.standard_normal(3) * [1, 1, 0.3]
    source = microphone + distance * way / np.linalg.norm(way)
    source = np.clip(source, 0.05 * shape, 0.95 * shape)

    cell = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, [0, 1], [0, 1], [0, 1]), -1).reshape(-1, 6)
    shift, mirrored = cell[:, :3], cell[:, 3:]
    image = (1 - 2 * mirrored) * source + 2 * shift * shape
    distances = np.linalg.norm(image - microphone, axis=1)
    bounces = (np.abs(shift - mirrored) + np.abs(shift)).sum(1)
    direct = float(np.linalg.norm(source - microphone))
    late = (distances - direct) / SPEED_OF_SOUND
    strength = direct / distances * (1 - absorbed) ** (bounces / 2)
    early = (bounces > 0) & (late < min(_MIXING, decay / 3))

    samples = int(decay * SAMPLE_RATE)
    total = np.zeros(samples)
    place = late[early] * SAMPLE_RATE
    first = place.astype(int)
    part = place - first  # an image between two samples is shared by them
    np.add.at(total, first, (1 - part) * strength[early])
    np.add.at(total, np.minimum(first + 1, samples - 1), part * strength[early])

    time = np.arange(samples) / SAMPLE_RATE
    # The reverberant energy is that of the direct sound at the critical distance.
    ratio = 16 * np.pi * direct**2 / (surface * absorbed)
    fall = 6 * np.log(10) / decay
    energy = ratio * fall / SAMPLE_RATE * np.exp(-fall * (time + direct / SPEED_OF_SOUND))
    energy[time < min(_MIXING, decay / 3)] = 0
    total += np.sqrt(energy) * _soft_noise(rng, samples)
    total[0] = 1.0
    return total


def _soft_noise(rng: np.random.Generator, samples: int) -> Signal:
    """Return noise (samples,) of unit RMS, above 20 Hz, that falls off around 4 kHz."""
    length = next_fast_len(samples + SAMPLE_RATE // 10, real=True)
    frequency = rfftfreq(length, 1 / SAMPLE_RATE)
    audible = frequency >= 20
    real, imaginary = rng.standard_normal((2, int(audible.sum())))
    spectrum = np.zeros(len(frequency), complex)
    spectrum[audible] = (real + 1j * imaginary) * (1 / (1 + frequency[audible] / 4000))
    noise = irfft(spectrum, length)[:samples]
    return noise / np.sqrt(np.mean(noise**2))
