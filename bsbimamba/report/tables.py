"""The tables of a comparison, as Markdown and LaTeX too, and the notes on what they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import pandas as pd

from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import MARKED_SEEDS, Interval, Spread, holm, seeds_needed
from bsbimamba.report.analysis import MEASURED, Analysis, Pair, System, versions
from bsbimamba.utils import some

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
_NOT_IN_LATEX = ["RTF", "memory (MB)", "steps", "training (h)"]
_SCORES = (
    "Means over the files of {data} that have the score, {files} unless said otherwise, with 95 % "
    "file intervals by a bootstrap. Bold: the best of a column, the noisy files aside. ±: standard "
    "deviation over seeds, whose lowest and highest mean are in brackets. ▲ and ▼: better and "
    "worse than {baseline}, Welch's t-test over seeds at 5 % after Holm's correction over the "
    f"whole table; nothing is marked without {MARKED_SEEDS} seeds on both sides."
)
_TESTS = (
    "File interval: a bootstrap over the files, for these weights alone. p over files: Wilcoxon "
    "signed-rank test, corrected by Holm over this table; r: its matched-pairs rank-biserial "
    f"correlation; a difference of up to {_PESQ.tie:g} is a tie. Seed interval, p over seeds: "
    "Welch's t-test on the seeds' means, corrected likewise. Seeds a side: with so many a t-test "
    f"at 5 % finds a true difference of {_SOUGHT:g} PESQ with a power of 80 %; from few seeds, a "
    "rough figure. Where a side has one seed, the difference may be chance of the training."
)
_NOTES = (
    "File intervals and tests over files are about more files like these. They do not cover other "
    "speakers or other seeds.",
    "CSIG, CBAK and COVL are on Loizou's scale; many papers give the float scale, which is about "
    "0.1 higher for noisy speech, up to 0.5 for enhanced speech, and stands beside. STOI is that "
    "of the script which VoiceBank-DEMAND is scored with.",
)
_CHOSEN = (
    "best.pt is chosen by PESQ on the held-out speakers, last.pt not at all; averaged weights; no "
    "PCS, no PESQ loss."
)
_TEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
    "↓": r"$\downarrow$", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
    "▲": r"$^{\uparrow}$", "▼": r"$^{\downarrow}$",
})  # fmt: skip
_some = partial(some, most=4)


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


def tables(analysis: Analysis) -> list[Table]:
    """Return all tables that there is something for, the main one first."""
    baseline = analysis.baseline.name
    question = "These answer the question of this project: both sides read time both ways."
    beside = "The composite scores of the other scale, and what they are made of."
    ours = {f"{x.other.name} − {x.reference.name}": x for x in analysis.primary}
    others = {x.other.name: x for x in analysis.comparisons}
    found = [
        _main(analysis),
        _differences("Primary comparisons", question, ours),
        _differences(f"Against {baseline}", f"Differences to {baseline}.", others),
        _scores(analysis, BESIDE, "The other scale, and parts", beside),
        *_by_group(analysis),
        _seeds(analysis),
    ]
    return [table for table in found if len(table.cells)]


def markdown(analysis: Analysis) -> str:
    """Return all tables, with notes."""
    parts = []
    for table in tables(analysis):
        parts += [f"**{table.name}**", _grid(_bold(table.cells, table.best, "**{}**"))]
        if table.name == "Scores":
            parts += ["**95 % file intervals**", _grid(table.below)]
        parts.append(table.caption)
    notes = [f"Warning: {text}" for text in analysis.warnings] + remarks(analysis)
    parts += ["**Notes**", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def latex(analysis: Analysis) -> str:
    """Return the main table, for `booktabs`; what it rests on stands below it, as comments."""
    table = _main(analysis)
    cells = table.cells.drop(columns=_NOT_IN_LATEX, errors="ignore").map(_tex)
    cells = _bold(cells, table.best, r"\textbf{{{}}}")
    below = table.below[table.below.ne("").any(axis=1)]
    below = below.map(lambda text: rf"{{\scriptsize {_tex(text)}}}" * bool(text))
    rows = []
    for name in cells.index:
        rows.append({"system": _tex(name)} | cells.loc[name].to_dict())
        rows += below.loc[[name]].to_dict("records") if name in below.index else []
    frame = pd.DataFrame(rows).fillna("").rename(columns=_tex)
    text = frame.to_latex(
        index=False,
        column_format="l" + "r" * (len(frame.columns) - 1),
        caption=_tex(f"{table.caption} CSIG, CBAK and COVL on Loizou's scale."),
    )
    warnings = [f"% Warning: {text}" for text in analysis.warnings]
    notes = [f"% {note}" for note in remarks(analysis)]
    return "\n".join([*warnings, r"% \usepackage{booktabs}", text.rstrip(), *notes]) + "\n"


def remarks(analysis: Analysis) -> list[str]:
    """Return what the scores rest on, in sentences: files, trainings, tests, scales, versions."""
    trained = [system for system in analysis.systems if system.facts]
    measured = dict.fromkeys(x.facts["measured_on"] for x in trained if "measured_on" in x.facts)
    return [
        *(line for system in analysis.systems for line in _files(analysis, system)),
        *(f"{system.name}: {_training(system.facts)}" for system in trained),
        *([_CHOSEN] if trained else []),
        *(f"RTF (seconds a second of audio) and memory: measured on {x}." for x in measured),
        *_NOTES,
        ", ".join(f"{name} {version}" for name, version in versions().items()) + ".",
    ]


def marks_of(analysis: Analysis, metrics: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return "▲", "▼" or "" by model and metric, wherever the seeds were tested.

    A mark is a difference to the baseline at 5 %, by the test over seeds after Holm's correction
    over all pairs of model and metric that have at least `MARKED_SEEDS` seeds a side.
    """
    tested = {
        (pair.other.name, metric): (found.difference.mean, found.over_seeds.p)
        for pair, metric in product(analysis.comparisons, metrics)
        if (found := pair.comparisons[metric])
        and found.over_seeds
        and min(found.over_seeds.seeds) >= MARKED_SEEDS
    }
    marks = {}
    ps = holm([p for _, p in tested.values()])
    for (place, (difference, _)), p in zip(tested.items(), ps, strict=True):
        better = (difference > 0) == METRICS[place[1]].higher_is_better
        marks[place] = "" if p >= 0.05 else "▲" if better else "▼"
    return marks


