"""The tables: what stands in them, marks, notes, Markdown and LaTeX."""

from __future__ import annotations

import re

import pytest
from systems import analysed, numbered, system, trained

from bsbimamba.report.analysis import Analysis, marks_of
from bsbimamba.report.tables import (
    BESIDE,
    MAIN,
    Table,
    latex,
    markdown,
    remarks,
    scores,
    tables,
)

NOISY = system("noisy", {"a": 1.0, "b": 2.0, "c": 3.0})
PARTLY = system("run", {"a": 1.5, "b": None, "c": 3.5}, seed=3)
NOTHING = system("broken", dict.fromkeys("abc"))
DIFFERENCE = "PESQ-WB, difference (95 % file interval)"


def by_name(analysis: Analysis) -> dict[str, Table]:
    return {table.name: table for table in tables(analysis)}


def test_main_table_has_means_and_costs():
    table = tables(analysed(NOISY, PARTLY, NOTHING))[0]
    noisy, run, broken = (table.cells.loc[name] for name in ("noisy", "run", "broken"))
    assert (noisy["PESQ-WB"], noisy["parameters (M)"]) == ("2.000", "")
    assert run["PESQ-WB"] == "2.500 (2 files)"
    costs = ["parameters (M)", "GMAC/s", "RTF", "memory (MB)", "steps"]
    assert list(run[costs]) == ["2.012", "6.25", "0.312", "123", "12,000"]
    assert broken["PESQ-WB"] == "none"
    assert "training (h)" not in noisy
    assert "3 unless said otherwise" in table.caption


def test_intervals_stand_below_means_of_enough_files():
    below = scores(analysed(numbered("noisy", 0)), MAIN).below
    assert re.fullmatch(r"\d\.\d{3} – \d\.\d{3}", below.loc["noisy", "PESQ-WB"])
    assert scores(analysed(NOISY), MAIN).below.loc["noisy", "PESQ-WB"] == ""


def test_best_is_over_the_most_files_without_the_noisy():
    analysis = analysed(
        system("noisy", {"a": 4.0, "b": 4.0}),
        system("easy", {"a": 3.0, "b": None}),
        system("one", {"a": 2.0, "b": 2.0}),
        system("two", {"a": 1.0, "b": 1.0}),
    )
    assert ("one", "PESQ-WB") in scores(analysis, MAIN).best
    assert {name for name, _ in scores(analysis, MAIN).best} == {"one"}
    assert ("two", "WSS ↓") in scores(analysis, BESIDE).best  # lower is better


@pytest.mark.parametrize("ours", [2, 3])
@pytest.mark.parametrize("theirs", [2, 3])
def test_marks_need_three_seeds_a_side(ours: int, theirs: int):
    gains = [0.0, 0.01, 0.02]
    analysis = analysed(
        *trained("bsrnn", *gains[:theirs]), *trained("abl3", *(0.5 + x for x in gains[:ours]))
    )
    marked = ours == theirs == 3
    assert set(marks_of(analysis, MAIN).values()) == ({"▲"} if marked else set())
    assert marked != ("No differences are marked" in markdown(analysis))


def test_marks_follow_the_metrics_direction_and_are_corrected_over_the_table():
    better = analysed(*trained("bsrnn", 0.0, 0.01, 0.02), *trained("abl3", 0.5, 0.51, 0.52))
    found = marks_of(better, BESIDE)
    name = "abl3 (3 seeds)"
    assert (found[name, "wss"], found[name, "snr"]) == ("▼", "▲")
    close = analysed(*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5))
    assert 0.05 / 8 < close.comparisons[0].comparisons["pesq_wb"].over_seeds.p < 0.05
    assert set(marks_of(close, MAIN).values()) == {""}


def test_differences_are_tested_over_files_and_over_seeds():
    analysis = analysed(*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5))
    row = by_name(analysis)["Against bsrnn (3 seeds)"].cells.loc["uniform31 (3 seeds)"]
    assert row[DIFFERENCE].startswith("+0.300")
    assert row["seeds"] == "3 / 3"
    assert row["95 % seed interval"] == "+0.073 to +0.527"
    assert row["p over seeds (Holm)"] == "0.0213"
    assert row["seeds a side for 0.05"] == "64"
    assert row["better / tie / worse"] == "30 / 0 / 0"


def test_differences_of_few_files_and_one_seed():
    row = by_name(analysed(NOISY, PARTLY))["Against noisy"].cells.loc["run"]
    assert row[DIFFERENCE] == "+0.500"
    assert row["p over files (Holm)"] == "too few"
    assert row["seeds"] == "1 / –"
    assert "95 % seed interval" not in row


