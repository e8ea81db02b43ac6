"""Enhance audio files, and folders of them, into files of the same kind."""

from collections.abc import Iterator, Mapping, Sequence
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
from bsbimamba.utils import DataError, is_within, replacing

KINDS = "wav, flac, ogg, opus, mp3, aiff, au, caf, w64 and others of libsndfile"
_SAMPLES = 1 << 17  # to be written at once


class FileSource:
    """A file, decoded block by block each time its samples are asked for.

    Attributes:
        rate, channels: as stored.
        frames: samples a channel; counted, if their number is not stored.
        encoding: subtype, byte order and format, by soundfile's names.

    Raises AudioError if it is no audio file, or shorter than its header says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self.rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
            self.encoding = (file.subtype, file.endian, file.format)
            if self.frames >= audio.UNKNOWN_LENGTH:
                self.frames = sum(map(len, audio.blocks(file)))

    def blocks(self) -> Iterator[Block]:
        """Yield the samples (c, n). Raise AudioError as `data.audio.blocks` does."""
        with opened(self.path) as file:
            for block in audio.blocks(file):
                yield block.T


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
            files = [each for each in audio.recordings(path) if not is_within(each, out)]
            found = {Path(top, each.relative_to(path)): each for each in files}
        if not found:
            raise DataError(f"{path}: no audio to enhance, unless in the output folder ({KINDS})")
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
    network: BandSplitNet, noisy: Mapping[str, Path], folder: Path, title: str
) -> dict[str, Path | str]:
    """Enhance a test set, each file at once, into 32-bit float wav files at 16 kHz by name.

    Args:
        network: on the device to use.
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
            clean = network.enhance(signal[None].to(network.device))[0].cpu().numpy()
            target.parent.mkdir(parents=True, exist_ok=True)
            audio.write(target, clean, "FLOAT")
        except AudioError as error:
            made[name] = f"{source}: {error}"
        except (MemoryError, torch.OutOfMemoryError):
            made[name] = f"{source}: too long for the memory of {network.device}"
    return made
