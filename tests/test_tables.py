"""Tables, notes and the summary: what they say, what they leave out, and what they escape."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from systems import FACTS, numbered, row, system, trained

from evaluation.analysis import Analysis, analyse
from evaluation.metrics import METRICS
from evaluation.models import System
from evaluation.scoring import Row
from evaluation.statistics import mean_interval
from evaluation.summary import summary
from evaluation.tables import BESIDE, MAIN, scores, tables
from evaluation.text import latex, markdown

NOISY = system("noisy", {"a": 1.0, "b": 2.0, "c": 1.5})
PARTLY = System(
    "abl3",
    [
        row("abl3", "a", 3.0),
        Row("abl3", "b", {"stoi": 0.7, "estoi": 0.5}, "PESQ finds no speech; SI-SDR is infinite"),
        row("abl3", "c", 2.0, "-12 samples: the common part is scored"),
    ],
    FACTS,
)
NOTHING = System("broken", [Row("broken", name, {}, "has no samples") for name in "abc"])


DIFFERENCE = "PESQ-WB, difference (95 % file interval)"


def analysed(*systems: System, data: str = "corpus", **options: Any) -> Analysis:
    return analyse(systems, data, {}, **options)


def loaded(analysis: Analysis) -> dict[str, Any]:
    """The summary by a strict reader of JSON, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(summary(analysis), parse_constant=refuse)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(analysis: Analysis, name: str) -> list[dict[str, str]]:
    (found,) = [each for each in tables(analysis) if each.name == name]
    return [
        dict(zip(found.columns, (cell.text for cell in each), strict=True)) for each in found.rows
    ]


def test_every_metric_has_a_column():
    assert set(MAIN) | set(BESIDE) == METRICS.keys()
    assert not set(MAIN) & set(BESIDE)


def test_means_are_over_the_files_that_have_the_score():
    found = loaded(analysed(NOISY, PARTLY, NOTHING))
    assert found["data"] == "corpus"
    assert found["files"] == 3
    assert found["versions"].keys() == {"pesq", "pystoi", "numpy", "scipy", "torch"}
    assert list(found["systems"]) == ["noisy", "abl3", "broken"]
    abl3, broken = found["systems"]["abl3"], found["systems"]["broken"]
    assert abl3["files"] == broken["files"] == 3
    assert abl3["scored"] == {name: 3 if name in ("stoi", "estoi") else 2 for name in METRICS}
    assert abl3["means"]["pesq_wb"] == pytest.approx(2.5)
    assert abl3["means"]["stoi"] == pytest.approx((3.01 + 0.7 + 2.01) / 3)
    assert abl3["notes"] == {
        "b": "PESQ finds no speech; SI-SDR is infinite",
        "c": "-12 samples: the common part is scored",
    }
    assert abl3["facts"] == FACTS
    assert broken["scored"] == dict.fromkeys(METRICS, 0)
    assert broken["means"] == dict.fromkeys(METRICS)
    assert found["models"]["broken"]["means"]["pesq_wb"] is None
    assert found["models"]["abl3"]["means"]["pesq_wb"]["count"] == 2
    assert found["comparisons"]["broken"]["pesq_wb"] is None
    assert found["comparisons"]["abl3"]["pesq_wb"]["difference"] == pytest.approx(
        {"mean": 1.25, "low": 0.5, "high": 2.0, "count": 2}
    )


def test_the_main_table_has_a_line_for_each_system_in_their_order():
    lines = markdown(analysed(NOISY, PARTLY, NOTHING)).splitlines()
    costs = ["parameters (M)", "GMAC/s", "RTF", "memory (MB)", "steps"]
    headings = ["PESQ-WB", "CSIG", "CBAK", "COVL", "STOI", "ESTOI", "SegSNR (dB)", "SI-SDR (dB)"]
    assert cells(lines[0]) == ["system", *headings, *costs]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert cells(lines[2])[:2] == ["noisy", "1.500"]
    assert cells(lines[2])[-5:] == ["", "", "", "", ""]
    assert cells(lines[3])[:2] == ["abl3", "2.500 (2 files)"]
    assert cells(lines[3])[-5:] == ["2.012", "6.25", "0.312", "123", "12,000"]
    assert cells(lines[4]) == ["broken", *8 * ["none"], *5 * [""]]
    assert lines[6].startswith("Means over the files of corpus that have the score, 3 unless said")


