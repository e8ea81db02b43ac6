"""Tables, marks and notes, plots, which sounds the page holds, and that no name breaks out."""

import base64
import html
import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import matplotlib.image
import numpy as np
import pytest
import soundfile
from recordings import put, sound
from systems import NOISY, analysed, numbered, system, trained

from bsbimamba.data.audio import write
from bsbimamba.report.analysis import Analysis, System
from bsbimamba.report.figures import TRAINING, plots, style_of, write_curve
from bsbimamba.report.html import featured, listening, report
from bsbimamba.report.tables import BESIDE, MAIN, Table, latex, markdown, marks_of, remarks, tables

NAMES = [f"f{number}" for number in range(5)]
LOG = [{"step": s, "train": {"loss": 1 / s}, "valid": {"pesq_wb": 2 + s / 9}} for s in (1, 2, 3)]


def audible(folder: Path, names: list[str], **gains: float) -> Analysis:
    """Systems of such gains on files of half a second each; the n-th file gains n tenths more."""
    clean = {name: put(folder / "clean" / f"{n}.wav", seed=n) for n, name in enumerate(names)}
    systems = []
    for place, (name, gain) in enumerate({"noisy": 0.0, **gains}.items()):
        pesqs: dict[str, float | None] = {x: 1.5 + gain * (1 + n / 10) for n, x in enumerate(names)}
        paths = {x: folder / name / f"{n}.wav" for n, x in enumerate(names)}
        files = {x: put(path, seed=10 * place + n) for n, (x, path) in enumerate(paths.items())}
        facts = {"family": {"is": name}} if place else {}
        systems.append((System(name, files, system(name, {}, **facts)[0].facts), pesqs))
    return analysed(*systems, clean=clean)


def decoded(address: str) -> bytes:
    kind, _, content = address.partition(";base64,")
    assert kind.startswith("data:")
    return base64.b64decode(content)


FEW = system("noisy", {"a": 1.0, "b": 2.0, "c": 3.0})
PARTLY = system("run", {"a": 1.5, "b": None, "c": 3.5}, seed=3)
NOTHING = system("broken", dict.fromkeys("abc"))


def by_name(analysis: Analysis) -> dict[str, Table]:
    return {table.name: table for table in tables(analysis)}


def test_main_table_has_means_and_costs():
    table = tables(analysed(FEW, PARTLY, NOTHING))[0]
    noisy, run, broken = (table.cells.loc[name] for name in ("noisy", "run", "broken"))
    assert (noisy["PESQ-WB"], noisy["parameters (M)"]) == ("2.000", "")
    assert run["PESQ-WB"] == "2.500 (2 files)"
    costs = ["parameters (M)", "GMAC/s", "RTF", "steps"]
    assert list(run[costs]) == ["2.012", "6.25", "0.312", "12,000"]
    assert broken["PESQ-WB"] == "none"
    assert "training (h)" not in noisy
    assert table.below["PESQ-WB"].to_list() == ["", "", ""]  # of too few files


def test_intervals_and_the_spread_over_seeds_stand_below_means():
    analysis = analysed(*trained("abl3", 0.2, 0.1, 0.3))
    table = tables(analysis)[0]
    means = [run.mean() for run in analysis.models[0].scores["pesq_wb"]]
    ends = re.escape(f"[{min(means):.3f} – {max(means):.3f}]")
    assert table.cells["PESQ-WB"].iloc[0].endswith(" ± 0.100")
    assert re.fullmatch(rf"\d\.\d{{3}} – \d\.\d{{3}} {ends}", table.below["PESQ-WB"].iloc[0])


def test_best_is_over_the_most_files_without_the_noisy():
    analysis = analysed(
        system("noisy", {"a": 4.0, "b": 4.0}),
        system("easy", {"a": 3.0, "b": None}),
        system("one", {"a": 2.0, "b": 2.0}),
        system("two", {"a": 1.0, "b": 1.0}),
    )
    found = by_name(analysis)
    assert ("one", "PESQ-WB") in found["Scores"].best
    assert {name for name, _ in found["Scores"].best} == {"one"}
    assert ("two", "WSS ↓") in found["The other scale, and parts"].best  # lower is better


def test_marks_need_three_seeds_a_side_and_are_corrected_over_the_table():
    theirs, ours = (0.0, 0.01, 0.02), (0.5, 0.51, 0.52)
    found = marks_of(analysed(*trained("bsrnn", *theirs), *trained("abl3", *ours)), BESIDE)
    name = "abl3 (3 seeds)"
    assert (found[name, "wss"], found[name, "snr"]) == ("▼", "▲")  # lower WSS is better
    assert not marks_of(analysed(*trained("bsrnn", *theirs[:2]), *trained("abl3", *ours)), MAIN)
    assert not marks_of(analysed(*trained("bsrnn", *theirs), *trained("abl3", *ours[:2])), MAIN)
    close = analysed(*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5))
    assert 0.05 / 8 < close.comparisons[0].comparisons["pesq_wb"].over_seeds.p < 0.05
    assert not marks_of(close, MAIN)


