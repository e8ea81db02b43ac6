"""The tables of a comparison as Markdown, LaTeX and HTML, and the notes on what they rest on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from bsbimamba.metrics.scores import COMPARED, HAS_DNSMOS, METRICS
from bsbimamba.metrics.statistics import MARKED_SEEDS, Interval, holm
from bsbimamba.report.analysis import VERSIONS, Analysis, Breakdown, Pair
from bsbimamba.utils import some

# What a paper's table has; then what stands beside it, to compare with tables of the other scale.
MAIN = (*COMPARED, *(name for name in METRICS if name.startswith("dnsmos")))
BESIDE = (
    "csig_float", "cbak_float", "covl_float", "wss_float", "wss", "llr", "stoi_pystoi", "snr",
)  # fmt: skip
_PESQ = METRICS["pesq_wb"]
_signed = f"{{:+z.{_PESQ.digits}f}}".format
# Of a network's use: which fact it is, in which unit, how it is written.
_COSTS = {
    "parameters (M)": ("parameters", 1e6, "{:.3f}"),
    "GMAC/s": ("macs_per_second", 1e9, "{:.2f}"),
    "RTF": ("real_time_factor", 1, "{:.3f}"),
    "steps": ("step", 1, "{:,.0f}"),
    "training (h)": ("hours", 1, "{:.2f}"),
}
# Facts of a training that its note gives, as far as they are known.
_TOLD = (
    "checkpoint", "epochs", "batch", "seed", "recipe", "beside_recipe", "held_out",
    "hours", "devices", "sessions", "torch", "commits", "measured_on",
)  # fmt: skip
_SCORES = (
    "Means over the files of {data}, {files} unless said otherwise, with 95 % file intervals "
    "(bootstrap). Bold: the best, the noisy files aside. ±: deviation over seeds, whose lowest and "
    "highest mean are in brackets. ▲ ▼: better and worse than {baseline} by Welch's t-test over "
    f"seeds at 5 %, Holm-corrected over the table; none without {MARKED_SEEDS} seeds a side. CSIG, "
    "CBAK, COVL: Loizou's scale."
)
_TESTS = (
    "Over files, for these weights alone: bootstrap interval, Wilcoxon signed-rank test; up to "
    f"{_PESQ.tie:g} is a tie. Over seeds: Welch's t-test. Both Holm-corrected over this table. "
    "Where a side has one seed, a difference may be chance of the training."
)
_BESIDE = "The composite scores of the other scale, and what they are made of."
_CHOSEN = "Averaged weights, no PCS, no PESQ loss. PESQ on held-out speakers chooses a best.pt."
_NOTES = (
    "File intervals and tests do not cover other speakers or other seeds.",
    "Many papers give CSIG, CBAK and COVL on the float scale: about 0.1 higher for noisy speech, "
    "up to 0.5 for enhanced. STOI is that of VoiceBank-DEMAND's usual script.",
    *["DNSMOS is not installed: pip install 'bs-bimamba[dnsmos]'."] * (not HAS_DNSMOS),
)
# What texts are escaped by.
_MARKDOWN = str.maketrans({"|": r"\|"})
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_TEX = str.maketrans({
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "–": "--", "±": r"$\pm$", "↓": r"$\downarrow$",
    "▲": r"$^{\uparrow}$", "▼": r"$^{\downarrow}$",
})  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts: `cells` by system and heading.

    below: of the same shape or empty, what stands below each cell. best: cells that are bold.
    """

    name: str
    caption: str
    cells: pd.DataFrame
    below: pd.DataFrame = field(default_factory=pd.DataFrame)
    best: Sequence[tuple[str, str]] = ()

    def shown(self, signs: dict[int, str], bold: str, below: str = "") -> pd.DataFrame:
        """Return all escaped; the best cells in the form `bold`, what is below in `below`."""
        cells = self.cells.map(lambda text: text.translate(signs))
        for place in self.best:
            cells.loc[place] = bold.format(cells.loc[place])
        for heading in self.below if below else ():
            cells[heading] += [below.format(x.translate(signs)) for x in self.below[heading]]
        names, headings = ([x.translate(signs) for x in axis] for axis in cells.axes)
        return cells.set_axis(names).set_axis(headings, axis=1)


