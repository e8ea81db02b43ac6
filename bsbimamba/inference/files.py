"""Enhance audio files, and folders of them, into files of the same kind."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import soundfile as sf
import torch
from tqdm import tqdm

from bsbimamba.data.audio import (
    SAMPLE_RATE,
    AudioError,
    described,
    is_cut_short,
    opened,
    read,
    walk,
    write,
)
from bsbimamba.inference.model import Model
from bsbimamba.inference.windows import Block, enhanced, survey
from bsbimamba.network.net import BandSplitNet
from bsbimamba.utils import ROOT, DataError, digest_of, is_within, replacing

KINDS = "wav, flac, ogg, opus, mp3, aiff, au, caf, w64 and others of libsndfile"
# The tags that are kept: those about the recording, not about the program that wrote it.
_TAGS = ("title", "artist", "album", "date", "genre", "tracknumber", "copyright", "license")
_UNLIMITED = ("FLOAT", "DOUBLE", "VORBIS", "OPUS")  # encodings that hold more than full scale
_SAMPLES = 1 << 17  # a block; libsndfile crashes if it is given minutes of Vorbis at once
_SYSTEM = 2  # libsndfile's code of an error of the operating system
_LONG = 60.0  # seconds from which on a recording gets a progress bar of its own


class FileSource:
    """A file, decoded block by block each time its samples are asked for.

    Attributes:
        rate, channels: as stored.
        frames: samples a channel, by the header.
        encoding: format, subtype and byte order, by soundfile's names.
        tags: title, artist and other tags about the recording.

    Raises:
        AudioError: it is no audio file, or shorter than it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self.rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
            self.encoding = (file.format, file.subtype, file.endian)
            self.tags = {k: text for k, text in file.copy_metadata().items() if k in _TAGS}
        if is_cut_short(path):
            raise AudioError("cut short: its header announces more than there is")

    def blocks(self) -> Iterator[Block]:
        """Yield the samples (c, n).

        Raises:
            AudioError: they cannot be decoded, or are fewer than announced.
        """
        left = self.frames
        with opened(self.path) as file:
            while len(block := file.read(_SAMPLES, dtype="float32", always_2d=True)):
                left -= len(block)
                yield block.T
        if left > 0:
            raise AudioError(f"cut short or damaged: {left} of {self.frames} samples are missing")