def test_differences_are_tested_over_files_and_over_seeds():
    analysis = analysed(*trained("bsrnn", 0.0, 0.1, 0.2), *trained("uniform31", 0.3, 0.4, 0.5))
    row = by_name(analysis)["Against bsrnn (3 seeds)"].cells.loc["uniform31 (3 seeds)"]
    assert row.iloc[0].startswith("+0.300")
    assert row["seeds"] == "3 / 3"
    assert row["95 % seed interval"] == "+0.073 to +0.527"
    assert row["p over seeds (Holm)"] == "0.0213"
    assert row["better / tie / worse"] == "30 / 0 / 0"
    row = by_name(analysed(FEW, PARTLY))["Against noisy"].cells.loc["run"]
    assert list(row) == ["+0.500", "too few", "2 / 0 / 0", "2", "1 / –"]


def test_groups_have_a_column_each():
    table = by_name(analysed(system("noisy", {"p230_001": 1.0, "p231_001": 2.0})))["By speaker"]
    assert table.cells.loc["noisy"].to_dict() == {"p230 (1)": "1.000", "p231 (1)": "2.000"}


def test_markdown_and_latex_show_the_same():
    systems = [*trained("bsrnn", 0.0, 0.01, 0.02), *trained("abl3", 0.5, 0.51, 0.52)]
    analysis = analysed(numbered("a|b_c", 0), *systems, data="50 % & #1 \\end{table}")
    analysis.warnings = ["a doubt"]
    text, tex = markdown(analysis), latex(analysis)
    assert re.search(r"\| abl3 \(3 seeds\) \| \*\*2\.\d+ ± 0\.010 ▲\*\* \|", text)
    mean = r"\\textbf\{2\.\d+ \$\\pm\$ 0\.010 \$\^\{\\uparrow\}\$\}"
    row = rf"abl3 \(3 seeds\) & \\shortstack\[r\]\{{{mean} \\\\ \\scriptsize 2\."
    assert re.search(row, tex)
    columns = {line.count(" & ") for line in tex.splitlines() if line.endswith(r"\\")}
    assert columns == {len(MAIN) + 2}  # parameters, GMAC/s
    # Names are escaped.
    assert text.count(r"| a\|b_c |") == 4
    assert "\na|b\\_c & " in tex
    assert r"50 \% \& \#1 \textbackslash{}end\{table\}" in tex
    assert tex.count(r"\end{table}") == 1
    assert "\n- Warning: a doubt\n" in text
    assert tex.startswith("% Warning: a doubt\n")


def test_notes_say_what_a_table_rests_on():
    made = {"hours": 1.5, "sessions": 2, "devices": ["H200"]}
    run = system("run", {"a": 1.5, "b": None, "c": 3.5}, **made)
    notes = remarks(analysed(FEW, run, NOTHING))
    assert "run: 1 with a note or without a score (b), see per_file.csv." in notes
    assert "broken: 3 with a note or without a score (a, b, c), see per_file.csv." in notes
    assert (
        "run: checkpoint: best.pt; epochs: 6.22; batch: 6 x 2 s; seed: 3; recipe: plain; "
        "beside recipe: optim.learning_rate 0.001, loss.time 0.5; held out: p226, p287; "
        "hours: 1.50; devices: H200; sessions: 2; measured on: 2 threads of a CPU, 4 s at once."
    ) in notes


def drawn(analysis: Analysis) -> dict[str, str]:
    return {title: svg for title, _, svg in plots(analysis)}


def test_plots_are_those_that_show_something():
    runs = [(System(x.name, {}, x.facts, LOG), pesqs) for x, pesqs in trained("abl3", 0.1, 0.2)]
    analysis = analysed(NOISY, *runs, numbered("$x_1^2$", 0.5, seed=1))
    found = drawn(analysis)
    assert "$x_1^2$</text>" in found["Differences"]
    assert list(found) == ["Differences", "PESQ by input SNR (dB)", "PESQ against crops seen"]
    assert all("abl3 (2 seeds)</text>" in svg for svg in found.values())
    assert all(style_of(analysis, analysis.models[1])["color"] in svg for svg in found.values())
    assert all(name in found["PESQ against crops seen"] for name in TRAINING["name"])
    assert found == drawn(analysis)
    assert drawn(analysed(system("one", {"a": 2.0}))) == {}


