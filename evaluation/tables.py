"""The tables of a comparison, as cells: Markdown, LaTeX and the page show the same ones.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evaluation.analysis import Analysis
from evaluation.cells import Cell, Table
from evaluation.differences import PESQ, against_baseline, primary
from evaluation.metrics import METRICS
from evaluation.models import Model
from evaluation.published import EXPECTED, PUBLISHED
from evaluation.seeds import MARKED_SEEDS, Spread
from evaluation.statistics import Interval, holm

# What a paper's table has; then what stands beside it, to compare with tables of the other scale.
MAIN = ("pesq_wb", "csig", "cbak", "covl", "stoi", "estoi", "segsnr", "si_sdr")
BESIDE = (
    "csig_float", "cbak_float", "covl_float", "wss_float", "wss", "llr", "stoi_pystoi", "snr",
)  # fmt: skip
NONE = "none"
# Of a network's use: which fact it is, in which unit, how it is written.
_COSTS = {
    "parameters (M)": ("parameters", 1e6, "{:.3f}"),
    "GMAC/s": ("macs_per_second", 1e9, "{:.2f}"),
    "RTF": ("real_time_factor", 1, "{:.3f}"),
    "memory (MB)": ("peak_memory", 1e6, "{:,.0f}"),
    "steps": ("step", 1, "{:,.0f}"),
    "training (h)": ("hours", 1, "{:.2f}"),
}


def tables(analysis: Analysis) -> list[Table]:
    """All tables that there is something for, the main one first."""
    found = [scores(analysis, MAIN), primary(analysis), against_baseline(analysis)]
    found.append(scores(analysis, BESIDE))
    found += [by_group(analysis, number) for number in range(len(analysis.breakdowns))]
    found += [seeds(analysis), expected(analysis)]
    return [table for table in found if table.rows]


def scores(analysis: Analysis, metrics: Sequence[str]) -> Table:
    """The means of each model; where these are the main metrics, also what is known of its cost."""
    main = metrics is MAIN
    costs = _costs(analysis.models) if main else {}
    marks = marks_of(analysis, metrics)
    best = {metric: _best(analysis, metric) for metric in metrics}
    rows = []
    for place, model in enumerate(analysis.models):
        cells = [Cell(model.name, model.name)]
        for metric in metrics:
            cell = _interval(metric, analysis.means[model.name][metric], len(analysis.utterances))
            deviation, span = _spread(metric, analysis.spreads[model.name][metric])
            mark = marks.get((model.name, metric), "")
            bold = model.name in best[metric]
            cells.append(replace(cell, deviation=deviation, span=span, best=bold, mark=mark))
        cells += [column[place] for column in costs.values()]
        rows.append(cells)
    caption = f"Means over the files of {analysis.data} that have the score"
    caption += f", {len(analysis.utterances)} unless said otherwise."
    if not main:
        caption = "The composite scores of the other scale, and what they are made of."
    name = "Scores" if main else "The other scale, and parts"
    return Table(name, caption, ["system", *map(_heading, metrics), *costs], rows)


def by_group(analysis: Analysis, number: int, metric: str = "pesq_wb") -> Table:
    """One metric by the groups of a breakdown."""
    breakdown, means = analysis.breakdowns[number]
    rows = []
    for model in analysis.models:
        cells = [
            _interval(metric, means[model.name][metric][label], len(names))
            for label, names in breakdown.groups.items()
        ]
        rows.append([Cell(model.name, model.name), *cells])
    columns = [f"{label} ({len(names)})" for label, names in breakdown.groups.items()]
    caption = (
        f"{METRICS[metric].heading} by {breakdown.axis}, known from {breakdown.source} "
        "(number of files)."
        if breakdown.source != "measured"
        else f"{METRICS[metric].heading} by {breakdown.axis} as measured (number of files)."
    )
    return Table(f"By {breakdown.axis}", caption, ["system", *columns], rows)


def seeds(analysis: Analysis) -> Table:
    """What differs between the runs of a model, apart from what differs between files."""
    rows = []
    for model in analysis.models:
        found = analysis.spreads[model.name][PESQ]
        if found.over_runs is None or found.over_files is None:
            continue
        runs = sorted(model.systems, key=lambda system: system.facts["seed"])
        # Over the files that all of them have, as the deviations are.
        complete = np.isfinite(model.row_scores(PESQ))
        each = [METRICS[PESQ].show(run.values(PESQ)[complete].mean()) for run in runs]
        rows.append([
            Cell(model.name, model.name),
            Cell(", ".join(each)),
            Cell(f"{found.over_runs:.4f}", found.over_runs),
            Cell(_spread(PESQ, found)[1], found.lowest),
            Cell(f"{found.over_files:.4f}", found.over_files),
        ])  # fmt: skip
    caption = (
        "File intervals and tests over files do not cover other seeds: a difference that is not "
        "large against the deviation over seeds may be chance of the training."
    )
    columns = [
        *("system", "each seed's mean", "deviation over seeds", "lowest – highest"),
        "deviation over files",
    ]
    return Table(f"Seeds, {METRICS[PESQ].heading}", caption, columns, rows)


def expected(analysis: Analysis) -> Table:
    """What was hoped for of each network, beside what was measured where that is the same thing."""
    rows = []
    for model in analysis.models:
        millions = round(model.facts.get("parameters", 0) / 1e6, 1)
        hoped = EXPECTED.get((model.facts.get("model", ""), millions))
        if hoped is None:
            continue
        low, high = (f"{value:.2f}" for value in hoped)
        measured = model.row_scores("pesq_wb")[analysis.benchmark]
        there = len(measured) > 0 and bool(np.isfinite(measured).all())
        rows.append([
            Cell(model.name, model.name),
            Cell(low if low == high else f"{low} to {high}", hoped[0]),
            Cell(METRICS["pesq_wb"].show(measured.mean()), measured.mean())
            if there
            else Cell("not measured"),
        ])  # fmt: skip
    caption = (
        "No results: what the networks were made in the hope of, after a whole training on "
        "VoiceBank-DEMAND, on its whole test set of 824 files."
    )
    return Table("Expected", caption, ["system", "hoped for", "measured on that set"], rows)


def published() -> Table:
    """What papers report, for the page."""
    rows = []
    for each in PUBLISHED:
        figures = [each.parameters, each.pesq, each.csig, each.cbak, each.covl, each.stoi]
        cells = [Cell("" if x is None else f"{x:.2f}", x) for x in figures]
        rows.append([Cell(each.name, each.name), *cells])
    caption = (
        "No results of this comparison: VoiceBank-DEMAND's test set as the authors report it, the "
        "composite scores on either scale. Empty: not known."
    )
    columns = ["system", "parameters (M)", "PESQ-WB", "CSIG", "CBAK", "COVL", "STOI"]
    return Table("Published", caption, columns, rows)


def marks_of(analysis: Analysis, metrics: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return "better", "worse" or "" by model and metric, wherever the seeds were tested.

    A mark is a difference to the baseline at 5 %, by the test over seeds after Holm's correction
    over all pairs of model and metric that have at least `MARKED_SEEDS` seeds a side.
    """
    tested = [
        ((name, metric), comparison.difference.mean, seeds.p)
        for name, each in analysis.comparisons.items()
        for metric in metrics
        if (comparison := each[metric]) is not None
        and (seeds := comparison.over_seeds) is not None
        and min(seeds.seeds) >= MARKED_SEEDS
    ]
    marks = {}
    for (place, difference, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        up = (difference > 0) == METRICS[place[1]].higher_is_better
        significant = p is not None and p < 0.05
        marks[place] = ("better" if up else "worse") if significant else ""
    return marks


def _best(analysis: Analysis, metric: str) -> list[str]:
    """Whose mean is the best of those over the same files: others may be over easier ones."""
    scored = {each.name: np.isfinite(each.row_scores(metric)) for each in analysis.enhancing}
    most = max(scored.values(), key=np.count_nonzero, default=np.zeros(0, bool))
    means = {
        name: mean.mean
        for name, there in scored.items()
        if np.array_equal(there, most) and (mean := analysis.means[name][metric]) is not None
    }
    choose = max if METRICS[metric].higher_is_better else min
    best = choose(means.values(), default=None)
    return [name for name, mean in means.items() if mean == best] if len(means) > 1 else []


def _interval(metric: str, mean: Interval | None, files: int) -> Cell:
    """A mean, its interval, and over how many files it is where these are not all."""
    if mean is None:
        return Cell(NONE)
    show = METRICS[metric].show
    detail = f"{show(mean.low)} – {show(mean.high)}" if mean.is_sound else ""
    fewer = f"{mean.count} file{'s' * (mean.count != 1)}" if mean.count < files else ""
    return Cell(show(mean.mean), mean.mean, detail, fewer)


def _spread(metric: str, found: Spread) -> tuple[str, str]:
    """Return the deviation and the span of the seeds' means, empty for a single seed."""
    if found.over_runs is None or found.lowest is None or found.highest is None:
        return "", ""
    show = METRICS[metric].show
    return show(found.over_runs), f"{show(found.lowest)} – {show(found.highest)}"


def _costs(models: Sequence[Model]) -> dict[str, list[Cell]]:
    """Columns, without those that nothing is known for."""
    columns = {
        heading: [
            Cell("") if value is None else Cell(form.format(value / unit), value / unit)
            for value in (model.facts.get(fact) for model in models)
        ]
        for heading, (fact, unit, form) in _COSTS.items()
    }
    return {name: cells for name, cells in columns.items() if any(cell.text for cell in cells)}


def _heading(metric: str) -> str:
    shown = METRICS[metric]
    unit = f" ({shown.unit})" if shown.unit else ""
    return f"{shown.heading}{unit}{'' if shown.higher_is_better else ' ↓'}"
