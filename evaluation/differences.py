"""Tables of comparisons: how far PESQ differs, over other files and over other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.analysis import Analysis
from evaluation.cells import Cell, Table
from evaluation.metrics import METRICS
from evaluation.models import Model
from evaluation.seeds import seeds_needed
from evaluation.statistics import Comparison, Interval

PESQ = "pesq_wb"
# A difference of PESQ that is worth finding: about half of what a metric discriminator brings.
SOUGHT = 0.05
_SMALLEST_P = 1e-4


def primary(analysis: Analysis) -> Table:
    """Return the differences of PESQ in the comparisons that answer the project's question."""
    found = [
        (f"{each.other.name} − {each.reference.name}", each.other, each.reference, comparison)
        for each in analysis.primary
        if (comparison := each.comparisons[PESQ]) is not None
    ]
    return _differences(
        "Primary comparisons",
        "These answer the question of this project: both sides read time both ways.",
        found,
    )


def against_baseline(analysis: Analysis) -> Table:
    """Return the differences of PESQ to the baseline's, with their intervals and tests."""
    baseline = analysis.baseline
    found = [
        (model.name, model, baseline, comparison)
        for model in analysis.models
        if (comparison := analysis.comparisons.get(model.name, {}).get(PESQ)) is not None
    ]
    return _differences(f"Against {baseline.name}", f"Differences to {baseline.name}.", found)


def _differences(
    name: str, caption: str, found: Sequence[tuple[str, Model, Model, Comparison]]
) -> Table:
    """Return a row for each (label, other, reference, comparison), without empty columns."""
    columns = [
        *("system", f"{METRICS[PESQ].heading}, difference (95 % file interval)"),
        *("p over files (Holm)", "r", "better / tie / worse", "files", "seeds"),
        *("95 % seed interval", "p over seeds (Holm)", f"seeds a side for {SOUGHT:g}"),
    ]
    rows = []
    for label, other, reference, comparison in found:
        difference, seeds = comparison.difference, comparison.over_seeds
        outcome = f"{comparison.wins} / {comparison.ties} / {comparison.losses}"
        cells = [
            Cell(label, label),
            Cell(_with_interval(_signed, difference), difference.mean),
            Cell(_p(comparison.p_holm), comparison.p_holm),
            Cell(f"{comparison.rank_biserial:+.2f}", comparison.rank_biserial),
            Cell(outcome, comparison.wins),
            Cell(str(difference.count), difference.count),
            Cell(" / ".join(str(side.seeds or "–") for side in (other, reference))),
        ]
        if seeds is None:
            cells += 3 * [Cell("")]
        else:
            needed = seeds_needed(seeds.deviation, SOUGHT)
            cells += [
                Cell(f"{_signed(seeds.low)} to {_signed(seeds.high)}", seeds.low),
                Cell(_p(seeds.p_holm), seeds.p_holm),
                Cell(f"{needed:,}", needed),
            ]
        rows.append(cells)
    caption += (
        " File interval: a bootstrap over the files, for these weights alone. p over files: "
        "Wilcoxon signed-rank test, corrected by Holm over this table; r: its matched-pairs "
        f"rank-biserial correlation; a difference of up to {METRICS[PESQ].tie:g} is a tie."
    )
    if any(comparison.over_seeds for *_, comparison in found):
        caption += (
            " Seed interval, p over seeds: Welch's t-test on the seeds' means, of two seeds a side "
            f"or more, corrected likewise. Seeds a side for {SOUGHT:g}: those with which a "
            f"two-sided t-test at 5 % finds a true difference of {SOUGHT:g} PESQ with a power of "
            "80 % (noncentral t distribution, pooled variance of these seeds); from few seeds, a "
            "rough figure."
        )
    if any(side.seeds == 1 for _, *sides, _ in found for side in sides):
        caption += " Where a side has one seed, the difference may be chance of the training."
    kept = [i for i, _ in enumerate(columns) if any(row[i].text for row in rows)]
    return Table(
        name, caption, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]
    )


def _with_interval(show: Callable[[float], str], mean: Interval) -> str:
    if not mean.is_sound:
        return show(mean.mean)
    return f"{show(mean.mean)} ({show(mean.low)} to {show(mean.high)})"


def _signed(difference: float) -> str:
    text = f"{difference:+.{METRICS[PESQ].digits}f}"
    return text.replace("-", "+") if not float(text) else text  # there is no -0.000


def _p(p: float | None) -> str:
    if p is None:
        return "too few"
    return f"< {_SMALLEST_P:.4f}" if p < _SMALLEST_P else f"{p:.4f}"
