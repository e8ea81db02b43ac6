"""Tables, notes and the summary: what they say, what they leave out, and what they escape."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from systems import FACTS, numbered, row, system

from evaluation.analysis import Analysis, analyse
from evaluation.metrics import METRICS
from evaluation.models import System
from evaluation.notes import notes
from evaluation.scoring import Row
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
    assert cells(lines[0]) == ["system", *costs, *headings]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert cells(lines[2])[:7] == ["noisy", "", "", "", "", "", "1.500"]
    assert cells(lines[3])[:7] == [
        *("abl3", "2.012", "6.25", "0.312", "123", "12,000", "2.500"),
    ]
    assert cells(lines[4]) == ["broken", *5 * [""], *8 * ["none"]]
    assert "Means over the 3 files of corpus." in lines


def test_a_mean_over_fewer_files_says_so():
    (_, abl3) = scores(analysed(NOISY, PARTLY), MAIN).rows
    assert abl3[6].detail == "2.000 – 3.000, 2 files"
    assert "files" not in abl3[10].detail  # STOI


def test_the_best_of_a_column_is_marked_in_its_direction_and_never_the_noisy():
    noisy, one, other = numbered("noisy", 3), numbered("one", 0.2), numbered("other", 0.3)
    analysis = analysed(noisy, one, other)
    main = {cells[0].text: cells for cells in scores(analysis, MAIN).rows}
    assert [main[name][6].best for name in ("noisy", "one", "other")] == [False, False, True]
    beside = {cells[0].text: cells for cells in scores(analysis, BESIDE).rows}
    column = 1 + BESIDE.index("wss")
    assert [beside[name][column].best for name in ("noisy", "one", "other")] == [False, True, False]
    same = {cells[0].text: cells for cells in scores(analysed(other, one, noisy), MAIN).rows}
    assert same["noisy"][6].best is False  # wherever it stands
    alone = {cells[0].text: cells for cells in scores(analysed(noisy, one), MAIN).rows}
    assert not alone["one"][6].best


def test_the_comparison_says_what_it_rests_on():
    analysis = analysed(numbered("noisy", 0), numbered("one", 0.5, seed=1), numbered("two", 0))
    one, two = table(analysis, "Against noisy")
    assert one["system"] == "one"
    assert re.fullmatch(r"\+0\.[45]\d\d \(\+0\.4\d\d to \+0\.5\d\d\)", one["difference (95 %)"])
    assert one["p"] == one["p (Holm)"] == "< 0.0001"
    assert one["better / tie / worse"] == "30 / 0 / 0"
    assert one["effect"] == "+1.00"
    assert two["p"] == two["p (Holm)"] == "too few"
    assert two["better / tie / worse"] == "0 / 30 / 0"


def test_the_baseline_can_be_chosen():
    systems = [numbered("noisy", 0), numbered("one", 0.5), numbered("two", 0.2, seed=1)]
    found = table(analysed(*systems, baseline="one"), "Against one")
    assert [line["system"] for line in found] == ["noisy", "two"]
    assert found[1]["difference (95 %)"].startswith("-0.")


def test_seeds_are_shown_apart_from_files():
    runs = [numbered(f"r{seed}", 0.1 * seed, seed=seed + 1) for seed in range(2)]
    facts = [{**FACTS, "seed": seed} for seed in range(2)]
    runs = [System(r.name, r.rows, f) for r, f in zip(runs, facts, strict=True)]
    analysis = analysed(numbered("noisy", 0), *runs)
    (line,) = table(analysis, "Seeds, PESQ-WB")
    assert line["system"] == "abl3 (2 seeds)"
    means = [float(np.mean(run.values("pesq_wb"))) for run in runs]
    assert line["each seed's mean"] == f"{means[0]:.3f}, {means[1]:.3f}"
    assert float(line["deviation over seeds"]) == pytest.approx(
        abs(means[1] - means[0]) / 2**0.5, abs=1e-4
    )
    assert not [t for t in tables(analysed(NOISY, PARTLY)) if t.name.startswith("Seeds")]


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


def test_notes_say_what_a_table_rests_on():
    lines = notes(analysed(NOISY, PARTLY, NOTHING))
    assert (
        "abl3: 1 of 3 files without all scores (b), for reasons in per_file.csv; a mean is over "
        "those that have the score." in lines
    )
    assert (
        "abl3: 1 files are not as long as the clean ones (c); the common part is scored." in lines
    )
    assert any(line.startswith("broken: 3 of 3 files without") for line in lines)
    assert not any(line.startswith(("noisy:", "broken: 0")) for line in lines)
    assert (
        "abl3: best.pt, 6.22 epochs of batches of 6 x 2 s, seed 3, recipe plain with "
        "optim.learning_rate 0.001 with loss.time 0.5, held out p226, p287." in lines
    )
    assert any("measured on 2 threads of a CPU, 4 s at once" in line for line in lines)
    assert lines[-1].startswith("pesq 0.0.4, pystoi ")


def test_a_table_of_untrained_systems_says_nothing_of_training():
    text = markdown(analysed(NOISY, NOTHING))
    assert "best.pt" not in text
    assert "RTF (" not in text


NAMES = ["a|b", "a\nb", "a\\|b", "<b>x</b>", "*a*", "[a](b)", "50 % & $x_1$ #{}~^", "ä/ö"]


def test_no_name_is_taken_for_markup():
    systems = [numbered("noisy", 0), *(numbered(name, 0.1, seed=n) for n, name in enumerate(NAMES))]
    analysis = analysed(*systems, data="corpus | of\nmine")
    lines = markdown(analysis).splitlines()
    main = lines[2 : 2 + len(systems)]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[: 2 + len(systems)]}) == 1
    assert main[1].startswith("| a\\|b |")
    assert main[2].startswith("| a b |")
    assert main[4].startswith("| \\<b>x\\</b> |")
    assert "Means over the 30 files of corpus \\| of mine." in lines


def test_latex_is_what_booktabs_wants():
    systems = [numbered("noisy", 0), numbered("50 % & $x_1$ #{}~^\\", 0.4, seed=1, model="mine")]
    text = latex(analysed(*systems))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}
    assert r"50 \% \& \$x\_1\$ \#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} &" in text
    assert "2.012 & 6.25 &" in rows[2]
    assert "$^{*}$" in rows[2]
    assert "-- & --" in rows[1]
    below = text[text.index(r"\end{table}") :].splitlines()[1:]
    assert below
    assert all(line.startswith("% ") for line in below)