def test_a_mean_over_other_files_is_never_the_best():
    one = system("one", {"a": 3.0, "b": 3.0, "c": None, "d": None})
    two = system("two", {"a": None, "b": None, "c": 1.0, "d": 1.0})
    found = scores(analysed(one, two), MAIN).rows
    assert not any(cell.best for row in found for cell in row)


def test_intervals_stand_below_the_means():
    analysis = analysed(numbered("noisy", 0), numbered("one", 0.5))
    lines = markdown(analysis).splitlines()
    place = lines.index("**95 % file intervals**")
    interval = mean_interval(numbered("one", 0.5).values("pesq_wb")[None])
    assert interval
    assert cells(lines[place + 2])[:2] == ["system", "PESQ-WB"]
    assert cells(lines[place + 5])[:2] == ["one", f"{interval.low:.3f} – {interval.high:.3f}"]
    assert f"{{\\scriptsize {interval.low:.3f} -- {interval.high:.3f}}}" in latex(analysis)


def test_of_a_few_files_there_is_no_interval():
    """One of no width would look like certainty."""
    (noisy,) = scores(analysed(NOISY), MAIN).rows
    assert {cell.detail for cell in noisy} == {""}
    (line,) = table(analysed(NOISY, system("one", {"a": 2.0, "b": 2.5, "c": 3})), "Against noisy")
    assert line[DIFFERENCE] == "+1.000"
    assert "95 % file intervals" not in markdown(analysed(NOISY))


def test_a_mean_over_fewer_files_says_so():
    (_, abl3) = scores(analysed(NOISY, PARTLY), MAIN).rows
    assert abl3[1].files == "2 files"
    assert abl3[5].files == ""  # STOI
    assert "2.500 (2 files)" in latex(analysed(NOISY, PARTLY))


def test_a_mean_over_fewer_files_is_never_the_best():
    """They may be the easier ones."""
    full = system("full", {"a": 2.0, "b": 2.0, "c": 2.0})
    other = system("other", {"a": 1.9, "b": 1.9, "c": 1.9})
    (full_row, other_row, partly) = scores(analysed(full, other, PARTLY), MAIN).rows
    assert [row[1].best for row in (full_row, other_row, partly)] == [True, False, False]


def test_the_best_of_a_column_is_marked_in_its_direction_and_never_the_noisy():
    noisy, one, other = numbered("noisy", 3), numbered("one", 0.2), numbered("other", 0.3)
    analysis = analysed(noisy, one, other)
    main = {cells[0].text: cells for cells in scores(analysis, MAIN).rows}
    assert [main[name][1].best for name in ("noisy", "one", "other")] == [False, False, True]
    beside = {cells[0].text: cells for cells in scores(analysis, BESIDE).rows}
    column = 1 + BESIDE.index("wss")
    assert [beside[name][column].best for name in ("noisy", "one", "other")] == [False, True, False]
    same = {cells[0].text: cells for cells in scores(analysed(other, one, noisy), MAIN).rows}
    assert same["noisy"][1].best is False  # wherever it stands
    alone = {cells[0].text: cells for cells in scores(analysed(noisy, one), MAIN).rows}
    assert not alone["one"][1].best


def test_the_comparison_says_what_it_rests_on():
    analysis = analysed(numbered("noisy", 0), numbered("one", 0.5, seed=1), numbered("two", 0))
    one, two = table(analysis, "Against noisy")
    assert one["system"] == "one"
    assert re.fullmatch(r"\+0\.[45]\d\d \(\+0\.4\d\d to \+0\.5\d\d\)", one[DIFFERENCE])
    assert one["p over files (Holm)"] == "< 0.0001"
    assert one["better / tie / worse"] == "30 / 0 / 0"
    assert one["r"] == "+1.00"
    assert two["p over files (Holm)"] == "too few"
    assert (one["seeds"], "95 % seed interval" in one) == ("– / –", False)
    assert two["better / tie / worse"] == "0 / 30 / 0"


def marks(analysis: Analysis) -> dict[str, set[str]]:
    """The marks of the eight main metrics, by system."""
    return {
        cells[0].text: {cell.mark for cell in cells[1:9]} for cells in scores(analysis, MAIN).rows
    }


