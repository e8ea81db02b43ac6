"""What a run writes down: `config.json`, `metrics.jsonl`, TensorBoard events, samples, a bar."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from bandsplit.cost import count_macs, count_parameters
from bandsplit.net import BandSplitNet
from data.audio import SAMPLE_RATE, write
from data.utils import replacing
from evaluation.signals import FLOOR_DB, levels
from training.checkpoint import BEFORE_FALL, BEST, DAMAGED, GOOD, LAST, PREVIOUS, name_of
from training.config import BASE, Config, ConfigError, diff, flatten

log = logging.getLogger("training")

METRICS, CONFIG, SAMPLES = "metrics.jsonl", "config.json", "samples"
_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "numpy", "numba", "scipy", "soundfile", "soxr", "pesq", "pystoi")
# What `--fresh` removes; `config.json` last, as it says that the rest is a run's.
_OWN = (LAST, PREVIOUS, GOOD, BEST, BEFORE_FALL, DAMAGED, "last-*.pt", METRICS,
        "events.out.tfevents.*", f"{SAMPLES}/*.wav", CONFIG)  # fmt: skip


class RunLog:
    """The log of one run folder, continued from a checkpoint: what was logged after it is dropped.

    Args:
        folder: made if it is not there.
        step: optimizer steps done so far.
        size: bytes of `metrics.jsonl` when the checkpoint was written.
    """

    def __init__(self, folder: Path, step: int, size: int) -> None:
        self.folder = folder
        (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
        self._content: dict[str, Any] = {}
        self._heard: set[tuple[str, str]] = set()
        self._cut(size)
        self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def describe(
        self, model: BandSplitNet, config: Config, amp: str, processes: int, step: int
    ) -> None:
        """Write `config.json`: the settings, how they differ from BASE, and what made the run.

        `sessions` has an entry for every start of the run, so that a run that was continued by
        other code, or on another machine, says so.
        """
        device, threads = model.device, torch.get_num_threads()
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        facts: dict[str, Any] = {
            "parameters": count_parameters(model),
            "macs_per_second": count_macs(model),
            "device": str(device),
            "hardware": card or f"CPU, threads: {threads}",
            "amp": amp,
            "processes": processes,
            "first_step": step,
        }
        crops = f"{config.data.batch_size} x {config.data.crop_seconds:g} s"
        log.info(
            f"{config.name}: {facts['parameters']:,} parameters, "
            f"{facts['macs_per_second'] / 1e9:.2f} GMAC per second of audio, recipe "
            f"{config.recipe}, batches of {crops} by {processes} processes, on "
            f"{facts['hardware']}, mixed precision {amp}"
        )
        session = {
            "started": _now(),
            "saved": _now(),
            "host": platform.node(),
            **facts,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in _PACKAGES},
            },
            "source": _source(),
        }
        self._content = {
            "network": name_of(type(model)),
            "config": flatten(config),
            "difference_from_base": diff(BASE, config),
            "facts": facts,
            "versions": session["versions"],
            "source": session["source"],
            "sessions": [*(read_config(self.folder) or {}).get("sessions", []), session],
        }
        self._write_config()

    def saved(self) -> None:
        """Note in `config.json` when: of a session that is killed, the time until then counts."""
        self._note(saved=_now())

    def ended(self, step: int, error: BaseException | None = None) -> None:
        """Note in `config.json` how this session has ended; without, it was killed."""
        told = {} if error is None else {"error": str(error) or type(error).__name__}
        self._note(ended=_now(), last_step=step, **told)

    def record(self, step: int, epoch: int, **groups: Mapping[str, float] | list[str]) -> None:
        """Append one line to `metrics.jsonl`, and a point to each curve.

        groups: values by name, or names of files. What is not finite is null, and no point.
        """
        line: dict[str, Any] = {"step": step, "epoch": epoch}
        for group, values in groups.items():
            if isinstance(values, list):
                line[group] = values
                continue
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            line[group] = {name: finite.get(name) for name in values}
            for name, value in finite.items():
                self._events.add_scalar(f"{group}/{name}", value, step)
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._events.flush()

    def sample(self, step: int, name: str, recordings: Mapping[str, torch.Tensor]) -> None:
        """Keep recordings (s,) of one validation utterance, by kind: to hear, and to look at.

        In `samples/`, and in TensorBoard; there, those that never change once a session.
        """
        stem = re.sub(r"[^\w.-]", "_", name)[:80]
        for kind, waveform in recordings.items():
            write(self.folder / SAMPLES / f"{stem}_{kind}.wav", waveform.cpu().numpy(), "FLOAT")
            if (stem, kind) in self._heard:
                continue
            if kind != "enhanced":
                self._heard.add((stem, kind))
            peak = waveform.abs().max().clamp_min(1.0)
            self._events.add_audio(f"{stem}/{kind}", waveform[None] / peak, step, SAMPLE_RATE)
        image = spectrograms({kind: x.cpu().numpy() for kind, x in recordings.items()})
        self._events.add_image(f"{stem}/spectrograms", image, step, dataformats="HWC")
        self._events.flush()

    def size(self) -> int:
        """Return the bytes of `metrics.jsonl` so far, all of them on the disk."""
        path = self.folder / METRICS
        if not path.is_file():
            return 0
        with path.open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been reported already
            self._events.close()

    def _cut(self, size: int) -> None:
        path = self.folder / METRICS
        content = path.read_bytes() if path.is_file() else b""
        if len(content) < size or content[:size][-1:] not in (b"", b"\n"):
            log.warning(f"{path} has been changed by somebody else; it is continued as it is")
            size = content.rfind(b"\n") + 1
        if len(content) > size:
            with replacing(path) as temporary:
                temporary.write_bytes(content[:size])

    def _note(self, **of_session: object) -> None:
        if self._content:
            self._content["sessions"][-1] |= of_session
            self._write_config()

    def _write_config(self) -> None:
        with replacing(self.folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(self._content, indent=1) + "\n", encoding="utf-8")


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder, and nothing else (`--fresh`).

    Raises:
        ConfigError: such files are there, but the folder's `config.json` is not that of a run.
    """
    there = [path for pattern in _OWN for path in folder.glob(pattern) if path.is_file()]
    if there and not {"network", "config", "facts"} <= (read_config(folder) or {}).keys():
        raise ConfigError(
            f"{folder}: {there[0].name} is there, but no {CONFIG} of a run: it may be somebody "
            "else's. Clear the folder by hand, or name another with --run."
        )
    for path in there:
        path.unlink()


