"""Recordings out of a zip archive, as 16-kHz wav files, by several processes.

Members are unpacked in memory, so that at 48 kHz nothing lies on the disk. A journal beside the
archive says which files are made, of what and by what; an interrupted conversion goes on from it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from data.archives import content, members, open_archive
from data.audio import RATES, SAMPLE_RATE, announces_more, encode
from data.errors import DataError, FailedError
from data.files import DAMAGE, remove_partials, replacing, write_text
from data.workers import mapped

RESAMPLER = {"name": "soxr", "version": soxr.__version__, "quality": "VHQ"}
_CHUNK = 8  # members that a process takes at once; an interruption waits for them


@dataclass(frozen=True)
class Converted:
    """A file that was made.

    Attributes:
        name: of the file.
        rate: of its source, in Hz.
        frames: its length in samples at 16 kHz; size: in bytes.
        clipped: samples that were beyond 16 bits.
    """

    name: str
    rate: int
    frames: int
    size: int
    clipped: int


@dataclass(frozen=True)
class Task:
    """One member to convert. stamp: when the archive was written, so that no older one is read."""

    archive: Path
    stamp: int
    member: str
    target: Path


class Journal:
    """What has been made of one archive: a first line on source and resampler, one for each file.

    Args:
        path: of the journal; what it says of another source or resampler is not believed.
        folder: of the files.
        sha256: of the archive.
    """

    def __init__(self, path: Path, folder: Path, sha256: str) -> None:
        self._path, self._folder = path, folder
        self._head: dict[str, Any] = {"archive": sha256, "resampler": RESAMPLER, "members": None}
        self.done: dict[str, Converted] = {}
        self._read()

    @property
    def complete(self) -> bool:
        """Whether all of the archive's files are made, and are there."""
        return len(self.done) == self._head["members"]

    @contextmanager
    def writing(self, count: int) -> Iterator[Callable[[Converted], None]]:
        """A function to add files with. count: of the archive's members."""
        self._head["members"] = count
        lines = [self._head, *map(asdict, self.done.values())]
        # Anew, since what it ends with may have been cut off in the middle.
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        with self._path.open("a", encoding="utf-8") as file:

            def add(converted: Converted) -> None:
                self.done[converted.name] = converted
                file.write(json.dumps(asdict(converted)) + "\n")
                file.flush()

            yield add

    def _read(self) -> None:
        try:
            lines = self._path.read_text("utf-8").splitlines()
            head = json.loads(lines[0])
            if head != {**self._head, "members": head["members"]}:
                return
            made = [Converted(**json.loads(line)) for line in lines[1:] if line.endswith("}")]
        except DAMAGE:
            return
        self._head = head
        sizes = sizes_in(self._folder)
        self.done = {each.name: each for each in made if sizes.get(each.name) == each.size}


def sizes_in(folder: Path) -> dict[str, int]:
    """The size of every wav file in a folder, in bytes, by name."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {e.name: e.stat().st_size for e in entries if e.name.endswith(".wav")}


def convert(archive: Path, folder: Path, journal: Journal, workers: int) -> dict[str, str]:
    """Make what `journal` lacks of an archive's wav files in `folder`; why some cannot be, by name.

    Raises:
        DataError: the archive is damaged or not to be trusted, or `folder` has other files.
        FailedError: a process was killed.
        OSError: a file cannot be written.
    """
    with open_archive(archive) as opened:
        wanted = {name: info.filename for name, info in members(opened, ".wav").items()}
    if not wanted:
        raise DataError(f"{archive} has no wav files. Remove it and run again.")
    folder.mkdir(exist_ok=True)
    remove_partials(folder)
    for path in sorted(folder.iterdir()):
        if path.name not in wanted and not path.name.startswith("."):
            raise DataError(f"{path} is not of {archive.name}; move it elsewhere and run again")
    stamp = archive.stat().st_mtime_ns
    tasks = [
        Task(archive, stamp, member, folder / name)
        for name, member in wanted.items()
        if name not in journal.done
    ]
    bad = {}
    bar = tqdm(
        total=len(wanted), initial=len(wanted) - len(tasks), desc=folder.name, unit="file",
        disable=None,
    )  # fmt: skip
    converting = mapped(convert_member, tasks, workers, _CHUNK)
    try:
        with journal.writing(len(wanted)) as add, bar, converting as results:
            for task, result in zip(tasks, results, strict=True):
                if isinstance(result, str):
                    bad[task.target.name] = result
                else:
                    add(result)
                bar.update()
    except BrokenProcessPool:
        raise FailedError(
            "a converting process was killed (out of memory?). Run again, which goes on from here, "
            "if need be with fewer --workers."
        ) from None
    finally:
        _opened.cache_clear()  # an archive that is open cannot be removed everywhere
    return bad


def convert_member(task: Task) -> Converted | str:
    """Convert one member; why that cannot be done where its content is at fault.

    Raises:
        OSError: the archive cannot be read, or the file not be written.
    """
    try:
        signal, rate = decoded(content(_opened(task.archive, task.stamp), task.member))
    except DataError as error:
        return str(error)
    samples, clipped = resampled(signal, rate)
    if not len(samples):
        return "empty: no samples"
    encoded = encode(samples, ".wav")
    with replacing(task.target) as temporary:
        temporary.write_bytes(encoded)
    return Converted(task.target.name, rate, len(samples), len(encoded), clipped)


def decoded(encoded: bytes) -> tuple[NDArray[np.float64], int]:
    """The samples of a wav file's content, (s,) at its own rate in Hz.

    Raises:
        DataError: it cannot be decoded, is not mono, or has samples that are no numbers.
    """
    try:
        with sf.SoundFile(io.BytesIO(encoded)) as file:
            rate, channels = file.samplerate, file.channels
            if channels != 1:
                raise DataError(f"has {channels} channels instead of one")
            if rate not in RATES:
                raise DataError(f"no audio: a sampling rate of {rate} Hz")
            # A compressed format could announce, and unpack to, anything.
            if file.format not in ("WAV", "WAVEX"):
                raise DataError(f"is no wav file but {file.format}")
            signal = file.read(dtype="float64")
    except sf.LibsndfileError as error:
        raise DataError(f"cannot be decoded ({error.error_string.rstrip('.')})") from None
    if announces_more(encoded, len(encoded)):
        raise DataError("cut short: its header announces more samples than there are")
    if not np.isfinite(signal).all():
        raise DataError("has NaN or infinite samples")
    return signal, rate


def resampled(signal: NDArray[np.float64], rate: int) -> tuple[NDArray[np.int16], int]:
    """A signal (s,) of full scale 1 at 16 kHz and in 16 bits, and how many samples were clipped."""
    if rate != SAMPLE_RATE:
        signal = soxr.resample(signal, rate, SAMPLE_RATE, quality=RESAMPLER["quality"])
    scaled = np.round(32768 * signal)
    limited = scaled.clip(-32768, 32767)
    return limited.astype(np.int16), int(np.count_nonzero(limited != scaled))


@lru_cache(maxsize=1)
def _opened(path: Path, stamp: int) -> ZipFile:
    """An archive, kept open between the members that a process unpacks."""
    return open_archive(path)
