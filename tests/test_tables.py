"""The tables: what stands in them, marks, notes, and that no name looks like markup."""

from __future__ import annotations

import re

import pytest
from systems import analysed, numbered, system, trained

from evaluation.analysis import Analysis
from evaluation.tables import BESIDE, MAIN, Table, marks_of, published, scores, tables
from evaluation.text import latex, markdown, remarks

NOISY = system("noisy", {"a": 1.0, "b": 2.0, "c": 3.0})
PARTLY = system("run", {"a": 1.5, "b": None, "c": 3.5}, seed=3)
NOTHING = system("broken", dict.fromkeys("abc"))
DIFFERENCE = "PESQ-WB, difference (95 % file interval)"


def by_name(analysis: Analysis) -> dict[str, Table]:
    return {table.name: table for table in tables(analysis)}


def lines(table: Table) -> list[dict[str, str]]:
    texts = [[cell.text for cell in row] for row in table.rows]
    return [dict(zip(table.columns, row, strict=True)) for row in texts]


def test_main_table_has_means_and_costs():
    table = tables(analysed(NOISY, PARTLY, NOTHING))[0]
    noisy, run, broken = lines(table)
    assert noisy["PESQ-WB"] == "2.000"
    assert noisy["parameters (M)"] == ""
    assert run["PESQ-WB"] == "2.500 (2 files)"
    assert run["parameters (M)"] == "2.012"
    assert (run["GMAC/s"], run["RTF"]) == ("6.25", "0.312")
    assert (run["memory (MB)"], run["steps"]) == ("123", "12,000")
    assert broken["PESQ-WB"] == "none"
    assert "training (h)" not in noisy
    assert "3 unless said otherwise" in table.caption


def test_intervals_stand_below_means_of_enough_files():
    (first, *_), *_ = scores(analysed(numbered("noisy", 0)), MAIN).rows
    row = scores(analysed(numbered("noisy", 0)), MAIN).rows[0]
    assert first.text == "noisy"
    assert re.fullmatch(r"\d\.\d{3} – \d\.\d{3}", row[1].below)
    assert scores(analysed(NOISY), MAIN).rows[0][1].below == ""


def test_best_is_over_the_most_files_noisy_aside():
    analysis = analysed(
        system("noisy", {"a": 4.0, "b": 4.0}),
        *(system("easy", {"a": 3.0, "b": None}), system("one", {"a": 2.0, "b": 2.0})),
        system("two", {"a": 1.0, "b": 1.0}),
    )
    table = scores(analysis, MAIN)
    assert [row[0].text for row in table.rows if row[1].best] == ["one"]
    beside = scores(analysis, BESIDE)
    place = 1 + BESIDE.index("wss")
    assert [row[0].text for row in beside.rows if row[place].best] == ["two"]  # lower is better


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
    test = close.comparisons[0].comparisons["pesq_wb"]
    assert test
    assert test.over_seeds
    assert 0.05 / 8 < test.over_seeds.p < 0.05
    assert set(marks_of(close, MAIN).values()) == {""}


def test_differences_are_tested_over_files_and_over_seeds():
    analysis = analysed(*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5))
    (line,) = lines(by_name(analysis)["Against bsrnn (3 seeds)"])
    assert line[DIFFERENCE].startswith("+0.300")
    assert line["seeds"] == "3 / 3"
    assert line["95 % seed interval"] == "+0.073 to +0.527"
    assert line["p over seeds (Holm)"] == "0.0213"
    assert line["seeds a side for 0.05"] == "64"
    assert line["better / tie / worse"] == "30 / 0 / 0"


def test_differences_of_few_files_and_one_seed_say_so():
    table = by_name(analysed(NOISY, PARTLY))["Against noisy"]
    (line,) = lines(table)
    assert line[DIFFERENCE] == "+0.500"
    assert line["p over files (Holm)"] == "too few"
    assert line["seeds"] == "1 / –"
    assert "95 % seed interval" not in line
    assert "may be chance of the training" in table.caption


def test_primary_comparisons_come_first():
    systems = [*trained("bsrnn_bi", 0.0, 0.1), *trained("abl3", 0.3, 0.4)]
    systems += [*trained("abl2", 0.2), *trained("lstm_dualpath", 0.0), *trained("bsrnn", 0.0)]
    found = tables(analysed(*systems))
    names = [table.name for table in found]
    assert names[:3] == ["Scores", "Primary comparisons", "Against bsrnn-0"]
    one, two = lines(found[1])
    assert one["system"] == "abl3 (2 seeds) − bsrnn_bi (2 seeds)"
    assert (two["system"], two["seeds"]) == ("abl2-0 − lstm_dualpath-0", "1 / 1")
    assert "Primary comparisons" not in by_name(analysed(*systems[:2]))


