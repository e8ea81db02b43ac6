"""Compare enhancement in windows with enhancement of the whole recording, by context.

    python -m benchmarks.windows RUN [--contexts SECONDS ...] [--step SECONDS] [--json FILE]

The recordings, four of 90 s, are concatenated utterances of the run's own validation set, whose
speakers and noise files are not in its training set. The table has the residual (windows minus
whole, in dB of the whole), the change of each utterance's PESQ-WB (in the mean, and the largest),
and the extra computation.
"""

from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.results import command_line, report, table
from bsbimamba.data.audio import SAMPLE_RATE, Signal
from bsbimamba.inference.model import Model
from bsbimamba.inference.windows import Windows
from bsbimamba.metrics.scores import MetricError, pesq_wb
from bsbimamba.training.sources import make_datasets
from bsbimamba.training.trained import Trained, load_trained

RECORDINGS, SECONDS = 4, 90.0  # at least so long


class Long(NamedTuple):
    """A noisy recording, and the place and clean side of each of its utterances."""

    noisy: Signal
    utterances: list[tuple[slice, Signal]]


def long_recordings(trained: Trained, seconds: float, count: int) -> list[Long]:
    """Concatenate utterances of a run's validation set, in another order for each recording.

    The noise is drawn again for each recording.
    """
    data = replace(trained.config.data, validation_files=10_000)  # all there are
    valid = make_datasets(replace(trained.config, data=data), skip_bad=False)[1]
    found = []
    for number in range(count):
        valid.seed = trained.config.seed + number
        order = cycle(np.random.default_rng(number).permutation(len(valid)))
        parts, utterances, end = [], [], 0
        while end < seconds * SAMPLE_RATE:
            clean, noisy = valid.sides((0, int(next(order))), None)
            utterances.append((slice(end, end + len(clean)), clean))
            parts.append(noisy)
            end += len(clean)
        found.append(Long(np.concatenate(parts), utterances))
    return found


def scores(recording: Long, enhanced: Signal) -> Signal:
    """Return the PESQ-WB of each utterance; NaN where PESQ fails."""
    found = np.full(len(recording.utterances), np.nan)
    for number, (place, clean) in enumerate(recording.utterances):
        with suppress(MetricError):
            found[number] = pesq_wb(clean.astype(float), enhanced[place].astype(float))
    return found


def measure(
    trained: Trained, recordings: list[Long], contexts: list[float], step: float
) -> list[dict[str, float]]:
    """Measure each context; return a row for each. contexts, step: in seconds."""
    enhance = trained.network.enhance
    wholes = [enhance(torch.from_numpy(x.noisy)[None])[0].numpy() for x in recordings]
    references = [scores(*pair) for pair in zip(recordings, wholes, strict=True)]
    rows = []
    for context in contexts:
        windows = Windows(step + 2 * context + Windows.fade, context)
        model = Model(trained, windows)
        residuals, changes = [], []
        for recording, whole, reference in zip(recordings, wholes, references, strict=True):
            y = model(recording.noisy, SAMPLE_RATE)
            share = np.sum((y - whole) ** 2) / np.sum(whole**2)
            residuals.append(10 * np.log10(share + 1e-20))  # -200 dB: no difference
            changes += list(scores(recording, y) - reference)
        row = {"context": context, "residual": np.mean(residuals), "worst": np.max(residuals)}
        row |= {"pesq": np.nanmean(changes), "largest change": np.nanmax(np.abs(changes))}
        row["extra"] = windows.overlap / windows.step
        rows.append({name: float(value) for name, value in row.items()})
    return rows


def main() -> None:
    """Run the command line."""
    parser = command_line(__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--step", type=float, default=15, help="seconds that each window adds")
    contexts = [0, 0.5, 1, 2, 4, 8, 12, 20]
    parser.add_argument("--contexts", nargs="+", type=float, default=contexts, help="seconds")
    options = parser.parse_args()
    trained = load_trained(options.run)
    recordings = long_recordings(trained, SECONDS, RECORDINGS)
    rows = measure(trained, recordings, options.contexts, options.step)
    print(f"{options.run.name}: {trained.config.name}, {trained.step} steps\n")
    about = {"run": options.run.name, "step": options.step, "rows": rows}
    report(table(rows), options.json, torch.device("cpu"), **about)


if __name__ == "__main__":
    main()