def test_marks_need_three_seeds_a_side():
    """However sure the tests over files are."""
    baseline, better = (0.0, 0.01, 0.02), (0.5, 0.51, 0.52)
    for ours, theirs in ((3, 3), (3, 2), (2, 3), (3, 1), (1, 1)):
        systems = [*trained("bsrnn", *baseline[:ours]), *trained("uniform31", *better[:theirs])]
        analysis = analysed(numbered("noisy", 0), *systems)
        comparison = analysis.comparisons[analysis.models[2].name]["pesq_wb"]
        assert comparison
        assert comparison.p_holm
        assert comparison.p_holm < 1e-4
        noisy, bsrnn, uniform = marks(analysis).values()
        assert noisy == bsrnn == {""}
        assert uniform == ({"better"} if ours == theirs == 3 else {""})
        marked = "▲ and ▼" in markdown(analysis)
        assert marked == (ours == theirs == 3)
        assert marked != ("No differences are marked: that takes at least 3" in markdown(analysis))


def test_marks_follow_the_direction_of_the_metric():
    systems = [*trained("bsrnn", 0.0, 0.01, 0.02), *trained("uniform31", 0.5, 0.51, 0.52)]
    beside = scores(analysed(*systems), BESIDE).rows[1]
    assert beside[1 + BESIDE.index("wss")].mark == "worse"
    assert beside[1 + BESIDE.index("snr")].mark == "better"


def test_marks_are_corrected_over_the_whole_table():
    """Not over a column: of eight metrics, one would often be below 5 % by chance."""
    systems = [*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5)]
    analysis = analysed(*systems)
    comparison = analysis.comparisons["uniform31 (3 seeds)"]["pesq_wb"]
    assert comparison
    assert comparison.over_seeds
    assert 0.05 / 8 < comparison.over_seeds.p < 0.05
    assert marks(analysis)["uniform31 (3 seeds)"] == {""}


def test_differences_of_seeds_are_tested_over_seeds():
    systems = [*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5)]
    (line,) = table(analysed(*systems), "Against bsrnn (3 seeds)")
    # Of deviations of 0.1 on both sides, t = 0.3 / (0.1 √(2/3)) with 4 degrees of freedom.
    assert line["seeds"] == "3 / 3"
    assert line["95 % seed interval"] == "+0.073 to +0.527"
    assert line["p over seeds (Holm)"] == "0.0213"
    assert line["seeds a side for 0.05"] == "64"


def test_one_seed_is_said_to_be_chance():
    chance = "Where a side has one seed, the difference may be chance of the training."
    two = trained("bsrnn", 0.0, 0.1)
    assert chance in markdown(analysed(*two, *trained("uniform31", 0.3)))
    assert chance not in markdown(analysed(*two, *trained("uniform31", 0.3, 0.4)))
    assert chance not in markdown(analysed(NOISY, NOTHING))


def test_primary_comparisons_come_first():
    systems = [
        *(numbered("noisy", 0), *trained("bsrnn", 0.0), *trained("lstm_dualpath", 0.1)),
        *(*trained("abl2", 0.3), *trained("bsrnn_bi", 0.2, 0.3), *trained("abl3", 0.5, 0.6)),
    ]
    analysis = analysed(*systems)
    names = [each.name for each in tables(analysis)]
    assert names[:3] == ["Scores", "Primary comparisons", "Against bsrnn-0"]
    one, two = table(analysis, "Primary comparisons")
    assert one["system"] == "abl3 (2 seeds) − bsrnn_bi (2 seeds)"
    assert (two["system"], two["seeds"]) == ("abl2-0 − lstm_dualpath-0", "1 / 1")
    assert one[DIFFERENCE].startswith("+0.300 (")
    assert two[DIFFERENCE].startswith("+0.200 (")
    first, second = loaded(analysis)["primary"]
    assert (first["other"], first["reference"]) == ("abl3 (2 seeds)", "bsrnn_bi (2 seeds)")
    assert first["comparisons"]["pesq_wb"]["over_seeds"]["seeds"] == [2, 2]
    assert second["comparisons"]["pesq_wb"]["over_seeds"] is None
    assert "Primary comparisons" not in markdown(analysed(*systems[:3]))


