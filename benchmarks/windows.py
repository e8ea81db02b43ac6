"""Compare enhancement in windows with enhancement of the whole recording, by context.

    python -m benchmarks.windows RUN... [--contexts SECONDS ...] [--json FILE]

The recordings are concatenated utterances of the run's own validation set, whose speakers and noise
files are not in its training set. The table has the residual (windows minus whole, in dB of the
whole), the change of each utterance's PESQ-WB, and the extra computation. For comparison, the last
row is cut hard into pieces, each with a loudness and statistics of its own.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import described, markdown, report
from bsbimamba.data.audio import SAMPLE_RATE, Signal
from bsbimamba.inference.model import Model
from bsbimamba.inference.windows import Windows
from bsbimamba.metrics.scores import MetricError, pesq_wb
from bsbimamba.network.net import BandSplitNet
from bsbimamba.training.sources import make_datasets
from bsbimamba.training.trained import Trained, load_trained

HARD = "cut hard, own loudness"
_ALL = 10_000  # more utterances than any validation set has


@dataclass
class Long:
    """A long noisy recording, and the place and clean side of each of its utterances."""

    noisy: Signal
    utterances: list[tuple[slice, Signal]]

    def scores(self, enhanced: Signal) -> Signal:
        """Return the PESQ-WB of each utterance; NaN where PESQ fails."""
        found = []
        for place, clean in self.utterances:
            try:
                found.append(pesq_wb(clean.astype(float), enhanced[place].astype(float)))
            except MetricError:
                found.append(float("nan"))
        return np.array(found)


def long_recordings(trained: Trained, seconds: float, count: int) -> list[Long]:
    """Concatenate utterances of a run's validation set, in another order for each recording.

    The noise is drawn again for each recording.
    """
    data = replace(trained.config.data, validation_files=_ALL)
    valid = make_datasets(replace(trained.config, data=data), skip_bad=False)[1]
    found = []
    for number in range(count):
        valid.seed = trained.config.seed + number
        sides, end = [], 0
        order = cycle(np.random.default_rng(number).permutation(len(valid)))
        while end < seconds * SAMPLE_RATE:
            clean, noisy = valid.sides((0, int(next(order))), None)
            sides.append((slice(end, end + len(clean)), clean, noisy))
            end += len(clean)
        noisy = np.concatenate([noisy for *_, noisy in sides])
        found.append(Long(noisy, [(place, clean) for place, clean, _ in sides]))
    return found


def measure(
    trained: Trained, recordings: list[Long], contexts: list[float], step: float, fade: float
) -> list[dict[str, Any]]:
    """Measure each context; return a row for each. contexts, step, fade: in seconds."""
    ways: dict[str, Callable[[Signal], Signal]] = {}
    extra = {}
    for context in contexts:
        windows = Windows(step + 2 * context + fade, context, fade)
        name = f"{context:g} s"
        ways[name] = partial(Model(trained, windows), sample_rate=SAMPLE_RATE)
        extra[name] = windows.overlap / windows.step
    ways[HARD], extra[HARD] = partial(_cut_hard, trained.network, seconds=step), 0.0
    residuals: dict[str, list[float]] = defaultdict(list)
    changes: dict[str, list[float]] = defaultdict(list)
    for recording in recordings:
        whole = _enhance(trained.network, recording.noisy)
        reference = recording.scores(whole)
        for name, way in ways.items():
            y = way(recording.noisy)
            share = np.sum((y - whole) ** 2) / np.sum(whole**2)
            residuals[name].append(float(10 * np.log10(share + 1e-20)))  # -200 dB: no difference
            changes[name] += list(recording.scores(y) - reference)
    return [
        {
            "way": name,
            "residual": float(np.mean(residuals[name])),
            "worst_residual": float(np.max(residuals[name])),
            "pesq": float(np.nanmean(changes[name])),
            "worst_pesq": float(np.nanmax(np.abs(changes[name]))),
            "extra": extra[name],
        }
        for name in ways
    ]


def _enhance(network: BandSplitNet, x: Signal) -> Signal:
    return network.enhance(torch.from_numpy(x)[None])[0].numpy()


def _cut_hard(network: BandSplitNet, x: Signal, seconds: float) -> Signal:
    """Enhance a signal in pieces, each by itself."""
    size = round(seconds * SAMPLE_RATE)
    pieces = [x[first : first + size] for first in range(0, len(x), size)]
    return np.concatenate([_enhance(network, piece) for piece in pieces])


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    head = ("context", "residual (dB)", "worst", "PESQ-WB", "largest change", "extra work")
    kinds = {"residual": ".1f", "worst_residual": ".1f", "pesq": "+.4f", "worst_pesq": ".4f",
             "extra": ".0%"}  # fmt: skip
    return markdown(head, [[x["way"], *(f"{x[k]:{f}}" for k, f in kinds.items())] for x in rows])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--seconds", type=float, default=90, help="of a recording, at least")
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--step", type=float, default=15, help="seconds that each window adds")
    parser.add_argument("--fade", type=float, default=Windows().fade)
    parser.add_argument(
        "--contexts", nargs="+", type=float, default=[0, 0.5, 1, 2, 4, 8, 12, 20], help="seconds"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    settings = {k: getattr(options, k) for k in ("seconds", "recordings", "step", "fade")}
    found, text = {}, ""
    for run in options.runs:
        trained = load_trained(run)
        recordings = long_recordings(trained, options.seconds, options.recordings)
        rows = measure(trained, recordings, options.contexts, options.step, options.fade)
        about = {"network": trained.config.name, "step": trained.step}
        found[run.name] = {**about, "rows": rows}
        text += f"{run.name}: {trained.config.name}, {trained.step} steps\n\n{table(rows)}\n"
    head = described("windows", torch.device("cpu"), **settings)
    report({**head, "runs": found}, text, options.json)


if __name__ == "__main__":
    main()
