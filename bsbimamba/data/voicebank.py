"""Download VoiceBank-DEMAND and convert it to 16 kHz.

    python -m bsbimamba voicebank [--root DIR]

The archives of Edinburgh DataShare (https://doi.org/10.7488/ds/2117) come into DIR/.download, and
their recordings as 16-bit wav files into DIR/clean_trainset_28spk_wav and so on.
"""

import hashlib
import http.client
import io
import logging
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated
from zipfile import ZipFile

import numpy as np
import soundfile as sf
import soxr
import tyro
from tqdm import tqdm
from tyro.conf import arg

from bsbimamba.data.audio import write
from bsbimamba.data.benchmark import TEST_LOG, TEST_PAIRS, TRAIN_PAIRS
from bsbimamba.data.corpus import load_pairs
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.workers import in_threads, stop_by_signals
from bsbimamba.utils import ROOT, FailedError, carry_out, write_text

FOLDER = ROOT / "data" / "voicebank_demand"
TRIES, PAUSE = 6, 5.0  # of each address; s before the next one
_TIMEOUT = 60.0  # s in which a server has to send something
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
# Addresses in the older and in the newer software of the site.
_OLDER = "https://datashare.ed.ac.uk/bitstream/handle/10283/2791/"
_NEWER = "https://datashare.ed.ac.uk/bitstreams/"


@dataclass(frozen=True)
class Archive:
    """A published archive, whose recordings go into a folder of its name without ".zip"."""

    name: str
    md5: str  # as the publisher states it, hexadecimal
    addresses: tuple[str, ...]  # the likeliest first
    files: int  # number of its recordings; 1 for the logs, of which one is needed


# Small ones first: what is wrong in general shows before gigabytes have come. The logs last: no
# training needs them.
PUBLISHED = (
    *(
        Archive(name, md5, (f"{_OLDER}{name}?sequence={sequence}&isAllowed=y",
                            f"{_NEWER}{newer}/download"), files)
        for name, files, sequence, newer, md5 in (
            ("clean_testset_wav.zip", TEST_PAIRS, 1,
             "dec213d3-bf57-4777-9663-c24bdce92d5e", "34eb1c0ba7ef667e9b966866c542fc16"),
            ("noisy_testset_wav.zip", TEST_PAIRS, 5,
             "13c1bfbf-14a6-41db-9b41-8f7310f01ad5", "fb1b86caa31e8ba5b506c0c64da9aab5"),
            ("clean_trainset_28spk_wav.zip", TRAIN_PAIRS, 2,
             "245452b6-6235-44b6-a6f9-e7eb19797769", "d2d5a45ec32f8fcbf201bde0447e20ba"),
            ("noisy_trainset_28spk_wav.zip", TRAIN_PAIRS, 6,
             "ecb5a102-bb00-46d3-8af5-40c79823b837", "1fca9e8bafb8cd069f6653c6d92f9e9c"),
        )
    ),
    Archive("logfiles.zip", "0d16f5b6afe12d64238d1e4a0e6ff6e8", (f"{_OLDER}logfiles.zip",), 1),
)  # fmt: skip


def prepare(root: Annotated[Path, arg(metavar="DIR")] = FOLDER) -> int:
    """Download VoiceBank-DEMAND and convert it to 16 kHz.

    Run again after an interruption, and it goes on where it stopped. Archives that lie in
    DIR/.download are not downloaded. Exit status: 0 done, 1 the network or the disk failed, 2 wrong
    input, 130 interrupted.

    root: folder to make.
    """
    for archive in PUBLISHED:
        folder = root / archive.name.removesuffix(".zip")
        if len([*folder.glob("*.wav"), *folder.glob(TEST_LOG)]) >= archive.files:
            continue
        path = root / ".download" / archive.name
        if not path.is_file() or _md5(path) != archive.md5:
            download(archive.addresses, path, archive.md5)
        convert(path, folder)
    counts = [f"{len(load_pairs(root, split)):,} {split} pairs" for split in ("train", "test")]
    print(f"{root}: {', '.join(counts)}")
    return 0


def download(addresses: Sequence[str], target: Path, md5: str) -> None:
    """Download a file from the first of its addresses that has it, and verify it.

    What has arrived lies beside it, in NAME.part1 from the first address. The next try and the next
    call go on from there. Raises FailedError if no address gives a file of this checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for number, address in enumerate(addresses, 1):
        part = target.with_name(f"{target.name}.part{number}")
        for _ in range(TRIES):
            try:
                _receive(address, part)
            except _NETWORK as error:
                reason = str(error)
                time.sleep(PAUSE)
                continue
            if _md5(part) == md5:
                part.replace(target)
                return
            part.unlink()
            reason = "is not what was published (another checksum)"
            break
        reasons.append(f"{address}: {reason}")
    raise FailedError(
        f"{target.name} cannot be downloaded ({'; '.join(reasons)}). Run again later, which goes "
        f"on from what has arrived, or put the file into {target.parent} yourself."
    )


def _receive(address: str, part: Path) -> None:
    """Append what a server sends after the bytes that have arrived, or begin anew."""
    arrived = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "bs-bimamba"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after these bytes
            return
        raise
    mode = "ab" if response.status == 206 else "wb"  # other servers send the whole file
    with response, part.open(mode) as file:
        total = file.tell() + int(response.headers.get("Content-Length", 0))
        with tqdm.wrapattr(
            file, "write", total, initial=file.tell(), desc=part.stem, miniters=1, disable=None
        ) as body:
            shutil.copyfileobj(response, body)
    if (arrived := part.stat().st_size) < total:
        raise ConnectionError(f"the connection ended after {arrived} of {total} bytes")


def convert(archive: Path, folder: Path) -> None:
    """Make the files of an archive that `folder` lacks, at 16 kHz and in 16 bits, in threads."""
    folder.mkdir(exist_ok=True)
    with ZipFile(archive) as opened:

        def make(member: str) -> None:
            target = folder / PurePosixPath(member).name
            content = opened.read(member)
            if target.suffix == ".txt":
                write_text(target, content.decode("utf-8", "replace"))
                return
            signal, rate = sf.read(io.BytesIO(content), dtype="float64")
            signal = 32768 * soxr.resample(signal, rate, SAMPLE_RATE, quality="VHQ")
            write(target, signal.round().clip(-32768, 32767).astype(np.int16))

        wanted = [
            name
            for name in opened.namelist()
            if (member := PurePosixPath(name)).suffix in (".wav", ".txt")
            and not member.name.startswith(".")  # as macOS adds
            and not (folder / member.name).exists()
        ]
        in_threads(make, wanted, folder.name)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    command = partial(tyro.cli, prepare, prog="python -m bsbimamba voicebank", args=arguments)
    return carry_out("voicebank", command, "; the same command goes on from here")


if __name__ == "__main__":
    stop_by_signals()
    sys.exit(main())