def tables(analysis: Analysis) -> list[Table]:
    """Return all tables that there is something for, the scores and costs first."""
    baseline = analysis.baseline.name
    caption = _SCORES.format(data=analysis.data, files=len(analysis.clean), baseline=baseline)
    scores = _scores(analysis, MAIN, "Scores", caption)
    for heading, (fact, unit, form) in _COSTS.items():
        values = [model.fact(fact) / unit for model in analysis.models]
        if not all(map(math.isnan, values)):
            scores.cells[heading] = ["" if math.isnan(x) else form.format(x) for x in values]
    ours = {f"{x.other.name} − {x.reference.name}": x for x in analysis.primary}
    others = {x.other.name: x for x in analysis.comparisons}
    found = [
        scores,
        _differences("Primary comparisons", "Both sides read time both ways.", ours),
        _differences(f"Against {baseline}", f"Differences to {baseline}.", others),
        _scores(analysis, BESIDE, "The other scale, and parts", _BESIDE),
        *map(_by_group, analysis.breakdowns),
    ]
    return [table for table in found if len(table.cells)]


def markdown(analysis: Analysis) -> str:
    """Return all tables, with notes."""
    parts = []
    for table in tables(analysis):
        shown = {table.name: table.shown(_MARKDOWN, "**{}**")}
        if table.name == "Scores":
            shown["95 % file intervals"] = table.below.set_axis(shown["Scores"].index)
        for name, cells in shown.items():
            rows = [["system", *cells.columns], ["---", *["---:"] * len(cells.columns)]]
            rows += cells.reset_index().to_numpy().tolist()
            parts += [f"**{name}**", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
        parts.append(table.caption)
    notes = [f"Warning: {text}" for text in analysis.warnings] + remarks(analysis)
    return "\n\n".join([*parts, "**Notes**", "\n".join(f"- {note}" for note in notes)]) + "\n"


def latex(analysis: Analysis) -> str:
    """Return the main table, for `booktabs`; what it rests on stands around it, as comments."""
    table = tables(analysis)[0]
    cells = table.shown(_TEX, r"\textbf{{{}}}", r" \\ \scriptsize {}")
    cells = cells.drop(columns=[*_COSTS][2:], errors="ignore")
    cells = cells.map(lambda text: rf"\shortstack[r]{{{text}}}" if r"\\" in text else text)
    text = cells.rename_axis(columns="system").to_latex(
        column_format="l" + "r" * len(cells.columns), caption=table.caption.translate(_TEX)
    )
    warnings = [f"% Warning: {text}" for text in analysis.warnings]
    notes = [f"% {note}" for note in remarks(analysis)]
    return "\n".join([*warnings, r"% \usepackage{booktabs}", text.rstrip(), *notes]) + "\n"


def html(table: Table, first: str = "system") -> str:
    """Return a table for the page, with buttons as headings; `first` is that of the names."""
    cells = table.shown(_HTML, "<b>{}</b>", " <small>{}</small>")
    cells = cells.rename(columns="<button>{}</button>".format)
    cells = cells.rename_axis(columns=f"<button>{first}</button>")
    with pd.option_context("display.max_colwidth", None):  # else long names are cut
        return cells.to_html(escape=False, border=0)


def remarks(analysis: Analysis) -> list[str]:
    """Return what the scores rest on: files, trainings, scales, versions."""
    rows = analysis.rows
    rows = rows[rows[list(METRICS)].isna().any(axis=1) | (rows["note"] != "")]
    notes = [
        f"{name}: {len(x)} with a note or without a score ({some(list(x), 4)}), see per_file.csv."
        for name, x in rows.groupby("system", sort=False)["utterance"]
    ]
    trained = [system for system in analysis.systems if system.facts]
    for system in trained:
        facts = {x.replace("_", " "): system.facts[x] for x in _TOLD if x in system.facts}
        notes.append(f"{system.name}: {'; '.join(f'{x}: {_told(y)}' for x, y in facts.items())}.")
    notes += [_CHOSEN] if trained else []
    return [*notes, *_NOTES, ", ".join(f"{x} {y}" for x, y in VERSIONS.items()) + "."]


def _told(fact: Any) -> str:
    """Return a fact in a few words."""
    if isinstance(fact, dict):
        fact = [f"{name} {value}" for name, value in fact.items()] or ["nothing"]
    if isinstance(fact, list):
        return some([str(x) for x in fact], 4)
    return f"{fact:.2f}" if isinstance(fact, float) else str(fact)


def marks_of(analysis: Analysis, metrics: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return "▲" or "▼" by model and metric where the seeds differ from the baseline's.

    That is at 5 %, by the test over seeds after Holm's correction over all pairs of model and
    metric that have at least `MARKED_SEEDS` seeds a side.
    """
    tested = {
        (pair.other.name, metric): (found.difference.mean, found.over_seeds.p)
        for pair, metric in product(analysis.comparisons, metrics)
        if (found := pair.comparisons[metric])
        and found.over_seeds
        and min(found.over_seeds.seeds) >= MARKED_SEEDS
    }
    ps = holm([p for _, p in tested.values()])
    return {
        place: "▲" if (difference > 0) == METRICS[place[1]].higher_is_better else "▼"
        for (place, (difference, _)), p in zip(tested.items(), ps, strict=True)
        if p < 0.05
    }


def _scores(analysis: Analysis, metrics: Sequence[str], name: str, caption: str) -> Table:
    """Return the means of each model with its intervals; the best are over the most files."""
    marks, files, models = marks_of(analysis, metrics), len(analysis.clean), analysis.models
    cells = pd.DataFrame(index=[model.name for model in models])
    below, best = cells.copy(), []
    for metric in metrics:
        column = METRICS[metric].heading
        found = [_mean(metric, x.means[metric], files, x.run_means[metric]) for x in models]
        cells[column], below[column] = zip(*found, strict=True)
        cells[column] += [f" {marks.get((model, metric), '')}".rstrip() for model in cells.index]
        means = {x.name: mean for x in analysis.enhancing if (mean := x.means[metric])}
        most = max((mean.count for mean in means.values()), default=0)
        compared = {x: mean.mean for x, mean in means.items() if mean.count == most}
        if len(compared) > 1:
            choose = max if METRICS[metric].higher_is_better else min
            best.append((choose(compared, key=compared.__getitem__), column))
    return Table(name, caption, cells, below, best)


def _by_group(breakdown: Breakdown) -> Table:
    """Return PESQ by the groups of a breakdown."""
    axis, source, means = breakdown.axis, breakdown.source, breakdown.pesq_wb
    cells = {
        f"{label} ({len(names)})": [
            _mean("pesq_wb", x[label], len(names))[0] for x in means.values()
        ]
        for label, names in breakdown.groups.items()
    }
    caption = f"{_PESQ.heading} by {axis} (number of files), known from: {source}."
    return Table(f"By {axis}", caption, pd.DataFrame(cells, list(means)))


def _differences(name: str, caption: str, pairs: Mapping[str, Pair]) -> Table:
    """Return the differences of PESQ with their intervals and tests."""
    rows = {}
    for label, pair in pairs.items():
        found = pair.comparisons["pesq_wb"]
        if found is None:
            continue
        mean, seeds = found.difference, found.over_seeds
        interval = f" ({_signed(mean.low)} to {_signed(mean.high)})" if mean.is_sound else ""
        rows[label] = {
            f"{_PESQ.heading}, difference (95 % file interval)": _signed(mean.mean) + interval,
            "p over files (Holm)": _p(found.p_holm),
            "better / tie / worse": f"{found.wins} / {found.ties} / {found.losses}",
            "files": str(mean.count),
            "seeds": f"{pair.other.seeds or '–'} / {pair.reference.seeds or '–'}",
        }
        if seeds:
            rows[label] |= {
                "95 % seed interval": f"{_signed(seeds.low)} to {_signed(seeds.high)}",
                "p over seeds (Holm)": _p(seeds.p_holm),
            }
    return Table(name, f"{caption} {_TESTS}", pd.DataFrame.from_dict(rows, "index").fillna(""))


def _mean(
    metric: str, mean: Interval | None, files: int, run_means: Sequence[float] = ()
) -> tuple[str, str]:
    """Return a mean, with the number of its files where it is not of all, and its intervals."""
    if mean is None:
        return "none", ""
    show = METRICS[metric].show
    text, below = show(mean.mean), f"{show(mean.low)} – {show(mean.high)}" * mean.is_sound
    if len(run_means) > 1:
        text += f" ± {show(float(np.std(run_means, ddof=1)))}"
        below += f" [{show(min(run_means))} – {show(max(run_means))}]"
    if mean.count < files:
        text += f" ({mean.count} file{'s' * (mean.count != 1)})"
    return text, below


def _p(p: float | None) -> str:
    return "too few" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
