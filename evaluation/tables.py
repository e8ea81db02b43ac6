"""The tables of a comparison, as cells: Markdown, LaTeX and the page show the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.analysis import Analysis, Model, Pair
from evaluation.conditions import MEASURED
from evaluation.published import EXPECTED, PUBLISHED, PUBLISHED_COLUMNS
from evaluation.scores import METRICS
from evaluation.statistics import MARKED_SEEDS, Interval, Spread, holm, seeds_needed

# What a paper's table has; then what stands beside it, to compare with tables of the other scale.
MAIN = ("pesq_wb", "csig", "cbak", "covl", "stoi", "estoi", "segsnr", "si_sdr")
BESIDE = (
    "csig_float", "cbak_float", "covl_float", "wss_float", "wss", "llr", "stoi_pystoi", "snr",
)  # fmt: skip
_PESQ = METRICS["pesq_wb"]
# A difference of PESQ that is worth finding: about half of what a metric discriminator brings.
_SOUGHT = 0.05
# Of a network's use: which fact it is, in which unit, how it is written.
_COSTS = {
    "parameters (M)": ("parameters", 1e6, "{:.3f}"),
    "GMAC/s": ("macs_per_second", 1e9, "{:.2f}"),
    "RTF": ("real_time_factor", 1, "{:.3f}"),
    "memory (MB)": ("peak_memory", 1e6, "{:,.0f}"),
    "steps": ("step", 1, "{:,.0f}"),
    "training (h)": ("hours", 1, "{:.2f}"),
}


@dataclass(frozen=True)
class Cell:
    """A number or name of a table: as shown, what stands below it, and what it is sorted by."""

    text: str
    sort: float | str | None = None
    below: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """columns: headings; all but the first are of numbers. caption: what it shows, in sentences."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def tables(analysis: Analysis) -> list[Table]:
    """Return all tables that there is something for, the main one first."""
    baseline = analysis.baseline.name
    ours = {f"{x.other.name} − {x.reference.name}": x for x in analysis.primary}
    question = "These answer the question of this project: both sides read time both ways."
    others = {x.other.name: x for x in analysis.comparisons}
    found = [
        scores(analysis, MAIN),
        _differences("Primary comparisons", question, ours),
        _differences(f"Against {baseline}", f"Differences to {baseline}.", others),
        scores(analysis, BESIDE),
        *(_by_group(analysis, number) for number in range(len(analysis.breakdowns))),
        _seeds(analysis),
    ]
    return [table for table in found if table.rows]


def scores(analysis: Analysis, metrics: Sequence[str]) -> Table:
    """Return the means of each model; beside the main metrics also what is known of its cost."""
    main = metrics is MAIN
    marks = marks_of(analysis, metrics)
    best = {metric: _best(analysis, metric) for metric in metrics}
    costs = [x for x in _COSTS if main and any(_COSTS[x][0] in m.facts for m in analysis.models)]
    rows = []
    for model in analysis.models:
        cells = [_name(model)]
        for name in metrics:
            cell = _mean(name, model.means[name], len(analysis.clean), model.spreads[name])
            text = f"{cell.text} {marks.get((model.name, name), '')}".rstrip()
            cells.append(Cell(text, cell.sort, cell.below, model.name in best[name]))
        for fact, unit, form in (_COSTS[x] for x in costs):
            value = model.facts.get(fact)
            cells.append(Cell("") if value is None else Cell(form.format(value / unit), value))
        rows.append(cells)
    columns = ["system"]
    for metric in (METRICS[name] for name in metrics):
        sign = "" if metric.higher_is_better else " ↓"
        columns.append(f"{metric.heading}{f' ({metric.unit})' if metric.unit else ''}{sign}")
    if not main:
        caption = "The composite scores of the other scale, and what they are made of."
        return Table("The other scale, and parts", caption, columns, rows)
    baseline = analysis.baseline.name
    caption = (
        f"Means over the files of {analysis.data} that have the score, {len(analysis.clean)} "
        "unless said otherwise, with 95 % file intervals by a bootstrap. Bold: the best of a "
        "column, the noisy files aside. ±: standard deviation over seeds, whose lowest and highest "
        "mean are in brackets. "
    ) + (
        f"▲ and ▼: better and worse than {baseline}, Welch's t-test over seeds at 5 % after Holm's "
        f"correction over the whole table, where both have at least {MARKED_SEEDS} seeds."
        if marks
        else f"No differences are marked: that takes at least {MARKED_SEEDS} seeds of {baseline} "
        "and of another model."
    )
    return Table("Scores", caption, [*columns, *costs], rows)


