"""Trained networks: loaded from run folders, model folders and the hub; written as model folders.

A model folder is what Hugging Face's `PyTorchModelHubMixin` writes. Nothing in it is pickled:

    model.safetensors   the averaged weights
    config.json         the arguments of the network's class, and what `described` adds
    README.md           the model's card
    model.onnx          the same network for other programs, if it was exported
"""

import hashlib
import importlib
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import disable_progress_bars
from safetensors import SafetensorError
from torch import Tensor

from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.inference.windows import Windows, hops
from bsbimamba.network.bands import VARIANCE_FLOOR, WIDTHS
from bsbimamba.network.cost import count_parameters
from bsbimamba.network.net import RMS_FLOOR, BandSplitNet
from bsbimamba.network.stft import HOP, N_FFT
from bsbimamba.training.checkpoint import BEST, LAST, CheckpointError, read, read_bytes, understood
from bsbimamba.training.config import (
    PLACES,
    Config,
    ConfigError,
    check_model,
    flatten,
    from_json,
    network_defaults,
)
from bsbimamba.training.logging import read_history
from bsbimamba.utils import SOURCES, FailedError

WEIGHTS, CONFIG, CARD, ONNX = "model.safetensors", "config.json", "README.md", "model.onnx"
# Model folders that come with the program: a wheel has them inside the package.
_PACKAGED = SOURCES / "bsbimamba" / "models"
MODELS = _PACKAGED if _PACKAGED.is_dir() else SOURCES / "models"
DEFAULT = MODELS / "abl3"
_HTTP_ERROR: Any = HfHubHTTPError.__bases__[0]  # of the hub's HTTP client, now httpx2, before httpx
_NOT_FACTS = ("network", "config", "checkpoint")  # among the attributes of `Trained`
_NETWORKS = re.compile(r"(baseline|abl[a-z0-9]+)\.[a-z_0-9]+")  # their modules


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode on the CPU, with a run's averaged weights, and their origin.

    Attributes:
        checkpoint: the name of the file that they come from.
        data: the fingerprint of what it was trained on.
        held_out: the speakers whose PESQ chose the best checkpoint.
        scores: of the validation at that step, by name; {} where they are not known.
        about: the data that it was trained on and their licences, for the card.
    """

    network: BandSplitNet
    config: Config
    checkpoint: str
    data: str = ""
    step: int = 0
    epochs: float = 0.0
    held_out: list[str] = field(default_factory=list)
    scores: Mapping[str, float] = field(default_factory=dict)
    about: str = ""


def find(model: str | Path) -> Trained:
    """Load the network of a model or run folder, a checkpoint, a shipped model's name, a hub id.

    Raises:
        CheckpointError: there is none, or it cannot be loaded, or is damaged.
        FailedError: a download failed.
    """
    path = Path(model)
    if (path / WEIGHTS).is_file():
        return read_model(path)
    is_run = path.is_file() or any((path / file).is_file() for file in (LAST, BEST))
    # Before other folders: in the repository's root, abl3 is one of code.
    if not is_run and (MODELS / path / WEIGHTS).is_file():
        return read_model(MODELS / path)
    if path.exists():
        return load_run(path)
    there = ", ".join(sorted(x.parent.name for x in MODELS.glob(f"*/{WEIGHTS}")))
    reason = f"{model}: no such file or folder, and no shipped model (there are: {there})"
    if str(model).count("/") != 1:
        raise CheckpointError(reason)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        config = Path(hf_hub_download(str(model), CONFIG))  # first: another project's may be large
        with understood(config):
            _network_class(json.loads(config.read_text("utf-8"))["network"])
        hf_hub_download(str(model), WEIGHTS, revision=config.parent.name)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        hub = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{reason}; nor is it on the Hugging Face hub ({hub})") from None
    except _HTTP_ERROR as error:
        raise FailedError(f"{model}: the download from the hub failed: {error}") from None
    return read_model(config.parent)


def load_run(run: Path) -> Trained:
    """Load the last checkpoint of a run folder (its best one, where it has no last), or a file.

    Raises CheckpointError where there is none, or it cannot be loaded.
    """
    path = run
    if run.is_dir():
        path = run / (LAST if (run / LAST).is_file() else BEST)
    state = read(path)
    with understood(path):
        config = from_json(state["config"])
        values, step = state["values"], int(state["values"]["step"])
        log = read_history(path.parent)[1]
        return Trained(
            network_with(state["network"], config.model, state["ema"]["model"]),
            config,
            checkpoint=path.name,
            data=str(state["data"]),
            step=step,
            epochs=float(values["epochs"]),
            held_out=list(map(str, values["held_out"])),
            scores=next((x["valid"] for x in log if x["step"] == step and "valid" in x), {}),
        )


def read_model(folder: Path) -> Trained:
    """Load the network in a model folder, to the CPU.

    Raises:
        CheckpointError: a file is missing, damaged, or of another version.
    """
    text, weights = (read_bytes(folder / file) for file in (CONFIG, WEIGHTS))
    with understood(folder / CONFIG):
        description = json.loads(text)
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in description.items()}
        config = from_json(json.dumps(description.get("settings", {})))
        name = str(description["network"])
        known = network_defaults(_network_class(name))
        arguments = {key: settings[key] for key in known if key in settings}
        try:
            tensors = safetensors.torch.load(weights)
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS} is damaged: {error}") from None
        # Hugging Face's own `save_pretrained` of a network that was not trained here has no digest.
        if description.get("sha256") not in (None, digest_of_weights(tensors)):
            raise ValueError(f"{folder / WEIGHTS} is damaged: it has another checksum")
        network = network_with(name, arguments, tensors)
        facts = description.get("training", {})
        return Trained(network, config, checkpoint=WEIGHTS, **facts)


def network_with(
    name: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> BandSplitNet:
    """Build a network with the given weights, in evaluation mode on the CPU.

    name: of its class, as `network.net.name_of` gives it. arguments: of its class.

    Raises:
        ConfigError: there is no such network here, or it has no such settings.
        RuntimeError: the weights are not those of such a network.
    """
    network = _network_class(name)
    check_model(replace(Config(), model=arguments), network_defaults(network))
    net = network(**arguments)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:  # which names every tensor
        raise RuntimeError(f"the weights are another network's: {error!s:.300}") from None
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise RuntimeError("some of the weights are NaN or infinite")
    return net.eval().requires_grad_(False)


def _network_class(name: str) -> type[BandSplitNet]:
    """Return the class that `name_of` names, if it is a network of this repository.

    Importing runs code: only the networks' own folders are looked into. Models, which may come from
    anywhere, lie below the repository too.
    """
    module, _, qualified = name.partition(":")
    if _NETWORKS.fullmatch(module) and (SOURCES / f"{module.replace('.', '/')}.py").is_file():
        try:
            found = getattr(importlib.import_module(module), qualified, None)
        except ModuleNotFoundError as error:
            name = module.partition(".")[0]
            raise ConfigError(f"another {name} hides this program's: {error}") from None
        if isinstance(found, type) and issubclass(found, BandSplitNet):
            return found
    raise ConfigError(f"there is no network {name}")


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names and values of weights, whatever file they are in."""
    whole = hashlib.sha256()
    for name, value in sorted(weights.items()):
        whole.update(name.encode())
        whole.update(value.detach().cpu().numpy().tobytes())
    return whole.hexdigest()


