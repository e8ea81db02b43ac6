"""What a run writes down: `config.json`, `metrics.jsonl`, TensorBoard events, samples, a bar."""

import json
import logging
import math
import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bsbimamba.data.audio import write
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.metrics.signals import FLOOR_DB, levels
from bsbimamba.network.cost import count_macs, count_parameters
from bsbimamba.network.net import BandSplitNet, name_of
from bsbimamba.training.checkpoint import BEFORE_FALL, BEST, GOOD, LAST, PREVIOUS
from bsbimamba.training.config import BASE, Config, ConfigError, diff, flatten
from bsbimamba.utils import hardware, replacing, source, write_text

log = logging.getLogger("training")

METRICS, CONFIG, SAMPLES = "metrics.jsonl", "config.json", "samples"
_PACKAGES = ("torch", "numpy", "numba", "scipy", "soundfile", "soxr", "pesq", "pystoi")
# What `--fresh` removes; `config.json` last, as it says that the rest is a run's.
_OWN = (LAST, PREVIOUS, GOOD, BEST, BEFORE_FALL, "last-*.pt", METRICS,
        "events.out.tfevents.*", f"{SAMPLES}/*.wav", CONFIG)  # fmt: skip


class RunLog:
    """The log of one run folder, continued from a checkpoint: what was logged after it is dropped.

    step, size: optimizer steps done, and bytes of `metrics.jsonl`, when that was written.
    """

    def __init__(self, folder: Path, step: int, size: int) -> None:
        self.folder, self._metrics = folder, folder / METRICS
        (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
        self._content: dict[str, Any] = {}
        if self.size() > size:
            with replacing(self._metrics) as temporary:
                temporary.write_bytes(self._metrics.read_bytes()[:size])
        # Where networks are only used, TensorBoard and matplotlib need not be there.
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def describe(self, model: BandSplitNet, config: Config, facts: dict[str, Any]) -> None:
        """Write `config.json`: the settings, how they differ from BASE, and what made the run.

        facts: of this start: amp, metric_labels, processes, first_step.

        `sessions` has an entry for every start of the run, so that a run that was continued by
        other code, or on another machine, says so.
        """
        facts = {
            "parameters": count_parameters(model),
            "macs_per_second": count_macs(model),
            "device": str(model.device),
            "hardware": hardware(model.device),
            **facts,
        }
        log.info(
            f"{config.name}: {facts['parameters']:,} parameters, "
            f"{facts['macs_per_second'] / 1e9:.2f} GMAC per second of audio, recipe "
            f"{config.recipe}, batches of {config.data.batch_size} x {config.data.crop_seconds:g} s"
            f" by {facts['processes']} processes, on {facts['hardware']}, amp {facts['amp']}"
        )
        versions = {"python": platform.python_version()} | {n: version(n) for n in _PACKAGES}
        about = {"started": _now(), "host": platform.node(), "source": source()}
        self._content = {
            "network": name_of(type(model)),
            "config": flatten(config),
            "difference_from_base": diff(BASE, config),
            "facts": facts,
            "sessions": [
                *read_config(self.folder).get("sessions", []),
                {**about, "versions": versions, **facts},
            ],
        }
        self.saved(facts["first_step"])

    def saved(self, step: int) -> None:
        """Note in `config.json` that a step is saved: until then a session's time counts."""
        if self._content:
            self._content["sessions"][-1] |= {"saved": _now(), "last_step": step}
            write_text(self.folder / CONFIG, json.dumps(self._content, indent=1) + "\n")

    def record(self, step: int, epoch: int, **groups: Mapping[str, float] | list[str]) -> None:
        """Append one line to `metrics.jsonl`, and a point to each curve.

        groups: values by name, or names of files. What is not finite is null.
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
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._events.flush()

    def validation(
        self,
        step: int,
        epoch: int,
        scores: Mapping[str, float],
        samples: Mapping[str, Mapping[str, Tensor]],
        best: bool,
    ) -> None:
        """Record a validation, and keep recordings (s,) of some utterances, by name and kind.

        The recordings are in `samples/`, and in TensorBoard with their spectrograms.
        """
        text = (
            "step {}: PESQ {pesq_wb:.3f} (noisy {noisy_pesq_wb:.3f}), STOI {stoi:.4f} (noisy "
            "{noisy_stoi:.4f}) over {scored} of {files} held-out utterances{}"
        )
        log.info(text.format(step, ", the best so far" if best else "", **scores))
        self.record(step, epoch, valid=scores)
        for name, recordings in samples.items():
            stem = re.sub(r"[^\w.-]", "_", name)[:80]
            for kind, waveform in recordings.items():
                write(self.folder / SAMPLES / f"{stem}_{kind}.wav", waveform.numpy(), "FLOAT")
                sound = waveform[None] / waveform.abs().max().clamp_min(1.0)
                self._events.add_audio(f"{stem}/{kind}", sound, step, SAMPLE_RATE)
            image = spectrograms({kind: x.numpy() for kind, x in recordings.items()})
            self._events.add_image(f"{stem}/spectrograms", image, step, dataformats="HWC")
        self._events.flush()

    def size(self) -> int:
        """Return the bytes of `metrics.jsonl` so far."""
        return self._metrics.stat().st_size if self._metrics.is_file() else 0

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been reported already
            self._events.close()


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder, and nothing else (`--fresh`).

    Raises ConfigError where there are such files without the `config.json` of a run.
    """
    there = [path for pattern in _OWN for path in folder.glob(pattern)]
    if there and "facts" not in read_config(folder):
        raise ConfigError(
            f"{folder}: {there[0].name} is there, but no {CONFIG} of a run: it may be somebody "
            "else's. Clear the folder by hand, or name another with --run."
        )
    for path in there:
        path.unlink()


def read_config(run: Path) -> dict[str, Any]:
    """Return the content of a folder's `config.json`; {} where there is none of a run."""
    try:
        return json.loads((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_history(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a run folder's `config.json` and the lines of its `metrics.jsonl`.

    Both are empty for what is no run folder. A line that is cut off is left out.
    """
    config, lines = read_config(run), []
    if config and (run / METRICS).is_file():
        for text in (run / METRICS).read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(text))
    return config, lines


def circumstances(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the sessions of a run's `config.json` say of its making; {} without sessions.

    `sessions`: how many. `hours`: all together, each until it last saved. `devices`, `torch`,
    `commits`: each once, in the order of the sessions, a commit with "+" where files differed.
    """
    sessions = config.get("sessions", [])
    if not sessions:
        return {}
    spans = [
        datetime.fromisoformat(each["saved"]) - datetime.fromisoformat(each["started"])
        for each in sessions
    ]
    commits = [
        each["source"].get("commit", "unknown")[:10] + "+" * each["source"].get("dirty", False)
        for each in sessions
    ]
    return {
        "sessions": len(sessions),
        "hours": sum(span.total_seconds() for span in spans) / 3600,
        "devices": list(dict.fromkeys(each["hardware"] for each in sessions)),
        "torch": list(dict.fromkeys(each["versions"]["torch"] for each in sessions)),
        "commits": list(dict.fromkeys(commits)),
    }


def spectrograms(recordings: Mapping[str, NDArray]) -> NDArray[np.uint8]:
    """Draw recordings (s,) by name, one above the other, on one scale: (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
