"""Score files in worker processes."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pebble import ProcessExpired
from tqdm import tqdm

from bsbimamba.data.audio import AudioError, opened, read
from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.data.workers import result_of, worker_pool
from bsbimamba.metrics.faults import find_faults
from bsbimamba.metrics.scores import METRICS, score
from bsbimamba.utils import FailedError

_LIMIT = 1800.0  # s that the scoring of one file may take; DNSMOS of an hour takes ten minutes


@dataclass(frozen=True)
class Task:
    """An enhanced file of a system, or the reason why there is none, and its clean file."""

    system: str
    utterance: str
    clean: Path
    enhanced: Path | str


def score_files(tasks: Sequence[Task], workers: int) -> pd.DataFrame:
    """Return a row for each task, in their order: system, utterance, metrics or NaN, note, faults.

    A file's faults are those of `find_faults`.
    """
    rows = []
    with (
        worker_pool(workers) as pool,
        tqdm(tasks, "scoring", unit="file", disable=None) as progress,
    ):
        try:
            futures = [pool.schedule(score_file, args=[x], timeout=_LIMIT) for x in tasks]
            for task, future in zip(progress, futures, strict=True):
                try:
                    scores = result_of(pool, future)
                except TimeoutError:
                    scores = {"note": f"its scoring took more than {_LIMIT:.0f} s"}
                except ProcessExpired:
                    scores = {"note": "its scoring process died"}
                except BrokenProcessPool:
                    text = "the scoring processes died; is there enough memory?"
                    raise FailedError(text) from None
                row = {"system": task.system, "utterance": task.utterance, "faults": {}}
                rows.append(row | scores)
        finally:
            pool.stop()
    frame = pd.DataFrame(rows, columns=["system", "utterance", *METRICS, "note", "faults"])
    return frame.astype(dict.fromkeys(METRICS, float))


def score_file(task: Task) -> dict[str, Any]:
    """Return what a row has of one file: its scores, its faults, and `note`, a text.

    The note says what was done to the file or is missing. Of two lengths the common part is scored.
    Scores have six decimals.
    """
    if not isinstance(task.enhanced, Path):
        return {"note": task.enhanced}
    notes: list[str] = []
    signals = []
    for path, side in ((task.clean, "clean: "), (task.enhanced, "")):
        try:
            with opened(path) as file:
                rate, channels = file.samplerate, file.channels
            signals.append(read(path))
        except AudioError as error:
            return {"note": "; ".join([*notes, f"{path}: {error}"])}
        if rate != SAMPLE_RATE:
            notes.append(f"{side}resampled from {rate} Hz")
        if channels != 1:
            notes.append(f"{side}the mean of {channels} channels")
    clean, enhanced = signals
    if len(clean) != len(enhanced):
        notes.append(f"{len(enhanced) - len(clean):+d} samples: the common part is scored")
        common = min(len(clean), len(enhanced))
        clean, enhanced = clean[:common], enhanced[:common]
    found = score(clean, enhanced, [*METRICS, "pesq_parts"])
    parts = found.pop("pesq_parts")
    if len(parts) > 1 and not isinstance(parts, str):
        of = f"{len(parts)} parts of {len(clean) / SAMPLE_RATE / len(parts):.1f} s"
        without = f"{np.isnan(parts).sum()} without speech left out"
        notes.append(f"PESQ is the mean over {of} ({without})")
    notes += [value for value in found.values() if isinstance(value, str)]
    faults = find_faults(clean, enhanced) if isinstance(found["segsnr"], float) else {}
    notes += faults.values()
    scores = {name: round(value, 6) for name, value in found.items() if isinstance(value, float)}
    return {**scores, "faults": faults, "note": "; ".join(dict.fromkeys(notes))}
