"""Which files the page shows, what of them is in it, and that no name breaks out of its text."""

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
from systems import FACTS, numbered, system

from data.audio import write
from evaluation.analysis import Analysis, analyse
from evaluation.figures import against_cost, differences
from evaluation.listening import featured, leader, listening, pictures
from evaluation.models import System
from evaluation.report import report
from evaluation.spectrogram import FLOOR_DB, levels


def analysed(folder: Path, names: list[str], **gains: float) -> Analysis:
    """Systems of such gains on files of half a second each; the n-th file gains n tenths more."""
    clean = {name: put(folder / "clean" / f"{n}.wav", seed=n) for n, name in enumerate(names)}
    systems = []
    for place, (name, gain) in enumerate({"noisy": 0.0, **gains}.items()):
        pesqs = {utterance: 1.5 + gain * (1 + n / 10) for n, utterance in enumerate(names)}
        files = {
            utterance: put(folder / name / f"{n}.wav", seed=10 * place + n)
            for n, utterance in enumerate(names)
        }
        facts = {**FACTS, "family": {"is": name}} if place else {}
        systems.append(System(name, system(name, dict(pesqs)).rows, facts, files))
    return analyse(systems, "corpus", clean)


NAMES = [f"f{number}" for number in range(5)]


def decoded(address: str) -> bytes:
    kind, _, content = address.partition(";base64,")
    assert kind.startswith("data:")
    return base64.b64decode(content)


# Which files


def test_the_leader_is_the_system_of_the_highest_pesq(tmp_path: Path):
    model = leader(analysed(tmp_path, NAMES, one=0.5, two=0.7))
    assert model is not None
    assert model.name == "two"


def test_best_median_and_worst_go_by_the_gain_over_noisy(tmp_path: Path):
    assert featured(analysed(tmp_path, NAMES, one=0.5, two=1.0)) == {
        "f4": "Best file: PESQ of two against noisy +1.40",
        "f2": "Median file: PESQ of two against noisy +1.20",
        "f0": "Worst file: PESQ of two against noisy +1.00",
    }


def test_without_noisy_recordings_they_go_by_the_score():
    analysis = analyse([system("one", {"a": 2.0, "b": 3.0, "c": None, "d": 1.0})], "", {})
    assert featured(analysis) == {
        "b": "Best file: PESQ of one 3.00",
        "a": "Median file: PESQ of one 2.00",
        "d": "Worst file: PESQ of one 1.00",
    }


def test_of_few_files_none_is_shown_twice():
    analysis = analyse([system("one", {"a": 2.0})], "", {})
    assert featured(analysis) == {"a": "Best file: PESQ of one 2.00"}
    assert featured(analyse([system("one", {"a": None})], "", {})) == {}
    assert featured(analyse([system("noisy", {"a": 1.0})], "", {})) == {}


# What is in the page


def test_special_files_are_in_the_page_the_others_while_there_is_room(tmp_path: Path):
    analysis = analysed(tmp_path, NAMES, one=0.5)
    whole = listening(analysis, tmp_path, 1e9)
    assert [each.name for each in whole] == ["f4", "f2", "f0", "f1", "f3"]
    for each in whole:
        assert list(each.sources) == ["noisy", "one", "clean"]
        assert each.seconds == 0.5
        assert bool(each.why) == all(source.picture for source in each.sources.values())
        for source in each.sources.values():
            signal, rate = soundfile.read(io.BytesIO(decoded(source.audio)))
            assert (len(signal), rate) == (8000, 16000)
    assert whole[0].pesq == {"noisy": "1.500", "one": "2.200"}
    least = listening(analysis, tmp_path / "out", 0)
    assert [each.sources["one"].audio.startswith("data:") for each in least] == [True] * 3 + [
        False,
        False,
    ]
    assert least[3].sources["one"].audio == "../one/1.wav"
    (tmp_path / "out").mkdir()
    assert (tmp_path / "out" / least[3].sources["clean"].audio).is_file()


def test_the_room_is_what_it_is_said_to_be(tmp_path: Path):
    """Three files of four sounds each are shown; the next goes in as long as there is room."""
    analysis = analysed(tmp_path, NAMES, one=0.5)
    size = len(listening(analysis, tmp_path, 0)[0].sources["one"].audio)
    for room, inside in ((9 * size, 3), (9 * size + 1, 4), (12 * size + 1, 5)):
        found = listening(analysis, tmp_path, room)
        assert sum(each.sources["one"].audio.startswith("data:") for each in found) == inside


def test_of_several_seeds_the_first_is_heard_and_called_so(tmp_path: Path):
    first = analysed(tmp_path, ["f0"], one=0.5)
    (noisy, one) = first.systems
    again = System("again", system("again", {"f0": 3.05}).rows, {**one.facts, "seed": 9}, one.files)
    analysis = analyse([noisy, one, again], "", first.clean)
    (utterance,) = listening(analysis, tmp_path, 0)
    assert list(utterance.sources) == ["noisy", "one, of abl3 (2 seeds)", "clean"]
    assert utterance.pesq["one, of abl3 (2 seeds)"] == "2.000"
    assert utterance.means["abl3 (2 seeds)"] == "2.525"