def _main(analysis: Analysis) -> Table:
    """Return the table of scores and of what is known of each network's cost."""
    caption = _SCORES.format(
        data=analysis.data, files=len(analysis.clean), baseline=analysis.baseline.name
    )
    table = _scores(analysis, MAIN, "Scores", caption)
    for heading, (fact, unit, form) in _COSTS.items():
        values = [model.fact(fact) / unit for model in analysis.models]
        if not all(map(math.isnan, values)):
            table.cells[heading] = ["" if math.isnan(x) else form.format(x) for x in values]
    return table


def _scores(analysis: Analysis, metrics: Sequence[str], name: str, caption: str) -> Table:
    """Return the means of each model with its intervals; the best are over the most files."""
    marks, files = marks_of(analysis, metrics), len(analysis.clean)
    cells = pd.DataFrame(index=[model.name for model in analysis.models])
    below, best = cells.copy(), []
    for metric in metrics:
        column = METRICS[metric].column
        found = [_mean(metric, x.means[metric], files, x.spreads[metric]) for x in analysis.models]
        cells[column], below[column] = zip(*found, strict=True)
        cells[column] += [f" {marks.get((model, metric), '')}".rstrip() for model in cells.index]
        means = {x.name: mean for x in analysis.enhancing if (mean := x.means[metric])}
        most = max((mean.count for mean in means.values()), default=0)
        compared = {x: mean.mean for x, mean in means.items() if mean.count == most}
        if len(compared) > 1:
            choose = max if METRICS[metric].higher_is_better else min
            best.append((choose(compared, key=compared.__getitem__), column))
    return Table(name, caption, cells, below, best)