def test_what_was_measured_stands_beside_what_was_hoped_for():
    names = [f"p232_{n:03}" for n in range(393)] + [f"p257_{n:03}" for n in range(431)] + ["more"]
    made = system("run", dict.fromkeys(names[:-1], 3.312) | {"more": 1.0}, seed=0)
    (line,) = table(analysed(system("noisy", dict.fromkeys(names, 1.97)), made), "Expected")
    assert list(line.values()) == ["run", "3.30 to 3.40", "3.312"]


def test_nothing_was_hoped_for_of_another_size():
    def made(parameters: int) -> System:
        run = numbered("run", 0.5)
        return System(run.name, run.rows, {**FACTS, "parameters": parameters})

    def hoped(parameters: int) -> list[list[str]]:
        found = tables(analysed(numbered("noisy", 0), made(parameters)))
        return [t.rows for t in found if t.name == "Expected"]

    assert hoped(2_000_936)
    assert not hoped(3_599_000)


def test_the_baseline_can_be_chosen():
    systems = [numbered("noisy", 0), numbered("one", 0.5), numbered("two", 0.2, seed=1)]
    found = table(analysed(*systems, baseline="one"), "Against one")
    assert [line["system"] for line in found] == ["noisy", "two"]
    assert found[1][DIFFERENCE].startswith("-0.")


def test_seeds_are_shown_apart_from_files():
    runs = [numbered(f"r{seed}", 0.1 * seed, seed=seed + 1) for seed in range(2)]
    facts = [{**FACTS, "seed": seed} for seed in (1, 0)]
    runs = [System(r.name, r.rows, f) for r, f in zip(runs, facts, strict=True)]
    analysis = analysed(numbered("noisy", 0), *runs)
    (line,) = table(analysis, "Seeds, PESQ-WB")
    assert line["system"] == "abl3 (2 seeds)"
    means = [float(np.mean(run.values("pesq_wb"))) for run in runs]
    assert line["each seed's mean"] == f"{means[1]:.3f}, {means[0]:.3f}"
    assert float(line["deviation over seeds"]) == pytest.approx(
        abs(means[1] - means[0]) / 2**0.5, abs=1e-4
    )
    assert line["lowest – highest"] == f"{min(means):.3f} – {max(means):.3f}"
    assert not [t for t in tables(analysed(NOISY, PARTLY)) if t.name.startswith("Seeds")]


def test_the_spread_over_seeds_stands_with_every_mean():
    analysis = analysed(numbered("noisy", 0), *trained("abl3", 0.1, 0.2, 0.3))
    noisy, abl3 = scores(analysis, MAIN).rows
    assert {(cell.deviation, cell.span) for cell in noisy} == {("", "")}
    mean = analysis.means["abl3 (3 seeds)"]["pesq_wb"]
    assert mean
    span = f"{mean.mean - 0.1:.3f} – {mean.mean + 0.1:.3f}"
    assert (abl3[1].deviation, abl3[1].span) == ("0.100", span)
    lines = markdown(analysis).splitlines()
    assert cells(lines[3])[1] == f"**{mean.mean:.3f}** ± 0.100".replace("**", "")
    place = lines.index("**Lowest and highest mean of the seeds**")
    assert cells(lines[place + 4])[:2] == ["abl3 (3 seeds)", span]
    assert f"{mean.mean:.3f} $\\pm$ 0.100" in latex(analysis)
    assert f"{{\\scriptsize {{[}}{span.replace('–', '--')}]}}" in latex(analysis)
    found = loaded(analysis)["models"]["abl3 (3 seeds)"]["spreads"]["pesq_wb"]
    expected = {"runs": 3, "over_runs": 0.1, "lowest": mean.mean - 0.1, "highest": mean.mean + 0.1}
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_expectations_are_no_results():
    """They stand in a table of their own, and beside them only what was measured on that set."""
    analysis = analysed(NOISY, PARTLY)
    (line,) = table(analysis, "Expected")
    assert list(line.values()) == ["abl3", "3.30 to 3.40", "not measured"]
    for found in tables(analysis):
        if found.name != "Expected":
            assert "3.40" not in str(found)
    assert "3.30" not in summary(analysis)
    assert not [t for t in tables(analysed(NOISY, NOTHING)) if t.name == "Expected"]
