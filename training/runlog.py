"""What a run writes down: `config.json`, `metrics.jsonl`, TensorBoard events, samples."""

from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from data.audio import write
from data.files import replacing
from training.config import BASE, Config, ConfigError
from training.settings import diff, flatten

log = logging.getLogger("training")

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "numpy", "numba", "scipy", "soundfile", "soxr", "pesq", "pystoi")
METRICS, CONFIG, SAMPLES = "metrics.jsonl", "config.json", "samples"


class RunLog:
    """The log of one run folder, continued from a step: what was logged after it is dropped.

    Args:
        folder: made if it is not there.
        step: optimizer steps done so far.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SAMPLES).mkdir(exist_ok=True)
        self._rewind(step)
        self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def describe(self, network: type, config: Config, facts: Mapping[str, Any]) -> None:
        """Write `config.json`: the settings, how they differ from BASE, and what made the run."""
        content = {
            "network": f"{network.__module__}:{network.__qualname__}",
            "config": flatten(config),
            "difference_from_base": diff(BASE, config),
            "facts": dict(facts),
            "versions": {"python": platform.python_version(), **_versions()},
            "source": _source(),
        }
        with replacing(self.folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def record(self, step: int, epoch: int, group: str, values: Mapping[str, float]) -> None:
        """Append one line to `metrics.jsonl` and a point to each curve. group: "train", "valid".

        What is not finite has no place in JSON: it is null there, and no point.
        """
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line = {"step": step, "epoch": epoch, group: {name: finite.get(name) for name in values}}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in finite.items():
            self._events.add_scalar(f"{group}/{name}", value, step)
        self._events.flush()

    def sample(self, name: str, recordings: Mapping[str, torch.Tensor]) -> None:
        """Keep recordings (s,) of one validation utterance as `samples/NAME_KIND.wav`."""
        stem = name.replace("/", "_")
        for kind, waveform in recordings.items():
            write(self.folder / SAMPLES / f"{stem}_{kind}.wav", waveform.cpu().numpy(), "FLOAT")

    def close(self) -> None:
        self._events.close()

    def _rewind(self, step: int) -> None:
        path = self.folder / METRICS
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                log.warning("%s: an unreadable line is dropped", path)
        with replacing(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder, and nothing else (`--fresh`).

    Raises:
        ConfigError: such files are there, but the folder's `config.json` is not that of a run.
    """
    names = [CONFIG, METRICS, "last.pt", "best.pt"]
    files = [folder / name for name in names]
    files += [*folder.glob("events.out.tfevents.*"), *(folder / SAMPLES).glob("*.wav")]
    there = [path for path in files if path.is_file()]
    if there and not _is_run(folder):
        raise ConfigError(
            f"{folder}: {there[0].name} is there, but no {CONFIG} of a run: it may be somebody "
            "else's. Clear the folder by hand, or name another with --run."
        )
    for path in there:
        path.unlink()


def _is_run(folder: Path) -> bool:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"network", "config", "facts"} <= content.keys()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _source() -> dict[str, Any]:
    """The commit that the code is at, and whether files differ from it; nothing without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