class Writer:
    """A file that is written in blocks, within a `with`.

    Args:
        encoding: format, subtype and byte order, by soundfile's names.
        tags: by soundfile's names; not every format keeps them.

    Attributes:
        frames: samples a channel written so far.
        beyond: samples that were beyond full scale and are clipped.

    Raises:
        AudioError: libsndfile cannot write such a file, or the disk is full.
        OSError: there cannot be a file of that name.
    """

    def __init__(
        self,
        path: Path,
        rate: int,
        channels: int,
        encoding: tuple[str, str, str],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        kind, subtype, endian = encoding
        self._path, self._limited = path, subtype not in _UNLIMITED
        self._what = f"{kind} {subtype}"
        self.frames = self.beyond = 0
        path.touch()  # raises the system's own error, which libsndfile hides
        with self._named_errors():
            self._file = sf.SoundFile(path, "w", rate, channels, subtype, endian, kind)
        for key, text in (tags or {}).items():
            with suppress(sf.LibsndfileError, RuntimeError):
                setattr(self._file, key, text)

    def __enter__(self) -> Self:
        return self

    def write(self, block: Block) -> None:
        """Write the next samples (c, n)."""
        if self._limited:
            self.beyond += int(np.count_nonzero(np.abs(block) > 1))
        for first in range(0, block.shape[1], _SAMPLES):
            piece = np.ascontiguousarray(block[:, first : first + _SAMPLES].T)
            with self._named_errors():
                self._file.write(piece)
        self.frames += block.shape[1]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._named_errors():
            self._file.close()
        if kind is None:
            # libsndfile reports no error if the disk was full when it closed the file.
            with opened(self._path) as file:
                if file.frames < self.frames:
                    raise AudioError(
                        f"written, it has {file.frames} of {self.frames} samples: is the disk full?"
                    )

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn libsndfile's errors into `AudioError`, with the format and the reason."""
        try:
            yield
        except sf.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
            if error.code == _SYSTEM:
                reason += "; is the disk full?"
            raise AudioError(f"cannot be written as {self._what} ({reason})") from None


def jobs_of(inputs: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Find the recordings in files and folders; return them by the file below `out` to write.

    A file keeps its name and a folder its structure; of several folders each keeps its name. Files
    in `out` itself are not enhanced.

    Raises:
        DataError: an input does not exist or holds no audio, or a file would replace a recording,
            or two would be written to the same file.
    """
    named = sum(path.is_dir() for path in inputs) > 1
    jobs: dict[Path, Path] = {}
    for path in inputs:
        for source, place in _found(path, out, named):
            other = jobs.setdefault(out / place, source)
            if other.resolve() != source.resolve():
                raise DataError(
                    f"{other} and {source} would both become {out / place}; enhance one of them "
                    "into another folder"
                )
    sources = {source.resolve() for source in jobs.values()}
    for target in jobs:
        if target.resolve() in sources:
            raise DataError(
                f"{target} is a recording that is to be enhanced: -o has to name another folder"
            )
    return jobs


def _found(path: Path, out: Path, named: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the recordings at a path, with their places below `out`."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        yield path, Path(path.name)
        return
    if is_within(path, out):
        raise DataError(f"{path} lies in the output folder {out}: -o has to name another one")
    files = sorted(each for each in walk(path) if not is_within(each, out))
    if not files:
        raise DataError(f"{path}: no audio in it ({KINDS})")
    top = Path(path.resolve().name) if named else Path()
    for each in files:
        yield each, top / each.relative_to(path)


def enhance_file(model: Model, path: Path, target: Path) -> list[str]:
    """Enhance a recording into a file of the same kind, rate, channels and length.

    Returns:
        Notes for the listener, such as that the recording is clipped.

    Raises:
        AudioError: it cannot be decoded, enhanced or encoded; no file is left half-written.
        OSError: the file cannot be written.
    """
    source = FileSource(path)
    found = survey(source)
    seconds = round(found.total / SAMPLE_RATE)
    hidden = True if seconds < _LONG else None  # None: hidden where there is no terminal
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tqdm(total=seconds, desc=path.name, unit="s", leave=False, disable=hidden) as bar,
        replacing(target) as temporary,
        Writer(temporary, source.rate, source.channels, source.encoding, source.tags) as file,
    ):
        try:
            for block in enhanced(model.trained.network, source, found, model.windows, bar.update):
                file.write(block)
        except (MemoryError, torch.OutOfMemoryError):
            raise AudioError(f"there is not enough memory for it ({model.device})") from None
    notes = found.notes(source.channels)
    if file.beyond:
        notes.append(f"{file.beyond} samples of the result were beyond full scale and are clipped")
    return notes


def enhance_files(
    network: BandSplitNet, noisy: Mapping[str, Path], folder: Path, made_by: str, title: str
) -> dict[str, Path | str]:
    """Enhance a test set, each file at once, into 32-bit float wav files at 16 kHz by name.

    Each file's comment holds a checksum of what it was made from. A file that was made from the
    same noisy file by the same weights and code, on the same kind of device, is not made again.

    Args:
        network: on the device to use.
        made_by: the checksum of its weights.
        title: of the progress bar.

    Returns:
        By name, the file, or the reason why there is none.

    Raises:
        DataError: a file cannot be written.
    """
    made: dict[str, Path | str] = {}
    bar = tqdm(noisy.items(), desc=f"enhancing by {title}", unit="file", disable=None)
    for name, source in bar:
        target = folder / f"{name}.wav"
        try:
            signal = torch.from_numpy(read(source))
            if not len(signal):
                raise AudioError("empty: no samples")
            parts = (made_by, digest_of([source]), network.device.type, _code())
            origin = f"made from {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"
            if _comment(target) != origin:
                clean = network.enhance(signal[None].to(network.device))[0].cpu().numpy()
                target.parent.mkdir(parents=True, exist_ok=True)
                write(target, clean, "FLOAT", origin)
            made[name] = target
        except AudioError as error:
            made[name] = f"{source}: {error}"
        except (MemoryError, torch.OutOfMemoryError):
            made[name] = f"{source}: too long for the memory of {network.device}"
    return made


def _comment(path: Path) -> str:
    """Return the comment in an audio file; an empty text if there is no such file."""
    try:
        return described(path)[2]
    except AudioError:
        return ""


@cache
def _code() -> str:
    """Return a checksum of the networks' code: after a change, the same weights may do other."""
    paths = [ROOT / "real_mamba_optimized.py", ROOT / "bsbimamba" / "data" / "audio.py"]
    for folder in (
        "abl*",
        "baseline",
        "bsbimamba/network",
        "bsbimamba/recompute",
        "bsbimamba/scan",
    ):
        paths += sorted(ROOT.glob(f"{folder}/**/*.py"))
    return digest_of(paths)
