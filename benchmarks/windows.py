"""What enhancing by windows changes: against the whole recording at once, by context and fading.

    python -m benchmarks.windows RUN... [--json FILE]

The recordings are utterances of the run's own validation set (speakers and noise files that its
training did not hear), one after the other, as long as asked for. Told are the residual, windows
minus whole, in dB of the whole, the change of each utterance's PESQ-WB, and how much more there is
to compute. Last, what is not done here: pieces cut hard, each with a loudness and statistics of its
own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from bandsplit.net import BandSplitNet
from benchmarks.results import described, markdown, save, where
from data.audio import SAMPLE_RATE, Signal
from enhancement.model import Model
from enhancement.windows import Windows
from evaluation.metrics import MetricError, pesq_wb
from training.sources import make_datasets
from training.trained import Trained, load_trained

HARD = "cut hard, own loudness"
_ALL = 10_000  # utterances of the validation set: more than there are


class Long:
    """A long recording: its signal, and where its utterances lie, with their clean sides."""

    def __init__(self, sides: Sequence[tuple[Signal, Signal]]) -> None:
        self.noisy = np.concatenate([noisy for _, noisy in sides])
        ends = np.cumsum([len(clean) for clean, _ in sides])
        self.utterances = [
            (slice(end - len(clean), end), clean)
            for end, (clean, _) in zip(ends, sides, strict=True)
        ]

    def scores(self, enhanced: Signal) -> list[float]:
        """PESQ-WB of each utterance."""
        return [_pesq(clean, enhanced[place]) for place, clean in self.utterances]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--seconds", type=float, default=90, help="of a recording, at least")
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--step", type=float, default=15, help="seconds that each window adds")
    parser.add_argument("--fade", type=float, default=Windows().fade)
    parser.add_argument(
        "--contexts", nargs="+", type=float, default=[0, 0.5, 1, 2, 4, 8, 12, 20], help="seconds"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = {k: getattr(options, k) for k in ("seconds", "recordings", "step", "fade")}
    result = described("windows", torch.device("cpu"), **settings)
    result["runs"] = {}
    for run in options.runs:
        trained = load_trained(run)
        recordings = long_recordings(trained, options.seconds, options.recordings)
        rows = measured(trained, recordings, options)
        result["runs"][run.name] = {
            "network": trained.config.name,
            "step": trained.step,
            "utterances": sum(len(each.utterances) for each in recordings),
            "rows": rows,
        }
        print(f"{run.name}: {trained.config.name}, {trained.step} steps\n")
        print(table(rows), flush=True)
    print(where(result))
    save(options.json, result)


def long_recordings(trained: Trained, seconds: float, count: int) -> list[Long]:
    """Utterances of the validation set of a run, joined, each recording in an order of its own.

    Noises and their places are drawn anew for each.
    """
    data = replace(trained.config.data, validation_files=_ALL)
    valid = make_datasets(replace(trained.config, data=data), skip_bad=False)[1]
    found: list[Long] = []
    for number in range(count):
        valid.seed = trained.config.seed + number
        sides: list[tuple[Signal, Signal]] = []
        for index in cycle(np.random.default_rng(number).permutation(len(valid))):
            sides.append(valid.sides((0, int(index)), None))
            if sum(len(clean) for clean, _ in sides) >= seconds * SAMPLE_RATE:
                break
        found.append(Long(sides))
    return found


def measured(
    trained: Trained, recordings: Sequence[Long], options: argparse.Namespace
) -> list[dict[str, float | str]]:
    """A row for each way to cut."""
    network = trained.network
    ways: dict[str, Callable[[Signal], Signal]] = {}
    extra: dict[str, float] = {}
    for context in options.contexts:
        windows = Windows(options.step + 2 * context + options.fade, context, options.fade)
        name = f"{context:g} s"
        ways[name] = partial(Model(name, trained, windows), sample_rate=SAMPLE_RATE)
        extra[name] = windows.overlap / windows.step
    ways[HARD], extra[HARD] = partial(cut_hard, network, seconds=options.step), 0.0
    found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in ways}
    for recording in recordings:
        whole = enhance(network, recording.noisy)
        reference = np.array(recording.scores(whole))
        for name, way in ways.items():
            y = way(recording.noisy)
            # Where nothing differs, -200 dB is said.
            residual = 10 * np.log10(np.sum((y - whole) ** 2) / np.sum(whole**2) + 1e-20)
            found[name].append((float(residual), list(np.array(recording.scores(y)) - reference)))
    return [
        {
            "way": name,
            "residual": float(np.mean([residual for residual, _ in each])),
            "worst_residual": float(np.max([residual for residual, _ in each])),
            "pesq": float(np.nanmean(np.concatenate([x for _, x in each]))),
            "worst_pesq": float(np.nanmax(np.abs(np.concatenate([x for _, x in each])))),
            "extra": extra[name],
        }
        for name, each in found.items()
    ]


def enhance(network: BandSplitNet, x: Signal) -> Signal:
    """A signal, whole."""
    return network.enhance(torch.from_numpy(x)[None])[0].numpy()


def cut_hard(network: BandSplitNet, x: Signal, seconds: float) -> Signal:
    """As one should not."""
    size = round(seconds * SAMPLE_RATE)
    pieces = [x[first : first + size] for first in range(0, len(x), size)]
    return np.concatenate([enhance(network, piece) for piece in pieces])


def table(rows: Sequence[dict[str, float | str]]) -> str:
    """The rows in Markdown."""
    head = ("context", "residual (dB)", "worst", "PESQ-WB", "largest change", "extra work")
    cells = [
        (
            str(row["way"]),
            f"{row['residual']:.1f}",
            f"{row['worst_residual']:.1f}",
            f"{row['pesq']:+.4f}",
            f"{row['worst_pesq']:.4f}",
            f"{100 * float(row['extra']):.0f} %",
        )
        for row in rows
    ]
    return markdown(head, cells)


def _pesq(clean: Signal, enhanced: Signal) -> float:
    try:
        return pesq_wb(clean.astype(np.float64), enhanced.astype(np.float64))
    except MetricError:
        return float("nan")


if __name__ == "__main__":
    main()
