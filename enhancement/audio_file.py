"""Audio files of any kind that libsndfile knows, read and written in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
import soundfile as sf

from data.audio import AudioError, is_cut_short, opened
from enhancement.windows import Block

# What a folder is searched for. A file that is named itself may have any name.
EXTENSIONS = frozenset((
    ".8svx", ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".htk", ".iff", ".mp3", ".nist",
    ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".sds", ".snd", ".sph", ".svx", ".voc",
    ".w64", ".wav", ".wave", ".wve",
))  # fmt: skip
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
        description: what the file says of the recording.

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
        if is_cut_short(path):
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


class Writer:
    """A file that is written in blocks, open within a `with`.

    Args:
        encoding: format, subtype and byte order, as soundfile names them.
        description: what is said of the recording, by soundfile's names; not every format keeps it.

    Attributes:
        frames: samples a channel written so far.
        beyond: samples that were beyond full scale and had to be clipped.

    Raises:
        AudioError: libsndfile cannot write such a file, or the disk is full.
        OSError: the system cannot.
    """

    def __init__(
        self,
        path: Path,
        rate: int,
        channels: int,
        encoding: tuple[str, str, str],
        description: Mapping[str, str] | None = None,
    ) -> None:
        kind, subtype, endian = encoding
        self._path, self._what = path, f"{kind} {subtype}"
        self._limited = subtype not in _WITHOUT_LIMIT
        self.frames = self.beyond = 0
        # soundfile itself does not open every name there can be, and hides the system's reason.
        self._raw = path.open("w+b")
        try:
            with self._understood():
                self._file = sf.SoundFile(
                    self._raw.fileno(), "w", rate, channels, subtype, endian, kind, closefd=False
                )
        except BaseException:
            self._raw.close()
            raise
        for key, text in (description or {}).items():
            with suppress(sf.LibsndfileError, RuntimeError):
                setattr(self._file, key, text)

    def __enter__(self) -> Self:
        return self

    def write(self, block: Block) -> None:
        """The next samples (c, n)."""
        if self._limited:
            self.beyond += int(np.count_nonzero(np.abs(block) > 1))
        for first in range(0, block.shape[1], _SAMPLES):
            piece = block[:, first : first + _SAMPLES]
            with self._understood():
                self._file.write(np.ascontiguousarray(piece.T))
            self.frames += piece.shape[1]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._raw, self._understood():
            self._file.close()
        if kind is None:
            # What a full disk has swallowed meanwhile, libsndfile does not tell.
            with opened(self._path) as file:
                if file.frames < self.frames:
                    raise AudioError(
                        f"written, it has {file.frames} of {self.frames} samples: is the disk full?"
                    )

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except sf.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
            if "System error" in reason:
                reason += "; is the disk full?"
            raise AudioError(f"cannot be written as {self._what} ({reason})") from None
