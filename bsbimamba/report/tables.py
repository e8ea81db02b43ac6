"""The tables of a comparison, as Markdown and LaTeX too, and the notes on what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd

from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import MARKED_SEEDS, Interval, Spread, seeds_needed
from bsbimamba.report.analysis import Analysis, Pair, System, marks_of, reasons_apart, versions
from bsbimamba.report.conditions import MEASURED, Breakdown
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
    "deviation over seeds, whose lowest and highest mean are in brackets. {marks}"
)
_MARKED = (
    "▲ and ▼: better and worse than {baseline}, Welch's t-test over seeds at 5 % after Holm's "
    f"correction over the whole table, where both have at least {MARKED_SEEDS} seeds."
)
_UNMARKED = (
    f"No differences are marked: that takes at least {MARKED_SEEDS} seeds of {{baseline}} and of "
    "another model."
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
    ours = {f"{x.other.name} − {x.reference.name}": x for x in analysis.primary}
    question = "These answer the question of this project: both sides read time both ways."
    found = [
        scores(analysis, MAIN),
        _differences("Primary comparisons", question, ours),
        _differences(
            f"Against {baseline}",
            f"Differences to {baseline}.",
            {x.other.name: x for x in analysis.comparisons},
        ),
        scores(analysis, BESIDE),
        *(_by_group(analysis, breakdown, means) for breakdown, means in analysis.breakdowns),
        _seeds(analysis),
    ]
    return [table for table in found if len(table.cells)]


def scores(analysis: Analysis, metrics: Sequence[str]) -> Table:
    """Return the means of each model; beside the main metrics also what is known of its cost."""
    main, files = metrics is MAIN, len(analysis.clean)
    marks = marks_of(analysis, metrics)
    cells, below = [], []
    for model in analysis.models:
        texts, small = {"system": model.name}, {"system": model.name}
        for name in metrics:
            text, interval = _mean(name, model.means[name], files, model.spreads[name])
            texts[METRICS[name].column] = f"{text} {marks.get((model.name, name), '')}".rstrip()
            small[METRICS[name].column] = interval
        for heading, (fact, unit, form) in _COSTS.items():
            if main and (value := model.facts.get(fact)) is not None:
                texts[heading] = form.format(value / unit)
        cells.append(texts)
        below.append(small)
    best = [place for name in metrics for place in _best(analysis, name)]
    if main:
        marked = (_MARKED if marks else _UNMARKED).format(baseline=analysis.baseline.name)
        title, caption = "Scores", _SCORES.format(data=analysis.data, files=files, marks=marked)
    else:
        title = "The other scale, and parts"
        caption = "The composite scores of the other scale, and what they are made of."
    return Table(title, caption, _frame(cells), _frame(below), best)


def markdown(analysis: Analysis) -> str:
    """Return all tables, with notes."""
    parts = []
    for table in tables(analysis):
        parts += [f"**{_line(table.name)}**", _grid(_bold(table.cells, table.best, "**{}**"))]
        if table.name == "Scores":
            parts += ["**95 % file intervals**", _grid(table.below)]
        parts.append(_line(table.caption))
    notes = [f"Warning: {text}" for text in analysis.warnings] + remarks(analysis)
    parts += ["**Notes**", "\n".join(f"- {_line(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def latex(analysis: Analysis) -> str:
    """Return the main table, for `booktabs`; what it rests on stands below it, as comments."""
    table = scores(analysis, MAIN)
    cells = table.cells.drop(columns=_NOT_IN_LATEX, errors="ignore").map(_tex)
    cells = _bold(cells, table.best, r"\textbf{{{}}}").reset_index()
    below = table.below.map(lambda text: rf"{{\scriptsize {_tex(text)}}}" * bool(text))
    below = below.reset_index(drop=True)[below.ne("").any(axis=1).to_numpy()]
    frame = pd.concat([cells, below]).sort_index(kind="stable").fillna("")
    frame["system"] = frame["system"].map(_tex)
    text = frame.rename(columns=_tex).to_latex(
        index=False,
        column_format="l" + "r" * (len(frame.columns) - 1),
        caption=_tex(f"{table.caption} CSIG, CBAK and COVL on Loizou's scale."),
    )
    warnings = [f"% Warning: {_line(text)}" for text in analysis.warnings]
    notes = [f"% {_line(note)}" for note in remarks(analysis)]
    return "\n".join([*warnings, r"% \usepackage{booktabs}", text.rstrip(), *notes]) + "\n"


def remarks(analysis: Analysis) -> list[str]:
    """Return what the scores rest on, in sentences: files, trainings, tests, scales, versions."""
    trained = [system for system in analysis.systems if system.facts]
    measured = dict.fromkeys(x.facts["measured_on"] for x in trained if "measured_on" in x.facts)
    return [
        *(line for system in analysis.systems for line in _files(analysis, system)),
        *reasons_apart(trained),
        *(f"{system.name}: {_training(system.facts)}" for system in trained),
        *([_CHOSEN] if trained else []),
        *(f"RTF (seconds a second of audio) and memory: measured on {x}." for x in measured),
        *_NOTES,
        ", ".join(f"{name} {version}" for name, version in versions().items()) + ".",
    ]


def _by_group(
    analysis: Analysis, breakdown: Breakdown, means: Mapping[str, Mapping[str, Interval | None]]
) -> Table:
    """Return PESQ by the groups of a breakdown."""
    cells = [
        {"system": model.name}
        | {
            f"{label} ({len(names)})": _mean("pesq_wb", means[model.name][label], len(names))[0]
            for label, names in breakdown.groups.items()
        }
        for model in analysis.models
    ]
    source = breakdown.source if breakdown.source == MEASURED else f"known from {breakdown.source}"
    caption = f"{_PESQ.heading} by {breakdown.axis}, {source} (number of files)."
    return Table(f"By {breakdown.axis}", caption, _frame(cells))


def _differences(name: str, caption: str, pairs: Mapping[str, Pair]) -> Table:
    """Return the differences of PESQ with their intervals and tests."""
    rows = []
    for label, pair in pairs.items():
        found = pair.comparisons["pesq_wb"]
        if found is None:
            continue
        mean, seeds = found.difference, found.over_seeds
        interval = f" ({_signed(mean.low)} to {_signed(mean.high)})" if mean.is_sound else ""
        row = {
            "system": label,
            f"{_PESQ.heading}, difference (95 % file interval)": _signed(mean.mean) + interval,
            "p over files (Holm)": _p(found.p_holm),
            "r": f"{found.rank_biserial:+.2f}",
            "better / tie / worse": f"{found.wins} / {found.ties} / {found.losses}",
            "files": str(mean.count),
            "seeds": f"{pair.other.seeds or '–'} / {pair.reference.seeds or '–'}",
        }
        if seeds:
            row |= {
                "95 % seed interval": f"{_signed(seeds.low)} to {_signed(seeds.high)}",
                "p over seeds (Holm)": _p(seeds.p_holm),
                f"seeds a side for {_SOUGHT:g}": f"{seeds_needed(seeds.deviation, _SOUGHT):,}",
            }
        rows.append(row)
    return Table(name, f"{caption} {_TESTS}", _frame(rows))


def _seeds(analysis: Analysis) -> Table:
    """Return what differs between the runs of a model, apart from what differs between files."""
    rows = []
    for model in analysis.models:
        found = model.spreads["pesq_wb"]
        if found.over_runs is not None and found.over_files is not None:
            rows.append({
                "system": model.name,
                "each seed's mean": ", ".join(map(_PESQ.show, found.means)),
                "deviation over seeds": f"{found.over_runs:.4f}",
                "deviation over files": f"{found.over_files:.4f}",
            })  # fmt: skip
    caption = "A difference that is not large against the deviation over seeds may be chance."
    return Table(f"Seeds, {_PESQ.heading}", caption, _frame(rows))


def _frame(rows: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Return rows of texts as a frame by system; what a row lacks is empty."""
    return pd.DataFrame(rows).fillna("").set_index("system") if rows else pd.DataFrame()