def described(trained: Trained) -> BandSplitNet:
    """Return the network, with all that its `config.json` and its card are to say.

    `save_pretrained` and `push_to_hub` write both. Where data lay on this machine is left out.
    """
    trained.network._hub_mixin_config |= {
        "name": trained.config.name,
        "parameters": count_parameters(trained.network),
        "sha256": digest_of_weights(trained.network.state_dict()),
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
        "settings": {k: v for k, v in flatten(trained.config).items() if k not in PLACES},
        "training": {k: v for k, v in vars(trained).items() if k not in _NOT_FACTS},
    }
    return trained.network


def write_model(
    folder: Path, trained: Trained, onnx: tuple[bytes, Mapping[str, Any]] | None = None
) -> None:
    """Write a model folder. Interrupted, it leaves the old one, or one that `read_model` refuses.

    onnx: the same network as an ONNX model, and its entries in `config.json`.
    """
    network = described(trained)
    extra = {"onnx": {"file": ONNX, **onnx[1]}} if onnx else {}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as temporary:
        network.save_pretrained(temporary, config={**network._hub_mixin_config, **extra})
        if onnx:
            Path(temporary, ONNX).write_bytes(onnx[0])
        Path(temporary, WEIGHTS).chmod(Path(temporary, CONFIG).stat().st_mode)  # not 0600
        for file in (CONFIG, ONNX):  # of the model that was there
            (folder / file).unlink(missing_ok=True)
        for file in (*([ONNX] if onnx else []), WEIGHTS, CARD, CONFIG):
            Path(temporary, file).replace(folder / file)
