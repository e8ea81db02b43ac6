"""What a run writes down: `config.json`, `metrics.jsonl`, TensorBoard events, samples.

`python -m training.runlog RUN` prints it again (`training.history`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from data.audio import SAMPLE_RATE, write
from data.utils import replacing
from training.checkpoint import BEFORE_FALL, BEST, DAMAGED, GOOD, LAST, PREVIOUS
from training.config import BASE, Config, ConfigError
from training.history import CONFIG, METRICS, main, read_config
from training.plots import PLOT, spectrograms
from training.settings import diff, flatten
from training.trained import name_of

log = logging.getLogger("training")

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "numpy", "numba", "scipy", "soundfile", "soxr", "pesq", "pystoi")
SAMPLES = "samples"


class RunLog:
    """The log of one run folder, continued from a checkpoint: what was logged after it is dropped.

    Args:
        folder: made if it is not there.
        step: optimizer steps done so far.
        size: bytes of `metrics.jsonl` when the checkpoint was written.
    """

    def __init__(self, folder: Path, step: int, size: int) -> None:
        self.folder = folder
        for path in (folder / METRICS, folder / CONFIG):
            if os.path.lexists(path) and not path.is_file():  # a named pipe would wait for ever
                raise ConfigError(f"{path} is not a file; remove it, or name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SAMPLES).mkdir(exist_ok=True)
        self._content: dict[str, Any] = {}
        self._heard: set[tuple[str, str]] = set()
        self._rewind(size)
        self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def describe(self, network: type, config: Config, facts: Mapping[str, Any]) -> None:
        """Write `config.json`: the settings, how they differ from BASE, and what made the run.

        `sessions` has an entry for every start of the run, so that a run that was continued by
        other code, or on another machine, says so.
        """
        now = _now()
        session = {
            "started": now,
            "saved": now,
            "host": platform.node(),
            **facts,
            "versions": {"python": platform.python_version(), **_versions()},
            "source": _source(),
        }
        earlier = (read_config(self.folder) or {}).get("sessions")
        self._content = {
            "network": name_of(network),
            "config": flatten(config),
            "difference_from_base": diff(BASE, config),
            "facts": dict(facts),
            "versions": session["versions"],
            "source": session["source"],
            "sessions": [*(earlier if isinstance(earlier, list) else []), session],
        }
        self._write_config()

    def saved(self) -> None:
        """Note in `config.json` when: of a session that is killed, the time until then counts."""
        self._note(saved=_now())

    def ended(self, step: int, error: BaseException | None = None) -> None:
        """Note in `config.json` how this session has ended; without, it was killed."""
        told = {} if error is None else {"error": str(error) or type(error).__name__}
        self._note(ended=_now(), last_step=step, **told)

    def _note(self, **of_session: object) -> None:
        if self._content:
            self._content["sessions"][-1] |= of_session
            self._write_config()

    def record(self, step: int, epoch: int, **groups: Mapping[str, float] | list[str]) -> None:
        """Append one line to `metrics.jsonl`, and a point to each curve.

        What is not finite has no place in JSON: it is null there, and no point.

        Args:
            groups: values by name ("train", "valid", "speed", "skipped", "rollback"), or names of
                files.
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

        As `samples/NAME_KIND.wav`, and in TensorBoard, which has those that never change only once
        a session: of all kinds and epochs, they would fill a disk.
        """
        stem = _file_name(name)
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
        """Bytes of `metrics.jsonl` so far, all of them on the disk."""
        path = self.folder / METRICS
        if not path.is_file():
            return 0
        with path.open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, or a folder that is gone, others have told
            self._events.close()

    def _rewind(self, size: int) -> None:
        path = self.folder / METRICS
        if not path.is_file():
            return
        content = path.read_bytes()
        if len(content) < size or content[:size][-1:] not in (b"", b"\n"):
            log.warning("%s has been changed by somebody else; it is continued as it is", path)
            size = content.rfind(b"\n") + 1
        if len(content) > size:
            with replacing(path) as temporary:
                temporary.write_bytes(content[:size])

    def _write_config(self) -> None:
        with replacing(self.folder / CONFIG) as temporary:
            temporary.write_text(json.dumps(self._content, indent=1) + "\n", encoding="utf-8")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder, and nothing else (`--fresh`).

    Raises:
        ConfigError: such files are there, but the folder's `config.json` is not that of a run.
    """
    names = [LAST, PREVIOUS, GOOD, BEST, BEFORE_FALL, DAMAGED, METRICS, PLOT]
    files = [folder / name for name in names]
    files += [*folder.glob("last-*.pt"), *folder.glob("events.out.tfevents.*")]
    files += (folder / SAMPLES).glob("*.wav")
    files.append(folder / CONFIG)  # last: without it, the others would be nobody's
    there = [path for path in files if path.is_file()]
    if there and not _is_run(folder):
        raise ConfigError(
            f"{folder}: {there[0].name} is there, but no {CONFIG} of a run: it may be somebody "
            "else's. Clear the folder by hand, or name another with --run."
        )
    for path in there:
        path.unlink()


def _is_run(folder: Path) -> bool:
    return {"network", "config", "facts"} <= (read_config(folder) or {}).keys()


def _file_name(name: str) -> str:
    """A name that every file system takes, and that still tells which utterance it is."""
    plain = name.encode(errors="backslashreplace").decode()
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in plain)
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return plain if len(plain.encode()) <= 100 else f"{plain[:40]}_{digest}"


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


if __name__ == "__main__":
    main()
