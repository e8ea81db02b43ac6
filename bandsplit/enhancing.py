"""Enhancing files, each whole, and keeping what was made before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import soxr
import torch
from tqdm import tqdm

import data.audio
from bandsplit.net import BandSplitNet
from data.audio import AudioError, described, read, write
from data.files import digest_of

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
        DataError: a file cannot be written.
    """
    device = next(network.parameters()).device
    made: dict[str, Path | str] = {}
    for name, source in tqdm(
        noisy.items(), desc=f"enhancing by {title}", unit="file", disable=None
    ):
        target = folder / f"{name}.wav"
        try:
            origin = _origin(source, made_by, device)
            if _is_made(target, origin):
                made[name] = target
                continue
            signal = torch.from_numpy(read(source))
            if not len(signal):
                raise AudioError("empty: no samples")
            enhanced = network.enhance(signal[None].to(device))[0].cpu().numpy()
        except AudioError as error:
            made[name] = f"{source}: {error}"
            continue
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            made[name] = f"{source}: too long for the memory of {device}"
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, enhanced, "FLOAT", origin)
        made[name] = target
    return made


def _origin(source: Path, made_by: str, device: torch.device) -> str:
    try:
        content = digest_of([source])
    except OSError as error:
        raise AudioError(f"cannot be opened ({error.strerror})") from None
    backend = os.environ.get("BSBIMAMBA_SCAN", "")
    parts = (made_by, content, torch.__version__, soxr.__version__, device.type, backend, _code())
    return f"made from {hashlib.sha256(' '.join(parts).encode()).hexdigest()}"


@cache
def _code() -> str:
    """The networks' code: a change of it may change what they do with the same weights."""
    paths = [_ROOT / "real_mamba_optimized.py", Path(data.audio.__file__)]
    for package in ("abl1", "abl2", "abl3", "bandsplit", "baseline", "scan"):
        paths += sorted((_ROOT / package).glob("*.py"))
    return digest_of(paths)


def _is_made(target: Path, origin: str) -> bool:
    try:
        return target.is_file() and described(target)[2] == origin
    except AudioError:
        return False
