"""Speech from text: eSpeak NG, called through ctypes.

The library and its voice data come with the wheel `espeakng-loader`; nothing has to be installed on
the system. eSpeak NG is under the GPL (version 3 or later), so it is used at run time only: none of
its code or data is part of this repository. Interface: `speak_lib.h` and `espeak_ng.h` of 1.52.

A rendering depends on its arguments alone. That does not come for free: the library keeps the phase
of its pitch flutter, of its oscillators and of its noise in static variables which neither
`espeak_Terminate` nor a new `espeak_Initialize` sets back, so that the same sentence differs from
call to call. Each call therefore loads the library anew and unloads it, which takes a millisecond.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from data.utils import DataError

if sys.platform == "win32":
    from _ctypes import FreeLibrary as dlclose  # noqa: N813 - one name for both systems
else:
    from _ctypes import dlclose

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, and no thread is started
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report missing data instead of ending Python
_UTF8_SSML = 0x11  # espeakCHARS_UTF8 and espeakSSML, for the two marks of `speak`
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER

# The loudest variants saturate at the default volume of 100.
_LEVEL = 60

_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.c_void_p
)
_lock = threading.Lock()


class EspeakError(DataError):
    """eSpeak NG is missing, lacks a voice, or refused a call."""


@dataclass(frozen=True)
class Voice:
    """How a text is spoken.

    Attributes:
        language: a voice of eSpeak NG by its file name, "en-us" or "en-gb-scotland".
        variant: a voice variant ("f2", "Annie"), which sets formants and register; "" is none.
        rate: words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the variant's own register.
        pitch_range: 0 (monotone) to 99; 50 is the variant's own.

    Raises:
        ValueError: a number lies outside its range.
    """

    language: str = "en-us"
    variant: str = ""
    rate: int = 165
    pitch: int = 50
    pitch_range: int = 50

    def __post_init__(self) -> None:
        limits = {"rate": (80, 450), "pitch": (0, 99), "pitch_range": (0, 99)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)}")

    def __str__(self) -> str:
        name = f"{self.language}+{self.variant}" if self.variant else self.language
        return f"{name}/{self.rate}/{self.pitch}/{self.pitch_range}"

    @classmethod
    def parse(cls, text: str) -> Voice:
        """The inverse of `str`: "en-us+f2/165/50/50". ValueError if it is not of this form."""
        try:
            name, *numbers = text.split("/")
            rate, pitch, pitch_range = map(int, numbers)
        except ValueError:
            raise ValueError(f"not a voice: {text!r}") from None
        language, _, variant = name.partition("+")
        return cls(language, variant, rate, pitch, pitch_range)


def speak(text: str, voice: Voice) -> tuple[NDArray[np.int16], int]:
    """Speak `text`.

    Args:
        text: any text; digits, dates and abbreviations are read out. *Words between asterisks* are
            stressed, and " | " is a pause for breath.
        voice: how it is spoken.

    Returns:
        The samples, (s,), of one channel, and their sampling rate in Hz (22050 for these voices).
        Silence surrounds the words, up to 0.5 s after them. Equal arguments give equal samples, in
        every process and whatever was spoken before (tested for the voices of the corpus; variants
        that combine Klatt synthesis with breath, "Reed" and "caleb", differ from call to call).

    Raises:
        EspeakError: espeakng-loader is not installed, there is no such voice or variant, or the
            text contains nothing to say.
    """
    pieces: list[NDArray[np.int16]] = []

    @_SynthCallback
    def collect(samples: Any, count: int, events: object) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    data = _marked_up(text).encode()
    name = f"{voice.language}+{voice.variant}" if voice.variant else voice.language
    with _lock, _library() as (library, rate):
        library.espeak_SetSynthCallback(collect)
        if voice.variant and voice.variant not in _variants():
            # The library would speak without it and report success.
            raise EspeakError(f"eSpeak NG has no voice variant {voice.variant!r}")
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise EspeakError(f"eSpeak NG has no voice {voice.language!r}")
        for parameter, value in (
            (_RATE, voice.rate),
            (_VOLUME, _LEVEL),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            _check(library.espeak_SetParameter(parameter, value, 0), "set a parameter")
        _check(library.espeak_ng_SetRandSeed(ctypes.c_long(1)), "set the seed")
        _check(
            library.espeak_Synth(
                data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8_SSML, None, None
            ),
            "speak",
        )
        _check(library.espeak_Synchronize(), "finish")
    speech = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    if not speech.any():
        raise EspeakError(f"eSpeak NG has nothing to say for {text!r}")
    return speech, rate


def _marked_up(text: str) -> str:
    """The marks of `speak` as SSML; any other markup in the text is read as text."""
    stressed = r'<emphasis level="strong">\1</emphasis>'
    return re.sub(r"\*([^*]+)\*", stressed, escape(text)).replace(" | ", ' <break time="250ms"/> ')


@contextmanager
def _library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """The library in its initial state, and its sampling rate in Hz; unloaded at the end."""
    path, data = _paths()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise EspeakError(f"eSpeak NG cannot be loaded: {error}") from None
    try:
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DO_NOT_EXIT)
        if rate <= 0:
            raise EspeakError(f"eSpeak NG cannot read its data in {data}")
        try:
            yield library, rate
        finally:
            library.espeak_Terminate()
    finally:
        dlclose(library._handle)


@cache
def _paths() -> tuple[str, str]:
    """The shared library and the folder of its data."""
    try:
        import espeakng_loader
    except ImportError:
        raise EspeakError(
            "espeakng-loader is not installed: pip install -r requirements.txt"
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@cache
def _variants() -> frozenset[str]:
    return frozenset(path.name for path in Path(_paths()[1], "voices", "!v").iterdir())


def _check(status: int, action: str) -> None:
    if status != 0:
        raise EspeakError(f"eSpeak NG could not {action} (status {status})")
