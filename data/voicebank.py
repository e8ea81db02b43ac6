"""Download VoiceBank-DEMAND and convert it to 16 kHz.

    python -m data.voicebank [--root DIR] [--from DIR] [--workers N] [--remove-archives]

The archives of Edinburgh DataShare (https://doi.org/10.7488/ds/2117) come into DIR/.download, and
their recordings as 16-bit wav files into DIR/clean_trainset_28spk_wav and so on. The same command
goes on where it was interrupted. `python -m data.verify DIR` looks at all of it.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from data.audio import SAMPLE_RATE, encode
from data.benchmark import TEST_PAIRS, TRAIN_PAIRS
from data.corpus import load_pairs
from data.download import download
from data.utils import (
    DataError,
    FailedError,
    carry_out,
    checksum_of,
    hold,
    remove_partials,
    replacing,
)
from data.workers import mapped, stop_by_signals, usable_cores

log = logging.getLogger("data")

FOLDER = Path(__file__).resolve().parent / "voicebank_demand"
DOWNLOADS = ".download"
_SITE = "https://datashare.ed.ac.uk"
_CHUNK = 8  # members that a process takes at once; an interruption waits for them


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        name: of the file; its recordings go into a folder of that name without ".zip".
        addresses: where it is, the likeliest first.
        md5: as the publisher states it, hexadecimal.
        files: how many recordings it has; 0 of the logs, without which all else can be done.
    """

    name: str
    addresses: tuple[str, ...]
    md5: str
    files: int = 0


def _published(name: str, md5: str, files: int, sequence: int, newer: str) -> Archive:
    """Return an archive. sequence, newer: how the site's older and newer software name it."""
    older = f"{_SITE}/bitstream/handle/10283/2791/{name}?sequence={sequence}&isAllowed=y"
    return Archive(name, (older, f"{_SITE}/bitstreams/{newer}/download"), md5, files)


# Small ones first: what is wrong in general shows before gigabytes have come.
PUBLISHED = (
    Archive("logfiles.zip", (f"{_SITE}/bitstream/handle/10283/2791/logfiles.zip",),
            "0d16f5b6afe12d64238d1e4a0e6ff6e8"),
    _published("clean_testset_wav.zip", "34eb1c0ba7ef667e9b966866c542fc16", TEST_PAIRS, 1,
               "dec213d3-bf57-4777-9663-c24bdce92d5e"),
    _published("noisy_testset_wav.zip", "fb1b86caa31e8ba5b506c0c64da9aab5", TEST_PAIRS, 5,
               "13c1bfbf-14a6-41db-9b41-8f7310f01ad5"),
    _published("clean_trainset_28spk_wav.zip", "d2d5a45ec32f8fcbf201bde0447e20ba", TRAIN_PAIRS, 2,
               "245452b6-6235-44b6-a6f9-e7eb19797769"),
    _published("noisy_trainset_28spk_wav.zip", "1fca9e8bafb8cd069f6653c6d92f9e9c", TRAIN_PAIRS, 6,
               "ecb5a102-bb00-46d3-8af5-40c79823b837"),
)  # fmt: skip


def prepare(
    root: Path,
    elsewhere: Path | None = None,
    workers: int = 1,
    remove_archives: bool = False,
    archives: Sequence[Archive] = PUBLISHED,
) -> None:
    """Make the corpus in `root`, or what is missing of it.

    Args: as those of the command line; archives: what is published.

    Raises:
        DataError: an archive is not the published one, or recordings do not match.
        FailedError: the network is at fault, or a process was killed; what is done is kept.
        OSError: a file cannot be read or written; the same holds.
    """
    downloads = root / DOWNLOADS
    downloads.mkdir(parents=True, exist_ok=True)
    with hold(downloads, "name another folder with --root"):
        for archive in archives:
            folder = root / archive.name.removesuffix(".zip")
            made = len([*folder.glob("*.wav"), *folder.glob("*.txt")])
            if made and made >= archive.files:
                continue
            try:
                path = _obtain(archive, elsewhere, downloads)
            except FailedError as error:
                if archive.files:
                    raise
                log.warning("%s Going on without: noises and SNRs will not be known.", error)
                continue
            convert(path, folder, workers)
            if remove_archives and path.parent == downloads:
                path.unlink()
    counts = [f"{len(load_pairs(root, split)):,} {split} pairs" for split in ("train", "test")]
    print(f"{root}: {', '.join(counts)}")


