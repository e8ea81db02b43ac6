"""The page as text: its plots, which files it holds, and that no name breaks out of its text."""

from __future__ import annotations

import base64
import hashlib
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
from bsbimamba.report.figures import CURVE, colour_of, plots, write_curve
from bsbimamba.report.html import featured, listening, report
from bsbimamba.report.published import PUBLISHED, TRAINING

NAMES = [f"f{number}" for number in range(5)]
LOG = [{"step": s, "train": {"loss": 1 / s}, "valid": {"pesq_wb": 2 + s / 9}} for s in (1, 2, 3)]


def audible(folder: Path, names: list[str], **gains: float) -> Analysis:
    """Systems of such gains on files of half a second each; the n-th file gains n tenths more."""
    clean = {name: put(folder / "clean" / f"{n}.wav", seed=n) for n, name in enumerate(names)}
    systems = []
    for place, (name, gain) in enumerate({"noisy": 0.0, **gains}.items()):
        pesqs: dict[str, float | None] = {x: 1.5 + gain * (1 + n / 10) for n, x in enumerate(names)}
        files = {
            x: put(folder / name / f"{n}.wav", seed=10 * place + n) for n, x in enumerate(names)
        }
        facts = {"family": {"is": name}} if place else {}
        systems.append((System(name, files, system(name, {}, **facts)[0].facts), pesqs))
    return analysed(*systems, clean=clean)


def decoded(address: str) -> bytes:
    kind, _, content = address.partition(";base64,")
    assert kind.startswith("data:")
    return base64.b64decode(content)


# Plots


def drawn(analysis: Analysis) -> dict[str, str]:
    return {title: svg for title, _, svg in plots(analysis)}


def test_plots_are_those_that_show_something():
    runs = [(System(x.name, {}, x.facts, LOG), pesqs) for x, pesqs in trained("abl3", 0.1, 0.2)]
    analysis = analysed(NOISY, *runs)
    found = drawn(analysis)
    assert list(found) == [
        *("Differences", "PESQ by input SNR (dB)", "PESQ and size", "PESQ and computation"),
        *("PESQ against crops seen", "Training loss"),
    ]
    assert all("abl3 (2 seeds)</text>" in svg for svg in found.values())
    assert all(colour_of(analysis, analysis.models[1]) in svg for svg in found.values())
    papers = zip(PUBLISHED["system"], PUBLISHED["PESQ-WB"], strict=True)
    assert all(f"{name} {pesq:.2f}" in found["PESQ and size"] for name, pesq in papers)
    assert all(name in found["PESQ against crops seen"] for name, *_ in TRAINING)
    assert found == drawn(analysis)
    assert drawn(analysed(system("one", {"a": 2.0}))) == {}


def test_names_are_drawn_as_text():
    analysis = analysed(numbered("noisy", 0), numbered("$x_1^2$", 0.5, seed=1))
    assert "$x_1^2$</text>" in drawn(analysis)["Differences"]


def test_curve_is_written_where_there_is_a_log(tmp_path: Path):
    write_curve(analysed(numbered("noisy", 0), *trained("abl3", 0.1)), tmp_path)
    assert not (tmp_path / CURVE).exists()
    runs = [(System(x.name, {}, x.facts, LOG), pesqs) for x, pesqs in trained("abl3", 0.1)]
    write_curve(analysed(*runs), tmp_path)
    picture = matplotlib.image.imread(tmp_path / CURVE)
    assert picture.shape[:2] == (720, 1200)
    blue = np.abs(picture[..., :3] - np.array([0x0B, 0x62, 0xA8]) / 255).max(axis=-1) < 0.02
    assert blue.sum() > 100  # the colour of the first model


# Which files


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


