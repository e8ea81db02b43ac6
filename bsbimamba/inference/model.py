"""Load trained networks as functions; read and write the folders that they are shared in.

A model folder holds data only, nothing that is pickled:

    model.safetensors   the averaged weights
    config.json         network, settings, training, checksums, transform, windows
    model.onnx          the same network for other programs, if it was exported

`config.json` is written last. Weights that do not match its checksum are refused.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsbimamba.data.audio import RATES, SAMPLE_RATE, AudioError
from bsbimamba.inference.windows import Block, Windows, enhanced, hops
from bsbimamba.network.bands import VARIANCE_FLOOR, WIDTHS
from bsbimamba.network.cost import count_parameters
from bsbimamba.network.net import RMS_FLOOR
from bsbimamba.network.stft import HOP, N_FFT
from bsbimamba.training.checkpoint import name_of, read_bytes, understood
from bsbimamba.training.config import ConfigError, from_json, to_json
from bsbimamba.training.precision import Precision
from bsbimamba.training.trained import Trained, load_trained, network_with
from bsbimamba.utils import ROOT, replacing

WEIGHTS, CONFIG, ONNX = "model.safetensors", "config.json", "model.onnx"
MODELS = ROOT / "models"  # model folders that are known by name
_FORMAT = 2

Samples = TypeVar("Samples", NDArray, Tensor)


@dataclass(frozen=True)
class Model:
    """A speech enhancer for signals of any length, sampling rate and number of channels.

    Attributes:
        trained: the network, and facts about the run that trained it.
        windows: how long signals are cut.
    """

    trained: Trained
    windows: Windows = field(default_factory=Windows)

    def __call__(self, x: Samples, sample_rate: int) -> Samples:
        """Return the enhanced signal: of the same shape, rate, kind, dtype and device.

        Args:
            x: floating-point samples (s,) or (channels, s), numpy or torch; each channel is
                enhanced as if it were alone.
            sample_rate: in Hz, from 4 kHz up; the result has nothing above 8 kHz.

        Raises:
            TypeError, ValueError: x or sample_rate is something else.
        """
        values: Any = x
        if isinstance(x, Tensor):  # numpy has no bfloat16
            values = (x.float() if x.dtype == torch.bfloat16 else x).detach().cpu().numpy()
        _check(values, sample_rate)
        source = _InMemory(np.atleast_2d(values), int(sample_rate))
        try:
            blocks = list(enhanced(self.trained.network, source, self.windows))
        except AudioError as error:
            raise ValueError(f"the signal cannot be enhanced: {error}") from None
        y = np.concatenate(blocks, axis=1).reshape(values.shape).astype(values.dtype, copy=False)
        return torch.from_numpy(y).to(x) if isinstance(x, Tensor) else y


class _InMemory:
    """A signal (c, s), read in blocks of a million samples as a `Source`."""

    def __init__(self, x: NDArray, rate: int) -> None:
        self.x, self.rate = x, rate
        self.channels, self.frames = x.shape

    def blocks(self) -> Iterator[Block]:
        for first in range(0, self.frames, 1 << 20):
            yield self.x[:, first : first + (1 << 20)].astype(np.float32)


def _check(x: NDArray, rate: int) -> None:
    if not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"expected floating-point samples, not {x.dtype}")
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"expected samples (s,) or (channels, s), at least one; not {x.shape}")
    if x.ndim == 2 and x.shape[0] > x.shape[1]:
        raise ValueError(f"expected samples (channels, s), not {x.shape}; is x.T meant?")
    if rate not in RATES:  # nor is any fraction
        raise ValueError(f"a sampling rate of {rate!r} Hz: expected whole Hz from {RATES.start} up")


def load(model: str | Path, device: str = "auto") -> Model:
    """Load a trained model, ready to be called: `load("runs/abl3")(x, sample_rate)`.

    Args:
        model: a name (of a folder in models/), a model folder, a run folder, or a checkpoint.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        CheckpointError: there is no such model, or it cannot be loaded, or is damaged.
        ConfigError: there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"the device is {device!r}, expected 'auto', 'cpu' or 'cuda'")
    trained = find(model)
    trained.network.to(Precision(device, "off").device)
    return Model(trained)


def find(model: str | Path) -> Trained:
    """Load the network of a model's name, model folder, run folder or checkpoint, to the CPU.

    Raises:
        CheckpointError: there is none, or it cannot be loaded, or is damaged.
    """
    # A name comes first: in the repository's root, abl3 is a folder, too.
    for folder in (MODELS / model, Path(model)):
        if (folder / WEIGHTS).is_file():
            return read_model(folder)
    return load_trained(Path(model))


def write_model(
    folder: Path, trained: Trained, onnx: tuple[bytes, Mapping[str, Any]] | None = None
) -> None:
    """Write a model folder. Interrupted, it leaves one that `read_model` refuses, or the old one.

    onnx: the same network as an ONNX model, and its entries in `config.json`.
    """
    weights = {key: value.contiguous() for key, value in trained.network.state_dict().items()}
    files = {WEIGHTS: safetensors.torch.save(weights)} | ({ONNX: onnx[0]} if onnx else {})
    description = {
        "format": _FORMAT,
        "network": name_of(type(trained.network)),
        "parameters": count_parameters(trained.network),
        "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        "signal": {
            "sample_rate": SAMPLE_RATE,
            "n_fft": N_FFT,
            "hop": HOP,
            "window": "hann",
            "loudness_floor": RMS_FLOOR,
            "band_widths": WIDTHS,
            "variance_floor": VARIANCE_FLOOR,
        },
        "windows": {part: hops(getattr(Windows, part)) for part in ("length", "context", "fade")},
        "settings": json.loads(to_json(trained.config)),
        "training": {k: v for k, v in vars(trained).items() if k not in ("network", "config")},
    } | ({"onnx": {"file": ONNX, **onnx[1]}} if onnx else {})
    folder.mkdir(parents=True, exist_ok=True)
    files[CONFIG] = (json.dumps(description, indent=1) + "\n").encode()
    for file, content in files.items():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)
    if not onnx:
        (folder / ONNX).unlink(missing_ok=True)  # of the model that was there


def read_model(folder: Path) -> Trained:
    """Load the network in a model folder, to the CPU, after checking the weights' checksum.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version.
    """
    text, weights = (read_bytes(folder / file) for file in (CONFIG, WEIGHTS))
    digest = hashlib.sha256(weights).hexdigest()
    with understood(folder / CONFIG):
        description = json.loads(text)
        if (found := description["format"]) != _FORMAT:
            raise ValueError(f"format {found}, where this version reads {_FORMAT}")
        if description["sha256"][WEIGHTS] != digest:
            raise ValueError(f"{folder / WEIGHTS} is damaged: it has another checksum")
        config = from_json(json.dumps(description["settings"]))
        network = network_with(str(description["network"]), config, safetensors.torch.load(weights))
        facts = {x: description["training"][x] for x in ("data", "step", "epochs", "held_out")}
    return Trained(network, config, checkpoint=WEIGHTS, digest=digest, **facts)