def _obtain(archive: Archive, elsewhere: Path | None, downloads: Path) -> Path:
    """Return an archive's file, verified; download it if it is in neither folder."""
    for folder in (elsewhere, downloads):
        if folder and (path := folder / archive.name).is_file():
            if checksum_of(path, "md5") != archive.md5:
                raise DataError(f"{path} has another MD5 than was published: remove it")
            return path
    download(archive.addresses, downloads / archive.name, "md5", archive.md5)
    return downloads / archive.name


def convert(archive: Path, folder: Path, workers: int) -> None:
    """Make the files of an archive that `folder` lacks, wav files at 16 kHz and in 16 bits.

    Raises:
        FailedError: a process was killed.
    """
    with ZipFile(archive) as opened:
        members = [PurePosixPath(name) for name in opened.namelist()]
    folder.mkdir(exist_ok=True)
    remove_partials(folder)
    wanted = [
        str(member)
        for member in members
        if member.suffix in (".wav", ".txt")
        and not member.name.startswith(".")  # as macOS adds
        and not (folder / member.name).exists()
    ]
    bar = tqdm(total=len(wanted), desc=folder.name, unit="file", disable=None)
    try:
        with bar, mapped(partial(_convert, archive, folder), wanted, workers, _CHUNK) as done:
            for _ in done:
                bar.update()
    except BrokenProcessPool:
        raise FailedError(
            "a converting process was killed (out of memory?). Run again, which goes on from here, "
            "if need be with fewer --workers."
        ) from None
    finally:
        _opened.cache_clear()  # an archive that is open cannot be removed everywhere


def _convert(archive: Path, folder: Path, member: str) -> None:
    content = _opened(archive).read(member)
    target = folder / PurePosixPath(member).name
    if target.suffix == ".wav":
        content = resampled(content)
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def resampled(content: bytes) -> bytes:
    """Return a mono wav file's content at 16 kHz and in 16 bits."""
    signal, rate = sf.read(io.BytesIO(content), dtype="float64")
    if rate != SAMPLE_RATE:
        signal = soxr.resample(signal, rate, SAMPLE_RATE, quality="VHQ")
    return encode(np.round(32768 * signal).clip(-32768, 32767).astype(np.int16), ".wav")


@lru_cache(maxsize=1)
def _opened(path: Path) -> ZipFile:
    """Return an archive, kept open between the members that a process unpacks."""
    return ZipFile(path)


def main(arguments: Sequence[str] | None = None, archives: Sequence[Archive] = PUBLISHED) -> int:
    """Run the command line; return the exit status.

    0: done. 1: the network or the disk failed. 2: wrong input. 130: interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m data.voicebank",
        description="Download VoiceBank-DEMAND and convert it to 16 kHz. Run again after an "
        "interruption, and it goes on where it stopped.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", default=FOLDER, help=f"folder to make ({FOLDER})"
    )
    parser.add_argument(
        "--from", type=Path, metavar="DIR", dest="elsewhere", help="a folder that has archives"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", default=usable_cores(), help="processes that convert"
    )
    parser.add_argument(
        "--remove-archives", action="store_true", help="remove downloads once they are converted"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def work() -> int:
        prepare(**vars(options), archives=archives)
        return 0

    return carry_out("voicebank", work, "; the same command goes on from here")


if __name__ == "__main__":
    # Worker processes find `_convert` by the name of its module, which must not be `__main__`.
    from data.voicebank import main as imported_main

    stop_by_signals()
    sys.exit(imported_main())