def test_addresses_of_files_survive_any_name(tmp_path: Path):
    name = "50 % #1?\"'&<b>.wav"
    analysis = analysed(tmp_path, NAMES, one=0.5)
    odd = put(tmp_path / name)
    files = {**analysis.models[1].systems[0].files, "f1": odd}
    first, second = analysis.systems
    changed = System(second.name, second.rows, second.facts, files)
    found = listening(analyse([first, changed], "", analysis.clean), tmp_path, 0)
    address = next(each for each in found if each.name == "f1").sources["one"].audio
    assert unquote(address) == name
    assert not set(address) & set(" #?\"'<>&")


def test_levels_of_one_file_keep_their_relations(tmp_path: Path):
    """Where one would be clipped, all are made softer alike; what is no number is silent."""
    analysis = analysed(tmp_path, ["f0"], one=0.5)
    signal = sound(0.5).astype(np.float32)
    loud = (4 / np.abs(signal).max()) * signal
    loud[:10] = np.nan
    paths = analysis.models[1].systems[0].files["f0"], analysis.clean["f0"]
    for path, content in zip(paths, (loud, signal), strict=True):
        write(path, content, "FLOAT")
    (utterance,) = listening(analysis, tmp_path, 0)
    one, clean = (
        soundfile.read(io.BytesIO(decoded(utterance.sources[name].audio)))[0]
        for name in ("one", "clean")
    )
    assert np.abs(one).max() == pytest.approx(1, abs=1e-3)
    assert not one[:10].any()
    assert clean == pytest.approx(signal / 4, abs=1e-4)


def test_files_that_are_not_there_are_left_out(tmp_path: Path):
    analysis = analysed(tmp_path, NAMES, one=0.5)
    analysis.models[1].systems[0].files["f4"].unlink()
    analysis.clean["f2"].write_text("no audio")
    found = {each.name: list(each.sources) for each in listening(analysis, tmp_path, 1e9)}
    assert found["f4"] == ["noisy", "clean"]
    assert found["f2"] == ["noisy", "one"]
    assert not listening(analyse([numbered("noisy", 0)], "", {}), tmp_path, 0)


# Pictures


def test_a_tone_is_in_its_bin_and_the_scale_is_common():
    t = np.arange(8000) / 16000
    signals = {"loud": np.sin(2 * np.pi * 1000 * t), "soft": 0.01 * np.sin(2 * np.pi * 1000 * t)}
    found = levels(signals)
    assert {level.shape for level in found.values()} == {(257, 1 + 8000 // 128)}
    assert found["loud"].max() == pytest.approx(0, abs=1e-6)
    middle = found["loud"][:, 20:40]
    assert (middle.argmax(axis=0) == 32).all()  # of 31.25 Hz
    assert (middle.max(axis=0) - found["soft"][:, 20:40].max(axis=0)) == pytest.approx(40, abs=1e-6)
    assert found["soft"].min() >= FLOOR_DB


@pytest.mark.parametrize("samples", [1, 300, 511, 512, 513])
def test_short_and_silent_signals_have_pictures(samples: int):
    images = pictures({"a": np.zeros(samples), "b": 0.1 * np.ones(samples)})
    for content in images.values():
        assert matplotlib.image.imread(io.BytesIO(content)).shape[0] == 257


# The page as text


EVIL = "\"><script>alert(1)</script>&amp;'</style>"


def page_of(folder: Path, names: list[str], **gains: float) -> str:
    return report(analysed(folder, names, **gains), {}, folder, 1e9)


def test_no_name_breaks_out_of_its_text(tmp_path: Path):
    names = [EVIL, "</script>", "$x_1^2$", "b", "c"]
    analysis = analysed(tmp_path, names, one=0.5)
    first, second = analysis.systems
    renamed = System(EVIL, second.rows, {**second.facts, "recipe": EVIL}, second.files)
    page = report(analyse([first, renamed], EVIL, analysis.clean), {}, tmp_path, 1e9)
    assert "<script>alert" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("</style>") == 1
    assert EVIL in html.unescape(page)
    content = re.search(r'<script type="application/json" id="audio">(.*?)</script>', page, re.S)
    assert content
    assert len(json.loads(content[1])) == len(names)


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path):
    page = page_of(tmp_path, NAMES, one=0.5)
    page = page.replace("http://www.w3.org/", "")  # names of SVG's own vocabulary
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"data:[^\"']*", "", page))
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:,\")|@import|url\((?!#)", page)


def test_only_its_own_script_runs_and_nothing_is_loaded(tmp_path: Path):
    page = page_of(tmp_path, NAMES, one=0.5)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert html.unescape(policy).split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "media-src data: 'self' file:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_expected_figures_are_marked_as_such(tmp_path: Path):
    page = page_of(tmp_path, NAMES, one=0.5)
    table = page[page.index('<table class="sortable hoped">') :]
    table = table[: table.index("</table>")]
    assert "3.30 to 3.40" in table
    assert "not measured" in table
    assert "3.30 to 3.40" not in page.replace(table, "")


def test_a_page_is_the_same_every_time(tmp_path: Path):
    analysis = analysed(tmp_path, NAMES, one=0.5)
    plots = [[differences(analysis), against_cost(analysis, "parameters")] for _ in range(2)]
    assert plots[0] == plots[1]
