"""Model folders: a trained network as data that any program reads, none of it pickled.

    model.safetensors   the averaged weights
    config.json         which network they are of, its settings, where they are from
    model.onnx          the same network for other programs, where it was exported
    SHA256SUMS          checksums of all of these, as `sha256sum --check` takes them

`SHA256SUMS` is written last and read first: what it does not list is not looked at, and what it
lists has to be as it says. `config.json` also tells other programs what they need to use the
network as `enhance.py` does: the transform, and in samples how signals are cut (docs/export.md).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from bandsplit.bands import VARIANCE_FLOOR, WIDTHS
from bandsplit.cost import count_parameters
from bandsplit.net import RMS_FLOOR
from bandsplit.stft import HOP, N_FFT
from data.audio import SAMPLE_RATE
from data.utils import DAMAGE, replacing, sha256_of, write_text
from enhancement.windows import Windows, hops
from training.checkpoint import CheckpointError, read, understood
from training.config import ConfigError
from training.settings import from_json, to_json
from training.trained import Trained, name_of, network_with

WEIGHTS, CONFIG, ONNX, SUMS = "model.safetensors", "config.json", "model.onnx", "SHA256SUMS"
_FORMAT = 1
_LINE = re.compile(rf"([0-9a-f]{{64}}) [ *]({WEIGHTS}|{CONFIG}|{ONNX})")
_LONGEST = 1 << 20  # bytes of a text that describes a model


@dataclass(frozen=True)
class OnnxFile:
    """A network as an ONNX model: its content, and what `config.json` says of it."""

    content: bytes
    described: Mapping[str, Any]


def write_model(folder: Path, trained: Trained, name: str, onnx: OnnxFile | None = None) -> None:
    """Write weights and description into a folder that is there, and their checksums.

    Args:
        name: what the model is called; of no meaning to the network.
        onnx: the same network as an ONNX model, if there is one.

    Raises:
        OSError: it cannot be written; no file is left half written.
    """
    windows = Windows()
    weights = {key: value.contiguous() for key, value in trained.network.state_dict().items()}
    described = {
        "format": _FORMAT,
        "name": name,
        "network": name_of(type(trained.network)),
        "parameters": count_parameters(trained.network),
        "signal": {
            "sample_rate": SAMPLE_RATE,
            "n_fft": N_FFT,
            "hop": HOP,
            "window": "hann",
            "loudness_floor": RMS_FLOOR,
            "band_widths": WIDTHS,
            "variance_floor": VARIANCE_FLOOR,
        },
        "windows": {part: hops(getattr(windows, part)) for part in ("length", "context", "fade")},
        "settings": json.loads(to_json(trained.config)),
        "training": {
            "checkpoint": trained.checkpoint,
            "digest": trained.digest,
            "data": trained.data,
            "step": trained.step,
            "epochs": trained.epochs,
            "held_out": trained.held_out,
        },
    }
    files = {WEIGHTS: save(weights)}
    if onnx is not None:
        described["onnx"] = {"file": ONNX, **onnx.described}
        files[ONNX] = onnx.content
    files[CONFIG] = (json.dumps(described, indent=1) + "\n").encode()
    for file, content in files.items():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)
    write_sums(folder, tuple(files))


def write_sums(folder: Path, names: tuple[str, ...]) -> None:
    """Write the checksums of a model folder's files."""
    write_text(folder / SUMS, "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names))


def read_model(folder: Path) -> Trained:
    """The network in a model folder, the checksums of all that it lists verified.

    Raises:
        CheckpointError: a file is missing, has been changed, or is not of this version.
    """
    sums = read_sums(folder)
    content = {name: _verified(folder, sums, name) for name in sums}
    weights, text = content[WEIGHTS], content[CONFIG]
    path = folder / CONFIG
    try:
        described = json.loads(text)
        if described["format"] != _FORMAT:
            raise CheckpointError(
                f"{path}: format {described['format']}, where this version reads {_FORMAT}"
            )
        network, settings = str(described["network"]), json.dumps(described["settings"])
        training: Mapping[str, Any] = described["training"]
        facts = (str(training["data"]), int(training["step"]), float(training["epochs"]))
        held_out = list(map(str, training["held_out"]))
        if not math.isfinite(facts[2]):
            raise ValueError
    except (*DAMAGE, ArithmeticError):
        raise CheckpointError(f"{path} does not describe a model") from None
    try:
        config = from_json(settings)
        with understood(folder / WEIGHTS):
            net = network_with(network, config, load(weights))
    except (ConfigError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return Trained(net, config, WEIGHTS, hashlib.sha256(weights).hexdigest(), *facts, held_out)


def read_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that a model folder lists.

    Raises:
        CheckpointError: there is no such list, or it is none.
    """
    path = folder / SUMS
    with suppress(OSError):  # which `read` tells
        if path.stat().st_size > _LONGEST:
            raise CheckpointError(f"{path} is not a list of a model's files and their checksums")
    return parse_sums(read(path), path)


def parse_sums(content: bytes, path: Path) -> dict[str, str]:
    """What a list of checksums says. path: for messages.

    Raises:
        CheckpointError: it is none, or names files beyond its folder.
    """
    found = [_LINE.fullmatch(line) for line in content.decode("utf-8", "replace").splitlines()]
    sums = {match[2]: match[1] for match in found if match}
    if len(sums) != len(found) or not {WEIGHTS, CONFIG} <= sums.keys():
        raise CheckpointError(f"{path} is not a list of a model's files and their checksums")
    return sums


def _verified(folder: Path, sums: Mapping[str, str], name: str) -> bytes:
    content = read(folder / name)
    if hashlib.sha256(content).hexdigest() != sums[name]:
        raise CheckpointError(
            f"{folder / name} is not what {SUMS} says: it is damaged or has been changed. "
            "Get or export the model again."
        )
    return content