def _by_group(analysis: Analysis) -> list[Table]:
    """Return PESQ by the groups of each breakdown."""
    found = []
    for x in analysis.breakdowns:
        columns = {
            f"{label} ({len(names)})": [
                _mean("pesq_wb", means[label], len(names))[0] for means in x.pesq_wb.values()
            ]
            for label, names in x.groups.items()
        }
        source = x.source if x.source == MEASURED else f"known from {x.source}"
        caption = f"{_PESQ.heading} by {x.axis}, {source} (number of files)."
        found.append(Table(f"By {x.axis}", caption, pd.DataFrame(columns, list(x.pesq_wb))))
    return found


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
            "r": f"{found.rank_biserial:+.2f}",
            "better / tie / worse": f"{found.wins} / {found.ties} / {found.losses}",
            "files": str(mean.count),
            "seeds": f"{pair.other.seeds or '–'} / {pair.reference.seeds or '–'}",
        }
        if seeds:
            rows[label] |= {
                "95 % seed interval": f"{_signed(seeds.low)} to {_signed(seeds.high)}",
                "p over seeds (Holm)": _p(seeds.p_holm),
                f"seeds a side for {_SOUGHT:g}": f"{seeds_needed(seeds.deviation, _SOUGHT):,}",
            }
    return Table(name, f"{caption} {_TESTS}", pd.DataFrame.from_dict(rows, "index").fillna(""))


def _seeds(analysis: Analysis) -> Table:
    """Return what differs between the runs of a model, apart from what differs between files."""
    rows = {
        model.name: {
            "each seed's mean": ", ".join(map(_PESQ.show, found.means)),
            "deviation over seeds": f"{found.over_runs:.4f}",
            "deviation over files": f"{found.over_files:.4f}",
        }
        for model in analysis.models
        if (found := model.spreads["pesq_wb"]).over_runs is not None
        and found.over_files is not None
    }
    caption = "A difference that is not large against the deviation over seeds may be chance."
    return Table(
        f"Seeds, {_PESQ.heading}", caption, pd.DataFrame.from_dict(rows, "index").fillna("")
    )


def _mean(
    metric: str, mean: Interval | None, files: int, spread: Spread | None = None
) -> tuple[str, str]:
    """Return a mean, with the number of its files where it is not of all, and its intervals."""
    if mean is None:
        return "none", ""
    show = METRICS[metric].show
    text, below = show(mean.mean), f"{show(mean.low)} – {show(mean.high)}" * mean.is_sound
    if spread and spread.over_runs is not None:
        text += f" ± {show(spread.over_runs)}"
        below += f" [{show(min(spread.means))} – {show(max(spread.means))}]"
    if mean.count < files:
        text += f" ({mean.count} file{'s' * (mean.count != 1)})"
    return text, below


def _signed(difference: float) -> str:
    return f"{difference:+z.{_PESQ.digits}f}"


def _p(p: float | None) -> str:
    return "too few" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _files(analysis: Analysis, system: System) -> list[str]:
    """Say which files lack a score, and which others have a note."""
    rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
    complete = rows[list(METRICS)].notna().all(axis=1)
    found = {
        f"of {len(rows)} files without all scores": list(rows.index[~complete]),
        "with a note": list(rows.index[complete & rows["note"].ne("")]),
    }
    return [
        f"{system.name}: {len(names)} {what} ({_some(names)}), see per_file.csv."
        for what, names in found.items()
        if names
    ]


def _training(facts: Mapping[str, Any]) -> str:
    """Return how, where and for how long a network was trained, as far as it is known."""
    changes = [f"{name} {value}" for name, value in facts["beside_recipe"].items()]
    text = (
        f"{facts['checkpoint']}, {facts['epochs']:.2f} epochs of batches of {facts['batch']}, "
        f"seed {facts['seed']}, recipe {' with '.join([facts['recipe'], *changes])}, "
        f"held out {_some(facts['held_out'])}"
    )
    if "sessions" in facts:
        text += (
            f"; {facts['hours']:.2f} hours on {_some(facts['devices'])}, starts: "
            f"{facts['sessions']}, torch {_some(facts['torch'])}, commit {_some(facts['commits'])}"
        )
    return f"{text}."


def _bold(cells: pd.DataFrame, best: Sequence[tuple[str, str]], form: str) -> pd.DataFrame:
    cells = cells.copy()
    for place in best:
        cells.loc[place] = form.format(cells.loc[place])
    return cells


def _grid(frame: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    rows = [["system", *frame.columns], *frame.reset_index().to_numpy().tolist()]
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * len(frame.columns), *lines[1:]])


def _tex(text: str) -> str:
    return text.translate(_TEX)
