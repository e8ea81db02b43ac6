"""Whether training and validation fit a card of 12 GiB, and the largest batch that does.

    python -m benchmarks.memory_12gb [--gib 12] [--network NAME ...] [--json FILE]

On any CUDA card: PyTorch is given no more than such a card has for it. One of 12 GiB shows 12,288
MiB in all. Of those CUDA's context and its loaded kernels take some hundreds, and so does a
desktop; PyTorch's allocator counts neither. 1 GiB is set aside for both.

Each network learns 20 steps of 6 x 2 s by its own configuration; then its average is validated on
recordings of 15 s and 60 s, by training's own validation, scores excepted. The sound is noise and
labels are a constant: memory depends on neither. An attempt at the largest batch is three steps,
the third of which finds the states of both optimizers there, and the validation of the longest
recording. Ends with status 1 where something does not fit, with 2 where there is no CUDA card.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import NDArray

from benchmarks.candidates import (
    BATCH,
    CROP,
    FOUR,
    Candidate,
    ConstantPool,
    Mode,
    Network,
    networks,
    noise,
)
from benchmarks.fitting import ASIDE, CARD, Meter, Used, largest, predicted, usable
from benchmarks.results import described, markdown, save
from data.dataset import Key, SpeechDataset
from training.distributed import World
from training.learner import Learner
from training.validation import Validator

_MIB = 2**20
_ATTEMPT = 3  # steps at a batch size


@dataclass(frozen=True)
class Sizes:
    """How much is trained, on how many crops of how many seconds; what is validated, in seconds.

    most: the largest batch that is tried.
    """

    batch: int = BATCH
    crop: float = CROP
    steps: int = 20
    recordings: tuple[int, ...] = (15, 60)
    most: int = 4096


def measure(
    meter: Meter, chosen: Mapping[str, Network], sizes: Sizes | None = None, **changes: Any
) -> dict[str, Any]:
    """Everything of some networks; changes: of their arguments. What `main` writes."""
    sizes = sizes or Sizes()
    rows = [_row(meter, name, network, sizes, changes) for name, network in chosen.items()]
    limits = {"limit_bytes": meter.limit, "wanted_bytes": meter.wanted}
    return {**described("memory_12gb", meter.device, **limits, **vars(sizes)), "rows": rows}


def _row(
    meter: Meter, name: str, network: Network, sizes: Sizes, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """What one network takes, None where that does not fit, and its largest batches."""

    def make(mode: Mode, batch: int) -> Learner:
        candidate = Candidate(name, mode, "auto")
        return candidate.learner(network, meter.device.type, batch, sizes.crop, **changes)

    learners: list[Learner] = []  # kept from training to validation, as training does

    def train() -> None:
        learners.append(_train(make(network.default, sizes.batch), sizes.steps))

    found = {"train": meter.run(train)}
    for seconds in sizes.recordings:
        fits = meter.run(partial(_validate, learners[0], seconds)) if learners else None
        found[f"validate {seconds} s"] = fits
    learners.clear()
    modes: list[Mode] = [None] if network.default is None else [True, False]
    batches = [_largest_batch(meter, partial(make, mode), sizes) for mode in modes]
    return {
        "network": name,
        **{label: used and asdict(used) for label, used in found.items()},
        "largest": [
            {"checkpoint": mode, "batch": batch} for mode, batch in zip(modes, batches, strict=True)
        ],
    }


def _train(learner: Learner, steps: int) -> Learner:
    batch = noise(learner.config.data.batch_size, learner.config.data.crop_seconds)
    for number in range(steps):
        result = learner.step(batch, number)
        assert not result.broken, result.broken
    return learner


def _largest_batch(meter: Meter, make: Callable[[int], Learner], sizes: Sizes) -> int:
    """The most crops that fit, in training and validation, 0 where not even one does; make: a
    learner for so many."""

    def train_and_validate(batch: int) -> None:
        _validate(_train(make(batch), _ATTEMPT), max(sizes.recordings))

    def attempt(batch: int) -> Used | None:
        return meter.run(lambda: train_and_validate(batch))

    first = {batch: used.allocated for batch in (2, 4) if (used := attempt(batch))}
    start = predicted(first, meter.limit) if len(first) == 2 else 1
    return largest(lambda batch: attempt(batch) is not None, start, sizes.most)


class _Unscored(ConstantPool):
    """Gives every recording the same scores, at once."""

    def validate(
        self, clean: NDArray, enhanced: NDArray, names: tuple[str, ...]
    ) -> Callable[[], dict[str, float | str]]:
        return lambda: dict.fromkeys(names, 1.0)


class _OneRecording:
    """What validation sees of a data set of one recording of noise."""

    def __init__(self, seconds: float) -> None:
        self.sides = {side: x[0] for side, x in noise(1, seconds).items()}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return {"name": "noise", **self.sides}


def _validate(learner: Learner, seconds: float) -> None:
    dataset = cast(SpeechDataset, _OneRecording(seconds))
    validator = Validator(dataset, _Unscored(1), learner.precision.device, World())
    found = validator.scores(learner.ema.model, lambda: False)
    assert found
    assert found[0]["files"] == 1


def held(result: Mapping[str, Any]) -> str:
    """What PyTorch had, which is less than was wanted where the card is smaller."""
    limits = result["limit_bytes"], result.get("wanted_bytes", result["limit_bytes"])
    limit, wanted = (f"{x / _MIB:,.0f} MiB" for x in limits)
    smaller = f", all that this card has, instead of {wanted}" if limit != wanted else ""
    return f"PyTorch was held to {limit}{smaller}."


def table(result: Mapping[str, Any]) -> str:
    """What `measure` has found, as a table."""
    kinds = [key for key in result["rows"][0] if key.startswith(("train", "validate"))]
    head = ["network"]
    for kind in kinds:
        label = f"{kind} {result['batch']} x {result['crop']:g} s" if kind == "train" else kind
        head += [f"{label} (MiB)", "reserved"]
    rows = []
    for row in result["rows"]:
        cells = [row["network"]]
        for kind in kinds:
            used = row[kind]
            sizes = (used["allocated"], used["reserved"]) if used else ()
            cells += [f"{x / _MIB:,.0f}" for x in sizes] or ["does not fit", ""]
        batches = {x["checkpoint"]: str(x["batch"]) for x in row["largest"]}
        cells += [batches.get(True, ""), batches.get(False, batches.get(None, ""))]
        rows.append(cells)
    return markdown([*head, "largest batch, checkpointed", "not checkpointed"], rows)


def misfits(result: Mapping[str, Any]) -> list[str]:
    """What of training and validation does not fit."""
    return [
        f"{row['network']}: {kind}"
        for row in result["rows"]
        for kind, used in row.items()
        if used is None
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--gib", type=float, default=CARD, help="of the card (default: 12)")
    parser.add_argument("--network", nargs="+", choices=FOUR, default=FOUR, metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    options = parser.parse_args()
    if options.gib <= ASIDE:
        parser.error(f"--gib must be above {ASIDE:g}, which is set aside")
    if not torch.cuda.is_available():
        print("memory_12gb: needs a CUDA card; PyTorch sees none here", file=sys.stderr)
        return 2
    meter = Meter(torch.device("cuda", 0), usable(options.gib))
    chosen = {name: network for name, network in networks().items() if name in options.network}
    result = measure(meter, chosen)
    save(options.json, result)
    print(f"torch {torch.__version__}, {result['device']}")
    print(f"{held(result)}\n\n{table(result)}")
    for misfit in (found := misfits(result)):
        print(f"memory_12gb: does not fit: {misfit}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
