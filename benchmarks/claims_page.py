"""`docs/claims.md`, from `docs/claims.json` alone: figures are never typed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.choices import CHOICES, CLAIMS, Choice, Claim, change
from benchmarks.results import markdown, where

NOT_MEASURED = "not measured"
_MACHINES = {"cpu": "CPU", "cuda": "GPU"}
_MIB = 2**20
_HEAD = """# Design choices and claims, measured

`python -m benchmarks.claims` writes this page and [claims.json](claims.json), from which alone it
is made (`--render`): change neither by hand. What others have published, or this project expects,
stands in a column of its own; all other figures are of this code on the machine named.
"""
_LEGEND = """
Costs are those of the generator's part of a training step: the network, the losses of the default
recipe and the backward pass through both, without the optimizers. "Kept" is what its forward pass
leaves for its backward pass, "peak" the most that is in use at once, both above what was in use
before. Times are medians, all variants in turn, with the lowest and the highest. Shares compare
with the first row, the setting of this project.
"""


def render(found: Mapping[str, Any]) -> str:
    """The page for what `benchmarks.claims` has measured."""
    parts = [_HEAD]
    parts += [_machine(name, found["machines"].get(key)) for key, name in _MACHINES.items()]
    parts += ["\n## Claims\n", _claims(found["machines"]), "\n## Choices\n", _LEGEND.lstrip("\n")]
    for choice in CHOICES:
        parts += [f"\n### {choice.title}\n", f"{choice.about}\n" if choice.about else ""]
        parts.append(_choice(choice, found))
    return "\n".join(part for part in parts if part).replace("\n\n\n", "\n\n") + "\n"


def _machine(name: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return f"- {name}: {NOT_MEASURED}"
    sizes = f"{entry['batch']} crops of {entry['crop']:g} s, {entry['rounds']} rounds"
    return f"- {name}: {where(entry)}; {sizes}"


def _claims(machines: Mapping[str, Any]) -> str:
    heads = ["claim", "after", "published or expected, by whom"]
    for name in _MACHINES.values():
        heads += [f"measured, {name}", f"verdict, {name}"]
    rows = [
        [
            claim.text,
            claim.source,
            claim.stated,
            *(cell for key in _MACHINES for cell in _checked(claim, machines.get(key))),
        ]
        for claim in CLAIMS
    ]
    return markdown(heads, rows, left=True)


def _checked(claim: Claim, entry: Mapping[str, Any] | None) -> tuple[str, str]:
    if entry is None:
        return NOT_MEASURED, ""
    try:
        return claim.check(entry)
    except KeyError:
        return NOT_MEASURED, ""


def _choice(choice: Choice, found: Mapping[str, Any]) -> str:
    heads = ["", "parameters", "GMAC/s", "on", "kept", "peak", "generator's part", "enhancement"]
    rows = []
    first = next(iter(choice.rows.values()))
    for key, name in _MACHINES.items():
        figures = found["machines"].get(key, {}).get("variants", {})
        for label, variant in choice.rows.items():
            size = found["sizes"].get(variant)
            sizes = (
                [f"{size['parameters']:,}", f"{size['macs_per_second'] / 1e9:.2f}"]
                if size
                else [NOT_MEASURED] * 2
            )
            costs = [_cost(figures, variant, first, x) for x in ("kept", "peak", "train")]
            rows.append([label, *sizes, name, *costs, _cost(figures, variant, first, "enhance")])
    return markdown(heads, rows)


def _cost(figures: Mapping[str, Any], variant: str, first: str, cost: str) -> str:
    """A figure with its share above that of the first row."""
    value = figures.get(variant, {}).get(cost)
    if value is None:
        return NOT_MEASURED
    if isinstance(value, list):
        low, middle, high = (1000 * f(value) for f in (min, statistics.median, max))
        text = f"{middle:,.1f} ms ({low:,.1f} to {high:,.1f})"
    else:
        text = f"{value / _MIB:,.0f} MiB"
    if variant == first or cost not in figures.get(first, {}):
        return text
    share = 100 * change(figures, variant, first, cost)
    return f"{text}, {share:+.0f} %".replace("-", "\N{MINUS SIGN}")
