"""Compare models over seeds in pairs that evaluate.py does not compare, from its scores.

    python -m results.open_mix.questions DIR        # at the top of the repository

Reads DIR/per_file.csv, which evaluate.py writes, and DIR/validation.jsonl, the lines with
validations of every metrics.jsonl, each with its run. Writes DIR/questions.md: differences of means
with 95 % intervals over seeds, and p by Welch's test. p is corrected (Holm) over the questions of
a metric, not over metrics.
"""

from argparse import ArgumentParser
from pathlib import Path

import pandas as pd

from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import compare, set_holm
from bsbimamba.report.tables import MAIN

# (other, reference), as runs are called before the number of their seed.
QUESTIONS = {
    "Mamba in one layer, LSTMs in four": ("abl3", "bsrnn_bi"),
    "Mamba instead of LSTMs, the same layout": ("abl2", "lstm_dualpath"),
    "LSTMs in one wide layer, in four narrow ones": ("lstm_dualpath", "bsrnn_bi"),
    "decoder widths that follow the bands": ("abl3", "uniform31"),
    "the backward direction of time, in BSRNN": ("bsrnn_bi", "bsrnn"),
    "paths across the bands": ("abl2", "abl1"),
}


def answers(scores: pd.DataFrame, metric: str) -> list[str]:
    """Return a cell for each question; `scores` have a row for each system and utterance."""
    model = scores["system"].str.rpartition("-")[0]
    runs = {
        name: rows.pivot(index="system", columns="utterance", values=metric).to_numpy()
        for name, rows in scores.groupby(model)
    }
    found = [compare(runs[reference], runs[other]) for other, reference in QUESTIONS.values()]
    set_holm([each.over_seeds for each in found])
    form = f"{{:+.{max(METRICS[metric].digits, 3)}f}}".format  # differences are small
    return [
        f"{form(x.difference.mean)} ({form(x.over_seeds.low)} to {form(x.over_seeds.high)}), "
        f"p {x.over_seeds.p_holm:.2g}"
        for x in found
    ]


parser = ArgumentParser(description="Compare models over seeds.")
parser.add_argument("folder", type=Path, help="with per_file.csv and validation.jsonl")
folder = parser.parse_args().folder
valid = pd.read_json(folder / "validation.jsonl", lines=True).drop_duplicates("run", keep="last")
# A validation's mean takes the place of a file.
valid = pd.DataFrame(valid["valid"].to_list()).assign(system=[*valid["run"]], utterance="all")
test = pd.read_csv(folder / "per_file.csv")
table = [
    [
        "metric",
        *(f"{text}: {other} − {reference}" for text, (other, reference) in QUESTIONS.items()),
    ],
    ["---", *["---:"] * len(QUESTIONS)],
]
for metric in ("pesq_wb", "stoi"):
    table.append([f"validation, {METRICS[metric].heading}", *answers(valid, metric)])
for metric in MAIN:
    table.append([METRICS[metric].heading, *answers(test, metric)])
text = "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"
(folder / "questions.md").write_text(text, "utf-8")