def _best(analysis: Analysis, metric: str) -> list[tuple[str, str]]:
    """Return the best cell of those over the most files: others may have easier ones."""
    means = {x.name: mean for x in analysis.enhancing if (mean := x.means[metric])}
    most = max((mean.count for mean in means.values()), default=0)
    found = {name: mean.mean for name, mean in means.items() if mean.count == most}
    if len(found) < 2:
        return []
    choose = max if METRICS[metric].higher_is_better else min
    return [(choose(found, key=lambda name: found[name]), METRICS[metric].column)]


def _mean(metric: str, mean: Interval | None, files: int, spread: Spread | None = None) -> Any:
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
    text = f"{difference:+.{_PESQ.digits}f}"
    return text.replace("-", "+") if not float(text) else text  # there is no -0.000


def _p(p: float | None) -> str:
    if p is None:
        return "too few"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _files(analysis: Analysis, system: System) -> list[str]:
    """Say which files lack a score, and which others have a note."""
    rows = analysis.rows[analysis.rows["system"] == system.name].set_index("utterance")
    complete = rows[list(METRICS)].notna().all(axis=1)
    lacking = list(rows.index[~complete])
    noted = rows["note"][complete & (rows["note"] != "")]
    lines = []
    if lacking:
        of = f"{len(lacking)} of {len(rows)} files without all scores"
        lines.append(f"{system.name}: {of} ({_some(lacking)}), for reasons in per_file.csv.")
    if len(noted):
        files, note = _some(list(noted.index)), noted.iloc[0]
        lines.append(f"{system.name}: {len(noted)} with a note in per_file.csv ({files}): {note}.")
    return lines


def _training(facts: Mapping[str, Any]) -> str:
    """Return how, where and for how long a network was trained, as far as it is known."""
    changes = [f"{name} {value}" for name, value in facts["beside_recipe"].items()]
    text = (
        f"{facts['checkpoint']}, {facts['epochs']:.2f} epochs of batches of {facts['batch']}, "
        f"seed {facts['seed']}, recipe {' with '.join([facts['recipe'], *changes])}, "
        f"held out {_some(facts['held_out'])}"
    )
    if "sessions" in facts:
        spent = f"{facts['hours']:.2f} hours" if "hours" in facts else "hours not known"
        text += (
            f"; {spent} on {_some(facts['devices'])}, starts: {facts['sessions']}, torch "
            f"{_some(facts['torch'])}, commit {_some(facts['commits'])}"
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
    lines = [
        "| " + " | ".join(_line(text).replace("|", r"\|") for text in row) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|---|" + "---:|" * len(frame.columns), *lines[1:]])


def _line(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def _tex(text: str) -> str:
    return _line(text).translate(_TEX)
