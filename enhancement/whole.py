"""Enhancing files, each whole, and keeping what was made before."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import data.audio
from bandsplit.net import BandSplitNet
from data.audio import AudioError, described, read, write
from data.utils import DataError, digest_of

_MARK = "made from "
_ROOT = Path(__file__).resolve().parents[1]


def enhance_files(
    network: BandSplitNet,
    noisy: Mapping[str, Path],
    folder: Path,
    made_by: str,
    title: str,
) -> dict[str, Path | str]:
    """Enhance files into `folder`, as 32-bit float wav by name; of one that cannot be, the reason.

    Each carries in its comment what it was made from: one that is there already, of the same noisy
    file by the same weights, code, packages and kind of device, is not made again.

    Args:
        network: on the device to use.
        made_by: what the network's weights are known by.
        title: of the progress bar.

    Raises:
        DataError: a file cannot be written, or another program's is where it should be.
    """
    device = network.device
    made: dict[str, Path | str] = {}
    for name, source in tqdm(
        noisy.items(), desc=f"enhancing by {title}", unit="file", disable=None
    ):
        target = folder / f"{name}.wav"
        try:
            origin = _origin(source, made_by, device)
            if not _is_made(target, origin):
                signal = torch.from_numpy(read(source))
                if not len(signal):
                    raise AudioError("empty: no samples")
                enhanced = network.enhance(signal[None].to(device))[0].cpu().numpy()
                target.parent.mkdir(parents=True, exist_ok=True)
                write(target, enhanced, "FLOAT", f"{origin}{_digest(enhanced)}")
            made[name] = target
        except AudioError as error:
            made[name] = f"{source}: {error}"
        except (FileExistsError, NotADirectoryError) as error:  # x.wav beside x.wav/y.wav
            made[name] = f"{error.filename}: {error.strerror}"
        except (MemoryError, torch.OutOfMemoryError):
            made[name] = f"{source}: too long for the memory of {device}"
    return made


def _origin(source: Path, made_by: str, device: torch.device) -> str:
    try:
        content = digest_of([source])
    except OSError as error:
        raise AudioError(f"cannot be opened ({error.strerror})") from None
    backend = os.environ.get("BSBIMAMBA_SCAN", "")
    parts = (
        made_by,
        content,
        torch.__version__,
        soxr.__version__,
        device.type,
        backend,
        code_digest(),
    )
    return f"{_MARK}{hashlib.sha256(' '.join(parts).encode()).hexdigest()}, samples "


def _digest(samples: NDArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes()).hexdigest()


@cache
def code_digest() -> str:
    """The networks' code, hashed: a change of it may change what they do with the same weights."""
    paths = [_ROOT / "real_mamba_optimized.py", Path(data.audio.__file__)]
    for package in ("abl*", "bandsplit", "baseline", "recompute", "scan"):
        paths += sorted(_ROOT.glob(f"{package}/*.py"))
    return digest_of(paths)


def _is_made(target: Path, origin: str) -> bool:
    """Whether the file is there, made from that, and as it was written.

    Raises:
        DataError: there is a file that was not written here; it may be dear to somebody.
    """
    if target.is_dir():
        raise FileExistsError(errno.EEXIST, "a folder is where a file should be", str(target))
    try:
        if not target.is_file():
            return False
        comment = described(target)[2]
        if not comment.startswith(_MARK):
            raise DataError(f"{target} is in the way: it was not made here. Name another --out.")
        return comment == f"{origin}{_digest(read(target))}"
    except AudioError:  # a damaged one is made anew
        return False
