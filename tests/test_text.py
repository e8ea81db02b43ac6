"""Tables as text, and what stands beside them: doubts, notes, escaped names."""

from __future__ import annotations

import re
from pathlib import Path

from systems import numbered, system, trained
from test_tables import NOISY, NOTHING, PARTLY, analysed, loaded

from evaluation.notes import notes
from evaluation.report import report
from evaluation.text import latex, markdown


def test_best_and_marks_are_written(tmp_path: Path):
    systems = [*trained("bsrnn", 0.0, 0.01, 0.02), *trained("abl3", 0.5, 0.51, 0.52)]
    analysis = analysed(numbered("noisy", 0), *systems)
    line = markdown(analysis).splitlines()[4]
    assert re.match(r"\| abl3 \(3 seeds\) \| \*\*2\.\d+\*\* ± 0\.010 ▲ \|", line)
    text = latex(analysis)
    assert re.search(
        r"abl3 \(3 seeds\) & \\textbf\{2\.\d+\} \$\\pm\$ 0\.010\$\^\{\\uparrow\}\$", text
    )
    page = report(analysis, {}, tmp_path, 0)
    assert (
        len(re.findall(r'<td data-sort="[^"]+" class="best"><span class="mark better"', page)) == 13
    )


def test_a_doubt_is_told_everywhere(tmp_path: Path):
    """Of the 824 names, with a noisy side that scores 2.6."""
    names = [f"p232_{n:03}" for n in range(393)] + [f"p257_{n:03}" for n in range(431)]
    analysis = analysed(
        system("noisy", dict.fromkeys(names, 2.6)), system("x", dict.fromkeys(names, 3))
    )
    told = "their PESQ is 2.600 instead of 1.97 ± 0.01"
    assert told in notes(analysis)[0]
    assert told in markdown(analysis)
    assert "their PESQ is 2.600" in latex(analysis).splitlines()[1]
    assert told in loaded(analysis)["warnings"][0]
    page = report(analysis, {}, tmp_path, 0)
    assert told in page[page.index('<p class="warning" role="alert">') :][:600]


def test_notes_say_what_a_table_rests_on():
    lines = notes(analysed(NOISY, PARTLY, NOTHING))
    assert (
        "abl3: 1 of 3 files without all scores (b), for reasons in per_file.csv; a mean is over "
        "those that have the score." in lines
    )
    assert (
        "abl3: 1 files are not as long as the clean ones, by up to 0.001 s (c); the common part is "
        "scored, which is not what is scored of others." in lines
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
    assert any(line.startswith("Means over the files of corpus \\| of mine that") for line in lines)


def test_latex_is_what_booktabs_wants():
    systems = [numbered("noisy", 0), numbered("50 % & $x_1$ #{}~^\\", 0.4, seed=1, model="mine")]
    text = latex(analysed(*systems))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5  # the heading, and below each system's line its intervals
    rows = [rows[0], rows[1], rows[3]]
    columns = re.search(r"\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns[1])}
    assert r"50 \% \& \$x\_1\$ \#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{} &" in text
    assert "2.012 & 6.25" in rows[2]
    assert rows[1].endswith("-- & -- \\\\")
    below = text[text.index(r"\end{table}") :].splitlines()[1:]
    assert below
    assert all(line.startswith("% ") for line in below)


def test_notes_say_how_long_where_and_from_what_a_network_was_trained():
    made = {"sessions": 2, "devices": ["CPU, threads: 1"], "torch": ["2.13.0"], "commits": ["a1b2"]}
    pesqs = {"a": 2.0, "b": 2.5}
    analysis = analysed(
        system("noisy", pesqs),
        system("long", pesqs, hours=1.25, **made),
        system("short", pesqs, seed=4, hours=0.05, **made),
        system("killed", pesqs, model="other", family={"network": "o"}, **made),
    )
    lines = notes(analysis)
    for name, spent in (
        ("long", "1.25 hours"),
        ("short", "3.0 minutes"),
        ("killed", "hours not known"),
    ):
        (line,) = (line for line in lines if line.startswith(f"{name}: best.pt"))
        assert line.endswith(
            f"; {spent} on CPU, threads: 1 in 2 sessions, torch 2.13.0, commit a1b2."
        )
    # The first two are two seeds of one model.
    assert "Of killed there is only one seed: differences may be chance of the training." in lines