def test_curve_is_written_where_there_is_a_log(tmp_path: Path):
    write_curve(analysed(numbered("noisy", 0), *trained("abl3", 0.1)), tmp_path)
    assert not list(tmp_path.iterdir())
    runs = [(System(x.name, {}, x.facts, LOG), pesqs) for x, pesqs in trained("abl3", 0.1)]
    write_curve(analysed(*runs), tmp_path)
    picture = matplotlib.image.imread(tmp_path / "curve.png")
    blue = np.abs(picture[..., :3] - np.array([0x0B, 0x62, 0xA8]) / 255).max(axis=-1) < 0.02
    assert blue.sum() > 100  # the colour of the first model


def test_best_median_and_worst_go_by_the_best_models_gain(tmp_path: Path):
    assert featured(audible(tmp_path, NAMES, one=0.5, two=1.0)) == {
        "f4": "Best file: PESQ of two against noisy +1.40",
        "f2": "Median file: PESQ of two against noisy +1.20",
        "f0": "Worst file: PESQ of two against noisy +1.00",
    }
    alone = analysed(system("one", {"a": 2.0, "b": 3.0, "c": None, "d": 1.0}))
    assert featured(alone)["b"] == "Best file: PESQ of one 3.00"
    assert featured(analysed(system("one", {"a": 2.0}))) == {"a": "Best file: PESQ of one 2.00"}
    assert featured(analysed(system("noisy", {"a": 1.0}))) == {}


def test_featured_files_are_in_the_page_and_others_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    analysis = audible(tmp_path, NAMES, one=0.5)
    for each in listening(analysis, tmp_path):
        assert list(each["sources"]) == ["noisy", "one", "clean"]
        assert each["pictures"].keys() == (each["sources"].keys() if each["why"] else set())
        signal, rate = soundfile.read(io.BytesIO(decoded(each["sources"]["one"])))
        assert (len(signal), rate) == (8000, 16000)
        for picture in each["pictures"].values():
            assert matplotlib.image.imread(io.BytesIO(decoded(picture))).shape[0] == 257
    name = "50 % #1?\"'&<b>.wav"
    analysis.models[1].systems[0].files["f3"] = put(tmp_path / name)  # type: ignore[index]
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("bsbimamba.report.html.BUDGET", 0)
    least = {each["name"]: each for each in listening(analysis, tmp_path / "out")}
    sources = {name: each["sources"]["one"] for name, each in least.items()}
    assert {x for x, y in sources.items() if y.startswith("data:")} == {"f0", "f2", "f4"}
    assert sources["f1"] == "../one/1.wav"
    assert unquote(sources["f3"]) == f"../{name}"
    assert not set(sources["f3"]) & set(" #?\"'<>&")
    assert least["f4"]["pesq"] == {"noisy": "1.500", "one": "2.200"}


def test_levels_of_one_file_keep_their_relations(tmp_path: Path):
    """Where one would be clipped, all are made softer alike; NaN is silent."""
    analysis = audible(tmp_path, ["f0"], one=0.5)
    signal = sound(0.5).astype(np.float32)
    loud = (4 / np.abs(signal).max()) * signal
    loud[:10] = np.nan
    write(tmp_path / "one" / "0.wav", loud, "FLOAT")
    write(tmp_path / "clean" / "0.wav", signal, "FLOAT")
    (tmp_path / "noisy" / "0.wav").write_text("no audio")
    (utterance,) = listening(analysis, tmp_path)
    assert list(utterance["sources"]) == ["one", "clean"]
    one, clean = (
        soundfile.read(io.BytesIO(decoded(address)))[0] for address in utterance["sources"].values()
    )
    assert np.abs(one).max() == pytest.approx(1, abs=1e-3)
    assert not one[:10].any()
    assert clean == pytest.approx(signal / 4, abs=1e-4)


EVIL = "\"><script>alert(1)</script>&amp;'</style>"


def test_names_and_warnings_are_escaped(tmp_path: Path):
    analysis = audible(tmp_path, [EVIL, "</script>", "$x_1^2$", "b", "c"], one=0.5)
    analysis.data, analysis.warnings = EVIL, ["a doubt <b>"]
    page = report(analysis, tmp_path)
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("</style>") == 1
    assert EVIL in html.unescape(page)
    assert "<strong>Warning.</strong> a doubt &lt;b&gt;" in page
    content = re.search(r'<script type="application/json" id="audio">(.*?)</script>', page, re.S)
    assert content
    assert len(json.loads(content[1])) == 5
