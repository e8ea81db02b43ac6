"""The tables of a comparison, as cells: Markdown, LaTeX and the page show the same ones.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.analysis import Analysis
from evaluation.metrics import METRICS
from evaluation.models import Model
from evaluation.published import EXPECTED
from evaluation.statistics import Interval

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
}
_SMALLEST_P = 1e-4


@dataclass(frozen=True)
class Cell:
    """text: as shown. sort: what it is sorted by. detail: an interval, say. best: of its column."""

    text: str
    sort: float | str | None = None
    detail: str = ""
    best: bool = False
    significant: bool = False


@dataclass(frozen=True)
class Table:
    """columns: headings; all but the first are of numbers. caption: what it shows, a sentence."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def tables(analysis: Analysis) -> list[Table]:
    """All tables that there is something for, the main one first."""
    found = [scores(analysis, MAIN), against_baseline(analysis), scores(analysis, BESIDE)]
    found += [by_group(analysis, number) for number in range(len(analysis.breakdowns))]
    found += [seeds(analysis), expected(analysis)]
    return [table for table in found if table.rows]


def scores(analysis: Analysis, metrics: Sequence[str]) -> Table:
    """The means of each model; where these are the main metrics, also what is known of its cost."""
    main = metrics is MAIN
    costs = _costs(analysis.models) if main else {}
    rows = []
    for place, model in enumerate(analysis.models):
        cells = [Cell(model.name, model.name)]
        cells += [column[place] for column in costs.values()]
        cells += [_mean(analysis, model, metric) for metric in metrics]
        rows.append(cells)
    directions = [_heading(metric) for metric in metrics]
    caption = f"Means over the {len(analysis.utterances)} files of {analysis.data}."
    if not main:
        caption = "The other scale of the composite scores, and what they are made of."
    name = "Scores" if main else "Beside them"
    return Table(name, caption, ["system", *costs, *directions], rows)


def against_baseline(analysis: Analysis, metric: str = "pesq_wb") -> Table:
    """Differences of one metric to the baseline's, with what can be concluded from them."""
    rows = []
    show = METRICS[metric].show
    for model in analysis.models:
        comparison = analysis.comparisons.get(model.name, {}).get(metric)
        mean = analysis.means[model.name][metric]
        if model is analysis.baseline or comparison is None or mean is None:
            continue
        difference = comparison.difference
        rows.append([
            Cell(model.name, model.name),
            Cell(f"{show(mean.mean)} ({show(mean.low)} to {show(mean.high)})", mean.mean),
            Cell(_signed(metric, difference), difference.mean),
            Cell(_p(comparison.p), comparison.p),
            Cell(_p(comparison.p_holm), comparison.p_holm),
            Cell(f"{comparison.rank_biserial:+.2f}", comparison.rank_biserial),
            Cell(f"{comparison.wins} / {comparison.ties} / {comparison.losses}", comparison.wins),
            Cell(str(difference.count), difference.count),
        ])  # fmt: skip
    heading = METRICS[metric].heading
    caption = (
        f"{heading} file by file against {analysis.baseline.name}: Wilcoxon signed-rank test, p "
        f"by itself and corrected by Holm over the {len(rows)} systems of this table; effect: "
        f"rank-biserial correlation; a difference up to {METRICS[metric].tie:g} is a tie."
    )
    columns = [
        *("system", f"{heading} (95 %)", "difference (95 %)", "p", "p (Holm)", "effect"),
        *("better / tie / worse", "files"),
    ]
    return Table(f"Against {analysis.baseline.name}", caption, columns, rows)


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


def seeds(analysis: Analysis, metric: str = "pesq_wb") -> Table:
    """What differs between the runs of a model, apart from what differs between files."""
    rows = []
    for model in analysis.models:
        found = analysis.spreads[model.name][metric]
        if found.runs < 2 or found.over_runs is None or found.over_files is None:
            continue
        runs = sorted(model.systems, key=lambda system: system.facts["seed"])
        each = [mean_text(metric, Model(run.name, [run])) for run in runs]
        rows.append([
            Cell(model.name, model.name),
            Cell(", ".join(each)),
            Cell(f"{found.over_runs:.4f}", found.over_runs),
            Cell(f"{found.over_files:.4f}", found.over_files),
        ])  # fmt: skip
    caption = (
        "The intervals and tests above are about other files, not about other seeds: a difference "
        "that is not large against the deviation over seeds may be one of seeds."
    )
    columns = ["system", "each seed's mean", "deviation over seeds", "deviation over files"]
    return Table(f"Seeds, {METRICS[metric].heading}", caption, columns, rows)


def expected(analysis: Analysis) -> Table:
    """What was hoped for of each network, beside what was measured where that is the same thing."""
    rows = []
    for model in analysis.models:
        hoped = EXPECTED.get(model.facts.get("model", ""))
        if hoped is None:
            continue
        low, high = (f"{value:.2f}" for value in hoped)
        mean = analysis.means[model.name]["pesq_wb"]
        measured = "not measured"
        if analysis.whole_benchmark and mean is not None:
            measured = METRICS["pesq_wb"].show(mean.mean)
        rows.append([
            Cell(model.name, model.name),
            Cell(low if low == high else f"{low} to {high}", hoped[0]),
            Cell(measured, mean.mean if mean and analysis.whole_benchmark else None),
        ])  # fmt: skip
    caption = (
        "No results: what the networks were made in the hope of, after a whole training on "
        "VoiceBank-DEMAND, on its whole test set of 824 files."
    )
    return Table("Expected", caption, ["system", "hoped for", "measured on that set"], rows)


def mean_text(metric: str, model: Model) -> str:
    """A model's mean over the files that have a score, as shown in a table."""
    values = model.row_scores(metric)
    values = values[values == values]
    return METRICS[metric].show(float(values.mean())) if len(values) else NONE


def _mean(analysis: Analysis, model: Model, metric: str) -> Cell:
    cell = _interval(metric, analysis.means[model.name][metric], len(analysis.utterances))
    rivals = [
        mean.mean
        for other in analysis.enhancing
        if (mean := analysis.means[other.name][metric]) is not None
    ]
    best = (
        max(rivals, default=None) if METRICS[metric].higher_is_better else min(rivals, default=None)
    )
    comparison = analysis.comparisons.get(model.name, {}).get(metric)
    p = comparison.p_holm if comparison else None
    return Cell(
        cell.text,
        cell.sort,
        cell.detail,
        best=len(rivals) > 1 and model in analysis.enhancing and cell.sort == best,
        significant=p is not None and p < 0.05,
    )


def _interval(metric: str, mean: Interval | None, files: int) -> Cell:
    """A mean, its interval, and over how many files it is where these are not all."""
    if mean is None:
        return Cell(NONE)
    show = METRICS[metric].show
    detail = f"{show(mean.low)} – {show(mean.high)}"
    if mean.count < files:
        detail += f", {mean.count} files"
    return Cell(show(mean.mean), mean.mean, detail)


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


def _signed(metric: str, difference: Interval) -> str:
    digits = METRICS[metric].digits
    mean, low, high = (
        f"{value:+.{digits}f}" for value in (difference.mean, difference.low, difference.high)
    )
    return f"{mean} ({low} to {high})"


def _p(p: float | None) -> str:
    if p is None:
        return "too few"
    return f"< {_SMALLEST_P:.4f}" if p < _SMALLEST_P else f"{p:.4f}"
