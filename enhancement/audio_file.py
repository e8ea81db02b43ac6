"""Audio files of any kind that libsndfile knows, read and written in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile as sf

from data.audio import AudioError, opened, wav_is_cut_short
from enhancement.windows import Block

# What a folder is searched for. A file that is named itself may have any name.
EXTENSIONS = frozenset(
    [
        ".8svx",
        ".aif",
        ".aifc",
        ".aiff",
        ".au",
        ".caf",
        ".flac",
        ".htk",
        ".iff",
        ".mp3",
        ".nist",
        ".oga",
        ".ogg",
        ".opus",
        ".paf",
        ".pvf",
        ".rf64",
        ".sds",
        ".snd",
        ".sph",
        ".svx",
        ".voc",
        ".w64",
        ".wav",
        ".wave",
        ".wve",
    ]
)
KINDS = "wav, flac, ogg, opus, mp3, aiff, au, caf, w64 and others of libsndfile"
# What is said of a recording; not by which program it was made.
_DESCRIPTION = ("title", "artist", "album", "date", "genre", "tracknumber", "copyright", "license")
_WITHOUT_LIMIT = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")  # encodings that hold more than full scale
_SAMPLES = 1 << 17  # of a block; libsndfile crashes where it is given minutes of Vorbis at once


class FileSource:
    """A file's samples, decoded block by block each time they are asked for.

    Attributes:
        rate, channels: as stored.
        frames: samples a channel, as the header tells.
        encoding: format, subtype and byte order, as soundfile names them.

    Raises:
        AudioError: it is no audio file, or shorter than it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self.rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
            self.encoding = (file.format, file.subtype, file.endian)
            about = file.copy_metadata()
        self.description = {key: about[key] for key in _DESCRIPTION if key in about}
        if wav_is_cut_short(path):
            raise AudioError("cut short: its header announces more than there is")

    def blocks(self) -> Iterator[Block]:
        """The samples (c, n). Raises: AudioError, also where there are fewer than announced."""
        left = self.frames
        with opened(self.path) as file:
            while len(block := file.read(_SAMPLES, dtype="float32", always_2d=True)):
                left -= len(block)
                yield block.T
        if left > 0:
            raise AudioError(f"cut short or damaged: {left} of {self.frames} samples are missing")


def write_like(source: FileSource, path: Path, blocks: Iterable[Block]) -> int:
    """Write a signal (c, n) in blocks, at the rate and in the encoding of another file.

    Returns:
        How many samples were beyond full scale and had to be clipped.

    Raises:
        AudioError: libsndfile cannot write such a file.
        OSError: the system cannot.
    """
    kind, subtype, endian = source.encoding
    beyond = frames = 0
    # soundfile itself does not open every name there can be, and hides the system's reason.
    with path.open("w+b") as raw:
        try:
            with sf.SoundFile(
                raw.fileno(),
                "w",
                source.rate,
                source.channels,
                subtype,
                endian,
                kind,
                closefd=False,
            ) as file:
                for key, text in source.description.items():
                    with suppress(sf.LibsndfileError, RuntimeError):  # not every format keeps it
                        setattr(file, key, text)
                for block in blocks:
                    if subtype not in _WITHOUT_LIMIT:
                        beyond += int(np.count_nonzero(np.abs(block) > 1))
                    for first in range(0, block.shape[1], _SAMPLES):
                        piece = block[:, first : first + _SAMPLES]
                        file.write(np.ascontiguousarray(piece.T))
                        frames += piece.shape[1]
        except sf.LibsndfileError as error:
            raise AudioError(f"cannot be written as {kind} {subtype} ({_reason(error)})") from None
    # What a full disk has swallowed while the file was closed, libsndfile does not tell.
    with opened(path) as file:
        if file.frames < frames:
            raise AudioError(
                f"written, it has {file.frames} of {frames} samples: is the disk full?"
            )
    return beyond


def _reason(error: sf.LibsndfileError) -> str:
    reason = error.error_string.strip().rstrip(".")
    return f"{reason}; is the disk full?" if "System error" in reason else reason