def published() -> Table:
    """Return what papers report and what is hoped for here, for the page."""
    caption = (
        "No results of this comparison: VoiceBank-DEMAND's test set as the authors report it, the "
        "composite scores on either scale. Empty: not known. Last, what was hoped for here."
    )
    rows = [
        [Cell(name, name), *(Cell("" if x is None else f"{x:.2f}", x) for x in values)]
        for name, *values in PUBLISHED
    ]
    for name, millions, hoped in EXPECTED:
        size = Cell(f"{millions:.2f}", millions)
        rows.append([Cell(f"{name}, hoped for"), size, Cell(hoped), *4 * [Cell("")]])
    return Table("Published", caption, PUBLISHED_COLUMNS, rows)


def marks_of(analysis: Analysis, metrics: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return "▲", "▼" or "" by model and metric, wherever the seeds were tested.

    A mark is a difference to the baseline at 5 %, by the test over seeds after Holm's correction
    over all pairs of model and metric that have at least `MARKED_SEEDS` seeds a side.
    """
    tested = [
        ((pair.other.name, metric), found.difference.mean, found.over_seeds.p)
        for pair in analysis.comparisons
        for metric in metrics
        if (found := pair.comparisons[metric])
        and found.over_seeds
        and min(found.over_seeds.seeds) >= MARKED_SEEDS
    ]
    marks = {}
    for (place, difference, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        better = (difference > 0) == METRICS[place[1]].higher_is_better
        marks[place] = ("▲" if better else "▼") if p is not None and p < 0.05 else ""
    return marks


def _by_group(analysis: Analysis, number: int) -> Table:
    """Return PESQ by the groups of a breakdown."""
    breakdown, means = analysis.breakdowns[number]
    rows = []
    for model in analysis.models:
        found = means[model.name]
        groups = breakdown.groups.items()
        cells = [_mean("pesq_wb", found[label], len(names)) for label, names in groups]
        rows.append([_name(model), *cells])
    source = breakdown.source if breakdown.source == MEASURED else f"known from {breakdown.source}"
    caption = f"{_PESQ.heading} by {breakdown.axis}, {source} (number of files)."
    columns = [f"{label} ({len(names)})" for label, names in breakdown.groups.items()]
    return Table(f"By {breakdown.axis}", caption, ["system", *columns], rows)


def _differences(name: str, caption: str, pairs: Mapping[str, Pair]) -> Table:
    """Return the differences of PESQ with their intervals and tests, without empty columns."""
    columns = [
        *("system", f"{_PESQ.heading}, difference (95 % file interval)"),
        *("p over files (Holm)", "r", "better / tie / worse", "files", "seeds"),
        *("95 % seed interval", "p over seeds (Holm)", f"seeds a side for {_SOUGHT:g}"),
    ]
    rows = []
    for label, pair in pairs.items():
        found = pair.comparisons["pesq_wb"]
        if found is None:
            continue
        mean, seeds = found.difference, found.over_seeds
        interval = f" ({_signed(mean.low)} to {_signed(mean.high)})" if mean.is_sound else ""
        cells = [
            Cell(label, label),
            Cell(_signed(mean.mean) + interval, mean.mean),
            Cell(_p(found.p_holm), found.p_holm),
            Cell(f"{found.rank_biserial:+.2f}", found.rank_biserial),
            Cell(f"{found.wins} / {found.ties} / {found.losses}", found.wins),
            Cell(str(mean.count), mean.count),
            Cell(f"{pair.other.seeds or '–'} / {pair.reference.seeds or '–'}"),
            *3 * [Cell("")],
        ]
        if seeds:
            needed = seeds_needed(seeds.deviation, _SOUGHT)
            cells[-3] = Cell(f"{_signed(seeds.low)} to {_signed(seeds.high)}", seeds.low)
            cells[-2:] = Cell(_p(seeds.p_holm), seeds.p_holm), Cell(f"{needed:,}", needed)
        rows.append(cells)
    caption += (
        " File interval: a bootstrap over the files, for these weights alone. p over files: "
        "Wilcoxon signed-rank test, corrected by Holm over this table; r: its matched-pairs "
        f"rank-biserial correlation; a difference of up to {_PESQ.tie:g} is a tie."
    )
    kept = [i for i, _ in enumerate(columns) if any(row[i].text for row in rows)]
    if len(columns) - 1 in kept:
        caption += (
            " Seed interval, p over seeds: Welch's t-test on the seeds' means, of two seeds a side "
            f"or more, corrected likewise. Seeds a side for {_SOUGHT:g}: those with which a "
            f"two-sided t-test at 5 % finds a true difference of {_SOUGHT:g} PESQ with a power of "
            "80 % (noncentral t distribution, pooled variance of these seeds); from few seeds, a "
            "rough figure."
        )
    if any(1 in (pair.other.seeds, pair.reference.seeds) for pair in pairs.values()):
        caption += " Where a side has one seed, the difference may be chance of the training."
    rows = [[row[i] for i in kept] for row in rows]
    return Table(name, caption, [columns[i] for i in kept], rows)


def _seeds(analysis: Analysis) -> Table:
    """Return what differs between the runs of a model, apart from what differs between files."""
    rows = []
    for model in analysis.models:
        found = model.spreads["pesq_wb"]
        if found.over_runs is not None and found.over_files is not None:
            order = np.argsort([system.facts["seed"] for system in model.systems])
            # Over the files that all of them have, as the deviations are.
            complete = np.isfinite(model.by_file("pesq_wb"))
            each = model.scores["pesq_wb"][order][:, complete].mean(axis=1)
            cells = [_name(model), Cell(", ".join(map(_PESQ.show, each)))]
            deviations = (found.over_runs, found.over_files)
            rows.append([*cells, *(Cell(f"{value:.4f}", value) for value in deviations)])
    caption = (
        "File intervals and tests over files do not cover other seeds: a difference that is not "
        "large against the deviation over seeds may be chance of the training."
    )
    columns = ["system", "each seed's mean", "deviation over seeds", "deviation over files"]
    return Table(f"Seeds, {_PESQ.heading}", caption, columns, rows)


def _best(analysis: Analysis, metric: str) -> list[str]:
    """Return whose mean is the best of those over the most files: others may have easier ones."""
    means = {x.name: mean for x in analysis.enhancing if (mean := x.means[metric])}
    most = max((mean.count for mean in means.values()), default=0)
    found = {name: mean.mean for name, mean in means.items() if mean.count == most}
    choose = max if METRICS[metric].higher_is_better else min
    best = choose(found.values(), default=None)
    return [name for name, mean in found.items() if mean == best and len(found) > 1]


def _name(model: Model) -> Cell:
    return Cell(model.name, model.name)


def _mean(metric: str, mean: Interval | None, files: int, spread: Spread | None = None) -> Cell:
    """Return a mean, over how many files it is where these are not all, its interval and seeds."""
    if mean is None:
        return Cell("none")
    show = METRICS[metric].show
    text, below = show(mean.mean), f"{show(mean.low)} – {show(mean.high)}" * mean.is_sound
    if spread and spread.over_runs is not None and spread.lowest and spread.highest:
        text += f" ± {show(spread.over_runs)}"
        below += f" [{show(spread.lowest)} – {show(spread.highest)}]"
    if mean.count < files:
        text += f" ({mean.count} file{'s' * (mean.count != 1)})"
    return Cell(text, mean.mean, below)


def _signed(difference: float) -> str:
    text = f"{difference:+.{_PESQ.digits}f}"
    return text.replace("-", "+") if not float(text) else text  # there is no -0.000


def _p(p: float | None) -> str:
    if p is None:
        return "too few"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
