"""Compare models over seeds in pairs that evaluate.py does not compare, from its scores.

    python results/open_mix/questions.py DIR        # with evaluate.py's per_file.csv

Writes DIR/questions.md: differences of means with 95 % intervals over seeds, and p by Welch's
test, corrected over the questions of each metric (Holm).
"""

import sys
from pathlib import Path

import pandas as pd

from bsbimamba.metrics.scores import METRICS
from bsbimamba.metrics.statistics import compare, set_holm
from bsbimamba.report.tables import MAIN

# (other, reference), as runs are called before the number of their seed.
QUESTIONS = {
    "Mamba instead of LSTMs, one layer instead of four": ("abl3", "bsrnn_bi"),
    "Mamba instead of LSTMs, the same depth": ("abl2", "lstm_dualpath"),
    "decoder widths that follow the bands": ("abl3", "uniform31"),
    "the backward direction of time, in BSRNN": ("bsrnn_bi", "bsrnn"),
    "paths across the bands": ("abl2", "abl1"),
}

folder = Path(sys.argv[1])
scores = pd.read_csv(folder / "per_file.csv")
scores["model"] = scores["system"].str.rpartition("-")[0]
rows = [
    [
        "metric",
        *(f"{text}: {other} − {reference}" for text, (other, reference) in QUESTIONS.items()),
    ],
    ["---", *["---:"] * len(QUESTIONS)],
]
for name in MAIN:
    table = scores.pivot(index=["model", "system"], columns="utterance", values=name)
    found = [
        compare(table.loc[reference].to_numpy(), table.loc[other].to_numpy())
        for other, reference in QUESTIONS.values()
    ]
    set_holm([each.over_seeds for each in found])
    form = f"+z.{METRICS[name].digits}f"
    rows.append([METRICS[name].heading])
    for difference, seeds in ((each.difference.mean, each.over_seeds) for each in found):
        numbers = [format(x, form) for x in (difference, seeds.low, seeds.high)]
        rows[-1].append("{} ({} to {}), p {:.2g}".format(*numbers, seeds.p_holm))
text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
(folder / "questions.md").write_text(text, "utf-8")