def test_featured_files_are_in_the_page_and_others_while_there_is_room(tmp_path: Path):
    analysis = audible(tmp_path, NAMES, one=0.5)
    for each in listening(analysis, tmp_path, 1e9):
        assert list(each.audio) == ["noisy", "one", "clean"]
        assert each.pictures.keys() == (each.audio.keys() if each.why else set())
        signal, rate = soundfile.read(io.BytesIO(decoded(each.audio["one"])))
        assert (len(signal), rate) == (8000, 16000)
        for picture in each.pictures.values():
            assert matplotlib.image.imread(io.BytesIO(decoded(picture))).shape[0] == 257
    name = "50 % #1?\"'&<b>.wav"
    analysis.models[1].systems[0].files["f3"] = put(tmp_path / name)  # type: ignore[index]
    (tmp_path / "out").mkdir()
    least = {each.name: each for each in listening(analysis, tmp_path / "out", 0)}
    inside = {name for name, each in least.items() if each.audio["one"].startswith("data:")}
    assert inside == {"f0", "f2", "f4"}
    assert least["f1"].audio["one"] == "../one/1.wav"
    assert unquote(least["f3"].audio["one"]) == f"../{name}"
    assert not set(least["f3"].audio["one"]) & set(" #?\"'<>&")
    assert least["f4"].pesq == {"noisy": "1.500", "one": "2.200"}


def test_first_of_several_seeds_is_heard(tmp_path: Path):
    path = put(tmp_path / "f0.wav")
    runs = [
        (System(f"s{n}", {"f0": path}, system("", {}, seed=n)[0].facts), {"f0": 2.0 + n})
        for n in (0, 1)
    ]
    (utterance,) = listening(analysed(*runs, clean={"f0": path}), tmp_path, 0)
    assert list(utterance.audio) == ["s0", "clean"]
    assert utterance.pesq == {"s0": "2.000"}
    assert utterance.means == ["2.500"]


def test_levels_of_one_file_keep_their_relations(tmp_path: Path):
    """Where one would be clipped, all are made softer alike; NaN is silent."""
    analysis = audible(tmp_path, ["f0"], one=0.5)
    signal = sound(0.5).astype(np.float32)
    loud = (4 / np.abs(signal).max()) * signal
    loud[:10] = np.nan
    write(tmp_path / "one" / "0.wav", loud, "FLOAT")
    write(tmp_path / "clean" / "0.wav", signal, "FLOAT")
    (utterance,) = listening(analysis, tmp_path, 0)
    one, clean = (
        soundfile.read(io.BytesIO(decoded(utterance.audio[name])))[0] for name in ("one", "clean")
    )
    assert np.abs(one).max() == pytest.approx(1, abs=1e-3)
    assert not one[:10].any()
    assert clean == pytest.approx(signal / 4, abs=1e-4)


def test_missing_files_are_left_out(tmp_path: Path):
    analysis = audible(tmp_path, NAMES, one=0.5)
    (tmp_path / "one" / "4.wav").unlink()
    (tmp_path / "clean" / "2.wav").write_text("no audio")
    found = {each.name: list(each.audio) for each in listening(analysis, tmp_path, 1e9)}
    assert found["f4"] == ["noisy", "clean"]
    assert found["f2"] == ["noisy", "one"]


# The page as text

EVIL = "\"><script>alert(1)</script>&amp;'</style>"


def test_names_and_warnings_are_escaped(tmp_path: Path):
    analysis = audible(tmp_path, [EVIL, "</script>", "$x_1^2$", "b", "c"], one=0.5)
    analysis.data, analysis.warnings = EVIL, ["a doubt <b>"]
    page = report(analysis, tmp_path, 1e9)
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("</style>") == 1
    assert EVIL in html.unescape(page)
    assert "<strong>Do not trust these scores.</strong> a doubt &lt;b&gt;" in page
    content = re.search(r'<script type="application/json" id="audio">(.*?)</script>', page, re.S)
    assert content
    assert len(json.loads(content[1])) == 5


def test_page_needs_nothing_from_elsewhere_and_runs_its_own_script_alone(tmp_path: Path):
    page = report(audible(tmp_path, NAMES, one=0.5), tmp_path, 1e9)
    text = re.sub(r"data:[^\"']*", "", page)
    assert not re.search(r"(https?:)?//[a-z]", text)
    assert not re.search(r"<link(?! rel=\"icon\" href=\"\")|@import|url\(", text)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert html.unescape(policy).split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "media-src data: 'self' file:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
    ]