def test_primary_comparisons_come_first():
    systems = [*trained("bsrnn_bi", 0.0, 0.1), *trained("abl3", 0.3, 0.4)]
    systems += [*trained("abl2", 0.2), *trained("lstm_dualpath", 0.0), *trained("bsrnn", 0.0)]
    found = tables(analysed(*systems))
    assert [x.name for x in found[:3]] == ["Scores", "Primary comparisons", "Against bsrnn-0"]
    assert list(found[1].cells["seeds"]) == ["2 / 2", "1 / 1"]
    assert list(found[1].cells.index) == [
        "abl3 (2 seeds) − bsrnn_bi (2 seeds)", "abl2-0 − lstm_dualpath-0",
    ]  # fmt: skip
    assert "Primary comparisons" not in by_name(analysed(*systems[:2]))


def test_spread_over_seeds_stands_with_means_and_in_its_table():
    analysis = analysed(*trained("abl3", 0.2, 0.1, 0.3))
    table = scores(analysis, MAIN)
    means = [run.mean() for run in analysis.models[0].scores["pesq_wb"]]
    assert table.cells["PESQ-WB"].iloc[0].endswith(" ± 0.100")
    assert table.below["PESQ-WB"].iloc[0].endswith(f"[{min(means):.3f} – {max(means):.3f}]")
    row = by_name(analysis)["Seeds, PESQ-WB"].cells.iloc[0]
    assert row["each seed's mean"] == ", ".join(f"{mean:.3f}" for mean in means)
    assert row["deviation over seeds"] == "0.1000"


def test_groups_have_a_column_each():
    table = by_name(analysed(system("noisy", {"p230_001": 1.0, "p231_001": 2.0})))["By speaker"]
    assert table.cells.loc["noisy"].to_dict() == {"p230 (1)": "1.000", "p231 (1)": "2.000"}
    assert table.caption == "PESQ-WB by speaker, known from the files' names (number of files)."


def test_markdown_and_latex_show_the_same():
    systems = [*trained("bsrnn", 0.0, 0.01, 0.02), *trained("abl3", 0.5, 0.51, 0.52)]
    analysis = analysed(numbered("noisy", 0), *systems)
    text, tex = markdown(analysis), latex(analysis)
    assert re.match(r"\| abl3 \(3 seeds\) \| \*\*2\.\d+ ± 0\.010 ▲\*\* \|", text.splitlines()[6])
    assert re.search(
        r"abl3 \(3 seeds\) & \\textbf\{2\.\d+ \$\\pm\$ 0\.010 \$\^\{\\uparrow\}\$\} &", tex
    )
    assert "**95 % file intervals**" in text
    columns = {line.count(" & ") for line in tex.splitlines() if line.endswith(r"\\")}
    assert columns == {10}  # eight metrics, parameters, GMAC/s
    assert "RTF" not in tex.partition(r"\end{table}")[0]


def test_warnings_stand_in_markdown_and_latex():
    names = [f"p232_{n:03}" for n in range(393)] + [f"p257_{n:03}" for n in range(431)]
    analysis = analysed(system("noisy", dict.fromkeys(names, 2.6)))
    assert "\n- Warning: The noisy files are those of VoiceBank-DEMAND" in markdown(analysis)
    assert latex(analysis).startswith("% Warning: The noisy files")


def test_notes_say_what_a_table_rests_on():
    notes = remarks(analysed(NOISY, PARTLY, NOTHING))
    assert "run: 1 of 3 files without all scores (b), for reasons in per_file.csv." in notes
    assert any(line.startswith("broken: 3 of 3 files without") for line in notes)
    assert (
        "run: best.pt, 6.22 epochs of batches of 6 x 2 s, seed 3, recipe plain with "
        "optim.learning_rate 0.001 with loss.time 0.5, held out p226, p287." in notes
    )
    made = {"hours": 1.5, "sessions": 2, "devices": ["H200"], "torch": ["2.13"], "commits": ["ab"]}
    notes = remarks(analysed(system("run", {"a": 1.0}, **made)))
    assert any("; 1.50 hours on H200, starts: 2, torch 2.13, commit ab." in x for x in notes)


def test_notes_say_why_runs_are_not_pooled():
    family = {"network": "n", "steps": 9, "training data": "a"}
    runs = [system("x", {"a": 1.0}, seed=0, family=family)]
    for seed, changed in enumerate(({"steps": 8}, {"training data": "b"}), start=1):
        runs.append(system(f"y{seed}", {"a": 1.0}, seed=seed, family=family | changed))
    notes = remarks(analysed(*runs))
    assert "x and y1 are no two seeds of one model: they differ in steps." in notes
    assert "y1 and y2 are no two seeds of one model: they differ in steps, training data." in notes


def test_names_are_escaped():
    analysis = analysed(system("a|b_c", {"x": 1.0}), data="50 % & #1\n\\end{table}")
    text, tex = markdown(analysis), latex(analysis)
    assert r"| a\|b_c |" in text
    assert r"a$|$b\_c & " in tex
    assert r"50 \% \& \#1 \textbackslash{}end\{table\}" in tex
    assert tex.count(r"\end{table}") == 1
