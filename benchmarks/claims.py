"""What the design choices of this network cost and save, and whether what is claimed of them holds.

    python -m benchmarks.claims [--device cuda] [--batch 6] [--crop 2] [--rounds 3]
    python -m benchmarks.claims --render

Measures every variant of `benchmarks.choices` and writes `claims.json` and, from that alone,
`claims.md` into docs/; the second form only makes the page anew. A machine's figures replace those
of its kind (CPU or GPU); the other's stay. Some 13 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bandsplit.cost import count_macs, count_parameters
from benchmarks.activations import peak_bytes
from benchmarks.candidates import BATCH, CROP, networks
from benchmarks.choices import VARIANTS, WHOLE, Variant
from benchmarks.claims_page import render
from benchmarks.generator import Generator, Pass, make_learner, noise
from benchmarks.results import described, save
from data.utils import write_text
from training.precision import Precision
from training.settings import override

DOCS = Path(__file__).resolve().parents[1] / "docs"
_LONG = 4  # crops


def sizes(variants: Mapping[str, Variant]) -> dict[str, dict[str, float]]:
    """Parameters and multiply-accumulates for a second of audio, the same on all machines."""
    found, known = {}, networks()
    for name, variant in variants.items():
        network = known[variant.network]
        net = replace(network, config=override(network.config, variant.changes)).made()
        found[name] = {
            "parameters": count_parameters(net),
            "macs_per_second": count_macs(net),
        }
    return found


def measure(
    variants: Mapping[str, Variant], device: str, batch: int, crop: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """The costs of variants by name: bytes ("kept", "peak", "whole") and seconds, one a round
    ("train", "enhance"). A variant for which there is not enough memory has none."""
    found: dict[str, dict[str, Any]] = {}
    timed: list[tuple[list[float], Pass]] = []
    for name, variant in variants.items():
        precision = Precision(device, variant.amp)
        size = (1, _LONG * crop) if variant.is_long else (batch, crop)
        found[name] = {}
        whole = _whole_step(variant, precision, *size) if name in WHOLE else None
        if whole is not None:
            found[name]["whole"] = whole
        generator = Generator(variant.network, precision, variant.changes)
        for use, cost in (("training", "train"), ("enhancement", "enhance")):
            one = Pass(generator, use, *size)
            memory = one.weigh()
            if memory is None:
                continue
            if use == "training":
                found[name] |= {"peak": memory[0], "kept": memory[1]}
            found[name][cost] = []
            timed.append((found[name][cost], one))
    for _ in range(rounds):
        for times, one in timed:
            times.append(one.seconds())
    return found


def _whole_step(variant: Variant, precision: Precision, batch: int, seconds: float) -> int | None:
    """Bytes at the peak of two steps, everything from the weights on included.

    In the second step the discriminator learns, too, and the optimizers have their state. None
    where there is not enough memory.
    """
    changes = {**variant.changes, "data.batch_size": batch}

    def train() -> None:
        learner = make_learner(variant.network, precision, changes)
        clean, noisy = noise(batch, seconds, precision.device)
        for number in range(2):
            learner.step({"clean": clean, "noisy": noisy}, number)

    try:
        return peak_bytes(train, precision.device)
    except torch.OutOfMemoryError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    path = options.out / "claims.json"
    found: dict[str, Any] = {"sizes": {}, "machines": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    elif options.render:
        raise SystemExit(f"{path} is not there: measure first")
    if not options.render:
        device = Precision(options.device, "off").device
        settings = {name: getattr(options, name) for name in ("batch", "crop", "rounds")}
        found["sizes"] = sizes(VARIANTS)
        found["machines"][device.type] = {
            **described("claims", device, **settings),
            "variants": measure(VARIANTS, device.type, **settings),
        }
        save(path, found)
    write_text(options.out / "claims.md", render(found))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--crop", type=float, default=CROP, metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="DIR")
    parser.add_argument("--render", action="store_true", help="only the page, from the JSON there")
    options = parser.parse_args(arguments)
    if min(options.batch, options.crop, options.rounds) <= 0:
        parser.error("--batch, --crop and --rounds take numbers above 0")
    return options


if __name__ == "__main__":
    main()
