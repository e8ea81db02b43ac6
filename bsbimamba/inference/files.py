"""Enhance audio files, and folders of them, into files of the same kind."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from tqdm import tqdm

from bsbimamba.data import audio
from bsbimamba.data.audio import AudioError, opened
from bsbimamba.inference.model import Model
from bsbimamba.inference.windows import Block, enhanced
from bsbimamba.network.net import BandSplitNet
from bsbimamba.utils import SOURCES, DataError, digest_of, is_within, replacing

KINDS = "wav, flac, ogg, opus, mp3, aiff, au, caf, w64 and others of libsndfile"
_SAMPLES = 1 << 17  # a block; libsndfile crashes if it is given minutes of Vorbis at once


class FileSource:
    """A file, decoded block by block each time its samples are asked for.

    Attributes:
        rate, channels: as stored.
        frames: samples a channel, by the header.
        encoding: subtype, byte order and format, by soundfile's names.

    Raises:
        AudioError: it is no audio file, or shorter than it says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self.rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
            self.encoding = (file.subtype, file.endian, file.format)
        if audio.is_cut_short(path):
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
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        found = {Path(path.name): path}
        if path.is_dir():
            top = path.resolve().name if named else ""
            files = sorted(each for each in audio.walk(path) if not is_within(each, out))
            found = {Path(top, each.relative_to(path)): each for each in files}
        if not found:
            raise DataError(f"{path}: no audio in it but in the output folder, if at all ({KINDS})")
        for place, source in found.items():
            other, target = jobs.setdefault(out / place, source), out / place
            if other.resolve() != source.resolve():
                raise DataError(f"{other} and {source} would both become {target}: name one")
    sources = {source.resolve() for source in jobs.values()}
    for target in jobs:
        if target.resolve() in sources:
            raise DataError(f"{target} is to be enhanced itself: -o has to name another folder")
    return jobs


def enhance_file(model: Model, path: Path, target: Path) -> None:
    """Enhance a recording into a file of the same kind, rate, channels and length.

    Raises:
        AudioError: it cannot be decoded, enhanced or encoded; no file is left half-written.
        OSError: the file cannot be written.
    """
    source = FileSource(path)
    blocks = enhanced(model.network, source, model.windows)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        _write(temporary, source, blocks)
        # libsndfile reports no error if the disk was full when it closed the file.
        with opened(temporary) as file:
            if file.frames < source.frames:
                raise AudioError(f"{file.frames} of {source.frames} samples fit on the disk")


def _write(path: Path, source: FileSource, blocks: Iterator[Block]) -> None:
    """Write samples (c, n) as the source is encoded, and show the progress of a long recording."""
    path.touch()  # raises the system's own error, which libsndfile hides
    hidden = None if source.frames > 60 * source.rate else True  # None: without a terminal
    try:
        with (
            sf.SoundFile(path, "w", source.rate, source.channels, *source.encoding) as file,
            tqdm(
                total=source.frames, desc=source.path.name, unit="samples", unit_scale=True,
                leave=False, disable=hidden,
            ) as bar,
        ):  # fmt: skip
            for block in blocks:
                for first in range(0, block.shape[1], _SAMPLES):
                    file.write(np.ascontiguousarray(block[:, first : first + _SAMPLES].T))
                bar.update(block.shape[1])
    except sf.LibsndfileError as error:
        subtype, _, kind = source.encoding
        # 2: an error of the operating system.
        reason = error.error_string.strip() + " Is the disk full?" * (error.code == 2)
        raise AudioError(f"cannot be written as {kind} {subtype}: {reason}") from None


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
        OSError: a file cannot be written.
    """
    made: dict[str, Path | str] = {}
    bar = tqdm(noisy.items(), desc=f"enhancing by {title}", unit="file", disable=None)
    for name, source in bar:
        made[name] = target = folder / f"{name}.wav"
        try:
            signal = torch.from_numpy(audio.read(source))
            if not len(signal):
                raise AudioError("empty: no samples")
            parts = (made_by, digest_of([source]), network.device.type, _code())
            origin = f"made from {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"
            with suppress(AudioError):  # there is no whole file yet
                if audio.described(target)[2] == origin:
                    continue
            clean = network.enhance(signal[None].to(network.device))[0].cpu().numpy()
            target.parent.mkdir(parents=True, exist_ok=True)
            audio.write(target, clean, "FLOAT", origin)
        except AudioError as error:
            made[name] = f"{source}: {error}"
        except (MemoryError, torch.OutOfMemoryError):
            made[name] = f"{source}: too long for the memory of {network.device}"
    return made


@cache
def _code() -> str:
    """Return a checksum of the networks' code: after a change, the same weights may do other."""
    folders = ("abl*", "baseline", *(f"bsbimamba/{x}" for x in ("network", "recompute", "scan")))
    files = ["real_mamba_optimized.py", "bsbimamba/data/audio.py"]
    files += [f"{x}/**/*.py" for x in folders]
    return digest_of(sorted(path for pattern in files for path in SOURCES.glob(pattern)))