def test_spread_over_seeds_stands_with_means_and_in_its_table():
    analysis = analysed(*trained("abl3", 0.2, 0.1, 0.3))
    cell = scores(analysis, MAIN).rows[0][1]
    means = [run.mean() for run in analysis.models[0].scores["pesq_wb"]]
    assert " ± 0.100" in cell.text
    assert cell.below.endswith(f"[{min(means):.3f} – {max(means):.3f}]")
    (line,) = lines(by_name(analysis)["Seeds, PESQ-WB"])
    assert line["each seed's mean"] == ", ".join(f"{mean:.3f}" for mean in means)
    assert line["deviation over seeds"] == "0.1000"


def test_groups_have_a_column_each():
    table = by_name(analysed(system("noisy", {"p230_001": 1.0, "p231_001": 2.0})))["By speaker"]
    assert lines(table) == [{"system": "noisy", "p230 (1)": "1.000", "p231 (1)": "2.000"}]
    assert table.caption == "PESQ-WB by speaker, known from the files' names (number of files)."


def test_hopes_are_no_results():
    """They stand in the page alone, in the table of what is not measured here."""
    analysis = analysed(numbered("noisy", 0), *trained("abl3", 0.1))
    rows = {line["system"]: line for line in lines(published())}
    assert rows["abl3, hoped for"]["PESQ-WB"] == "3.30 to 3.40"
    assert all("3.40" not in text for text in (markdown(analysis), latex(analysis)))


def test_markdown_and_latex_show_the_same():
    systems = [*trained("bsrnn", 0.0, 0.01, 0.02), *trained("abl3", 0.5, 0.51, 0.52)]
    analysis = analysed(numbered("noisy", 0), *systems)
    text, tex = markdown(analysis), latex(analysis)
    assert re.match(r"\| abl3 \(3 seeds\) \| \*\*2\.\d+\*\* ± 0\.010 ▲ \|", text.splitlines()[4])
    assert re.search(
        r"abl3 \(3 seeds\) & \\textbf\{2\.\d+ \$\\pm\$ 0\.010 \$\^\{\\uparrow\}\$\} &", tex
    )
    assert "**95 % file intervals**" in text
    columns = {line.count(" & ") for line in tex.splitlines() if line.endswith(r"\\")}
    assert columns == {10}  # eight metrics, parameters, GMAC/s
    assert "RTF" not in tex.partition(r"\end{table}")[0]


def test_a_doubt_is_told_everywhere():
    names = [f"p232_{n:03}" for n in range(393)] + [f"p257_{n:03}" for n in range(431)]
    analysis = analysed(system("noisy", dict.fromkeys(names, 2.6)))
    assert "\n- Warning: The noisy files are those of VoiceBank-DEMAND" in markdown(analysis)
    assert latex(analysis).startswith("% Warning: The noisy files")


def test_notes_say_what_a_table_rests_on():
    notes = remarks(analysed(NOISY, PARTLY, NOTHING))
    assert (
        "run: 1 of 3 files without all scores (b), for reasons in per_file.csv; a mean is over "
        "those that have the score." in notes
    )
    assert any(line.startswith("broken: 3 of 3 files without") for line in notes)
    assert (
        "run: best.pt, 6.22 epochs of batches of 6 x 2 s, seed 3, recipe plain with "
        "optim.learning_rate 0.001 with loss.time 0.5, held out p226, p287." in notes
    )
    assert "Of run there is only one seed: differences may be chance of the training." in notes
    made = {"hours": 1.5, "sessions": 2, "devices": ["H200"], "torch": ["2.13"], "commits": ["ab"]}
    notes = remarks(analysed(system("run", {"a": 1.0}, **made)))
    assert any("; 1.50 hours on H200, starts: 2, torch 2.13, commit ab." in x for x in notes)


def test_runs_that_are_not_pooled_say_why():
    family = {"network": "n", "steps": 9, "training data": "a"}
    runs = [system("x", {"a": 1.0}, seed=0, family=family)]
    for seed, changed in enumerate(({"steps": 8}, {"training data": "b"}), start=1):
        runs.append(system(f"y{seed}", {"a": 1.0}, seed=seed, family=family | changed))
    notes = remarks(analysed(*runs))
    assert "y1 and x are no two seeds of one model: they differ in steps." in notes
    assert "y2 and y1 are no two seeds of one model: they differ in steps, training data." in notes


def test_no_name_looks_like_markup():
    name = r"a|b*c_ `d` <e> [f] \g _h"
    analysis = analysed(system(name, {"x": 1.0}), data="50 % & #1\n\\end{table}")
    text, tex = markdown(analysis), latex(analysis)
    assert r"| a\|b\*c\_ \`d\` \<e> \[f\] \\g \_h |" in text
    assert r"a$|$b*c\_ `d` $<$e$>$ [f] \textbackslash{}g \_h" in tex
    assert r"50 \% \& \#1 \textbackslash{}end\{table\}" in tex
    assert tex.count(r"\end{table}") == 1