def read_config(run: Path) -> dict[str, Any] | None:
    """Return the content of a folder's `config.json`, or None where that cannot be read."""
    try:
        content = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_history(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run folder's `config.json` and the lines of its `metrics.jsonl`.

    Both are empty for what is no run folder. A line that is cut off is left out.
    """
    config, path = read_config(run), run / METRICS
    if config is None or not path.is_file():
        return config or {}, []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            lines.append(json.loads(text))
    return config, lines


def circumstances(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sessions of a run's `config.json` say of its making.

    Returns:
        `sessions`: how many. `hours`: all together; one that was killed counts until it last
        saved. `devices`, `torch`, `commits`: each once, in the order of the sessions, a commit with
        "+" where files differed from it. Nothing where there are no sessions.
    """
    sessions = config.get("sessions", [])
    if not sessions:
        return {}
    times = [
        datetime.fromisoformat(each.get("ended") or each["saved"])
        - datetime.fromisoformat(each["started"])
        for each in sessions
    ]
    texts = {
        "devices": [each.get("hardware", each["device"]) for each in sessions],
        "torch": [each["versions"].get("torch") for each in sessions],
        "commits": [
            str(each["source"].get("commit", "unknown"))[:10]
            + ("+" if each["source"].get("dirty") else "")
            for each in sessions
        ],
    }
    return {
        "sessions": len(sessions),
        "hours": sum(time.total_seconds() for time in times) / 3600,
        **{name: list(dict.fromkeys(map(str, each))) for name, each in texts.items()},
    }


def spectrograms(recordings: Mapping[str, NDArray]) -> NDArray[np.uint8]:
    """Draw recordings (s,) by name, one above the other, on one scale: (height, width, 3)."""
    figure = Figure((8, 2 * len(recordings) + 0.6), dpi=90)
    figure.subplots_adjust(0.08, 0.09, 0.99, 0.98, hspace=0.1)
    axes = np.atleast_1d(figure.subplots(len(recordings), 1, sharex=True))
    for axis, (name, level) in zip(axes, levels(recordings).items(), strict=True):
        seconds = len(recordings[name]) / SAMPLE_RATE
        picture = axis.imshow(
            level, origin="lower", aspect="auto", cmap="magma", vmin=FLOOR_DB, vmax=0,
            extent=(0, seconds, 0, SAMPLE_RATE / 2000),
        )  # fmt: skip
        axis.set_ylabel(f"{name}\nkHz")
    axes[-1].set_xlabel("s")
    figure.colorbar(picture, ax=list(axes), label="dB", shrink=0.8, pad=0.02)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class LastingStream:
    """A text stream that loses what cannot be written: a closed terminal must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class Progress:
    """A bar over the steps of a run, and their speed. batch: crops of a step."""

    def __init__(self, shown: bool, steps: int, batch: int, device: torch.device) -> None:
        self._batch, self._device = batch, device
        self._bar = tqdm(desc="training", total=steps, disable=not shown, unit="step")
        self._since = (0, time.monotonic())  # a step, and when

    def start(self, step: int) -> None:
        """Start the clock at a step, after something else than training."""
        self._since = (step, time.monotonic())
        self._bar.n = step
        self._bar.refresh()

    def measure(self, step: int) -> dict[str, float]:
        """Return crops a second since the last call; on a GPU, the peak of its memory in GiB."""
        (before, then), self._since = self._since, (step, time.monotonic())
        seconds = max(self._since[1] - then, 1e-9)
        speed = {"crops_per_second": self._batch * (step - before) / seconds}
        if self._device.type == "cuda":
            speed["gpu_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
        return speed

    def show(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Move the bar to a step, and put some of a step's values beside it."""
        self._bar.update(step - self._bar.n)
        if values is not None:
            names = ("loss", "grad_norm", "pesq", "learning_rate", "skipped")
            self._bar.set_postfix({n: f"{values[n]:.3g}" for n in names if n in values})

    def close(self) -> None:
        self._bar.close()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _source() -> dict[str, Any]:
    """Return the commit that the code is at, and whether files differ from it; {} without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
