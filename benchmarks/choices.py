"""The design choices, their alternatives, and what is claimed of them, by whom.

What others have published or the project expects is text here, and goes into a column of its own;
whether a claim holds follows from the figures measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.candidates import BATCH, CROP
from benchmarks.fitting import usable

HOLDS, MORE, FAILS = "holds", "holds, and more", "does not hold"
NO_CARD = "no verdict: not counted on a card"
NO_VERDICT = "no verdict: another system, another task"
A_COST = "a cost; what it buys is not measured here"

# What a machine has measured: figures by the names of variants.
Figures = Mapping[str, Mapping[str, Any]]

_SLOWER, _LARGER = 1.05, 1.01  # still counts as no more time, as no more memory


@dataclass(frozen=True)
class Variant:
    """A network with some settings changed, in a precision.

    is_long: measured on one clip four times as long, instead of the batch.
    """

    network: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    amp: str = "off"
    is_long: bool = False


def _of(setting: str, *values: Any, network: str = "abl3", suffix: str = "", **more: Any) -> dict:
    return {
        f"{network}, {setting} {value}{suffix}": Variant(
            network, {f"model.{setting}": value}, **more
        )
        for value in values
    }


_CHUNKS = (16, 32, 64, 128, 256)
VARIANTS: dict[str, Variant] = {
    "abl3": Variant("abl3"),
    **_of("d_state", 8, 12, 32),
    **_of("chunk_size", *_CHUNKS, network="abl1"),
    **_of("chunk_size", *_CHUNKS, network="abl1", suffix=", long", is_long=True),
    **_of("num_layers", 2, 4),
    **_of("num_layers", 1, 2, network="abl2"),
    **_of("use_checkpoint", False, "full"),
    "abl3, bf16": Variant("abl3", amp="bf16"),
    **_of("use_checkpoint", False, suffix=", bf16", amp="bf16"),
}
# Of these, all that a whole step of both players takes is measured too.
WHOLE = ("abl3", "abl3, bf16")


@dataclass(frozen=True)
class Choice:
    """A table: its rows are variants by what they set, the first of them being what is chosen."""

    title: str
    about: str
    rows: Mapping[str, str]


def _rows(setting: str, *values: Any, network: str = "abl3", suffix: str = "") -> dict[str, str]:
    return {f"{value}": f"{network}, {setting} {value}{suffix}" for value in values}


CHOICES = (
    Choice(
        "States: d_state",
        "abl3. The states that each inner channel of the scan has.",
        {"16": "abl3", **_rows("d_state", 8, 12, 32)},
    ),
    Choice(
        "Chunks: chunk_size, the batch of crops",
        "abl1, which has the time path only: the band path's 31 steps fit into one chunk of 32.",
        _rows("chunk_size", 64, 16, 32, 128, 256, network="abl1"),
    ),
    Choice(
        "Chunks: chunk_size, one clip four times as long",
        "abl1 at batch 1.",
        _rows("chunk_size", 64, 16, 32, 128, 256, network="abl1", suffix=", long"),
    ),
    Choice("Layers: num_layers, abl3", "", {"1": "abl3", **_rows("num_layers", 2, 4)}),
    Choice("Layers: num_layers, abl2", "", _rows("num_layers", 1, 2, network="abl2")),
    Choice(
        "Checkpointing and precision: use_checkpoint, --amp",
        "abl3. True keeps in_proj's halves, x_proj's columns, the scan's states at chunk "
        "borders and the feed-forward's product, and recomputes the rest; full recomputes all.",
        {
            "True, fp32": "abl3",
            "False, fp32": "abl3, use_checkpoint False",
            "full, fp32": "abl3, use_checkpoint full",
            "True, bf16": "abl3, bf16",
            "False, bf16": "abl3, use_checkpoint False, bf16",
        },
    ),
)


@dataclass(frozen=True)
class Claim:
    """What is claimed.

    Attributes:
        text, source: the claim; the work that it rests on.
        stated: figures published or expected, with whose they are.
        check: from a machine's entry to what it measured, in words, and the verdict. A KeyError
            says that what is needed was not measured.
    """

    text: str
    source: str
    stated: str
    check: Callable[[Mapping[str, Any]], tuple[str, str]]


def change(figures: Figures, new: str, old: str, cost: str) -> float:
    """By which share a cost of one variant exceeds that of another; times by their medians.

    Raises:
        KeyError: one of them is not there.
    """
    return _cost(figures[new][cost]) / _cost(figures[old][cost]) - 1


def _cost(value: Any) -> float:
    return statistics.median(value) if isinstance(value, list) else value


def _saving(new: str, old: str, low: float, high: float) -> Callable:
    """A check that peak memory falls by a share of `low` or more; above `high` it falls by more."""

    def check(machine: Mapping[str, Any]) -> tuple[str, str]:
        saved = -change(machine["variants"], new, old, "peak")
        verdict = FAILS if saved < low else MORE if saved > high else HOLDS
        return f"peak memory {_percent(-saved)}", verdict

    return check


def _costs(new: str, old: str, judge: Callable[[float, float], str]) -> Callable:
    """A check of the changes of peak memory and time, from which `judge` makes the verdict."""

    def check(machine: Mapping[str, Any]) -> tuple[str, str]:
        memory, time = (change(machine["variants"], new, old, x) for x in ("peak", "train"))
        return f"peak memory {_percent(memory)}, time {_percent(time)}", judge(memory, time)

    return check


def _in_time(machine: Mapping[str, Any]) -> tuple[str, str]:
    slower = change(machine["variants"], "abl3", "abl3, use_checkpoint False", "train")
    return f"time {_percent(slower)}", HOLDS if slower <= 0.1 else FAILS


def _fits(machine: Mapping[str, Any]) -> tuple[str, str]:
    if machine["batch"] < BATCH or machine["crop"] < CROP:
        raise KeyError("a smaller batch")
    full, mixed = (machine["variants"][name]["whole"] for name in WHOLE)
    text = f"a whole step takes {full / 1e9:.2f} GB in fp32, {mixed / 1e9:.2f} GB in bf16"
    if not machine["cuda"]:
        return f"counted on a CPU: {text}", NO_CARD
    return text, HOLDS if max(full, mixed) <= usable() else FAILS


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "\N{MINUS SIGN}")


_PROJECT = "This project's expectation: "
CLAIMS = (
    Claim(
        "`d_state` 16 instead of 12, as in SEMamba",
        "Chao et al., SLT 2024",
        "SEMamba's published recipe: `d_state` 16",
        _costs("abl3", "abl3, d_state 12", lambda memory, time: A_COST),
    ),
    Claim(
        "`chunk_size` 64 instead of 32 costs neither memory nor time (time path)",
        "Mamba-2: Dao and Gu, ICML 2024",
        _PROJECT + "64 to 256 steps, as for Mamba-2 (whose chunks are matrix products, and 256 "
        "steps in mamba-ssm; here a chunk is the distance between kept states)",
        _costs(
            "abl1, chunk_size 64",
            "abl1, chunk_size 32",
            lambda memory, time: HOLDS if memory < _LARGER - 1 and time < _SLOWER - 1 else FAILS,
        ),
    ),
    Claim(
        "`num_layers` 1 instead of 2 takes less memory and time",
        "none",
        "no figure",
        _costs(
            "abl3",
            "abl3, num_layers 2",
            lambda memory, time: HOLDS if max(memory, time) < 0 else FAILS,
        ),
    ),
    Claim(
        "Recomputing activations saves memory, as in Vision Mamba (Vim)",
        "Zhu et al., ICML 2024",
        "Vim's abstract: 86.8 % less GPU memory and 2.8 times the speed of DeiT, extracting "
        "features of 1248 × 1248 images: inference, of another system, against a Transformer",
        _costs("abl3", "abl3, use_checkpoint False", lambda memory, time: NO_VERDICT),
    ),
    Claim(
        "Checkpointing saves half of the memory",
        "none",
        _PROJECT + "50 to 60 %",
        _saving("abl3", "abl3, use_checkpoint False", 0.5, 0.6),
    ),
    Claim("… at little time", "none", _PROJECT + "at most 10 %", _in_time),
    Claim(
        "Mixed precision saves memory",
        "none",
        _PROJECT + "40 %",
        _saving("abl3, use_checkpoint False, bf16", "abl3, use_checkpoint False", 0.4, 0.4),
    ),
    Claim(
        "Both together save most of it",
        "none",
        _PROJECT + "70 to 80 %",
        _saving("abl3, bf16", "abl3, use_checkpoint False", 0.7, 0.8),
    ),
    Claim(
        "A batch of 6 × 2 s fits on the card, weights, both players and optimizers included",
        "none",
        _PROJECT + "12 GB; judged by the 11 GiB that PyTorch has of such a card",
        _fits,
    ),
)
