"""`python -m data.verify`: what it says of good corpora, and of every way in which one is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import sound
from verified import TEST, TRAIN, put, run, shift, small_corpus, twice

from data import findings, split_checks, verify
from data.audio import read
from data.benchmark import TEST_FILES
from data.manifest import make
from data.verify import main

RATE = 16000

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return small_corpus(tmp_path / "vb")


def test_a_part_of_the_benchmark_is_right(corpus: Path, capsys: pytest.CaptureFixture):
    status, text = run(corpus, capsys)
    assert status == 0, text
    assert "a part of: VoiceBank-DEMAND's training set of 28 speakers, 3 of 11,572 pairs" in text
    assert "a part of: VoiceBank-DEMAND's test set, 2 of 824 pairs" in text
    assert "wrong" not in text
    assert "What to do" not in text


def test_any_other_corpus_is_right_too(tiny_corpus: Path, capsys: pytest.CaptureFixture):
    status, text = run(tiny_corpus, capsys)
    assert status == 0, text
    assert "6 pairs" in text
    assert "every checksum is right" in text


def test_held_out_speakers_count_as_of_the_training_set(
    corpus: Path, capsys: pytest.CaptureFixture
):
    make(corpus, ["p226"])
    status, text = run(corpus, capsys)
    assert status == 0
    assert "3 of 11,572 pairs" in text
    assert "2 in train, 2 in test, 1 in valid" in text


# What is wrong: made of the corpus, and what is said of it.


def _stereo(path: Path) -> None:
    x, _ = sf.read(path)
    sf.write(path, np.stack([x] * 8, 1), RATE)


def _clip(path: Path) -> None:
    x, _ = sf.read(path)
    sf.write(path, (8 * x).clip(-1, 1), RATE)


def _float_with_nan(path: Path) -> None:
    x, _ = sf.read(path)
    x[100] = np.nan
    sf.write(path, x, RATE, "FLOAT")


def _in(side: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: change(root / f"{side}_trainset_28spk_wav" / "p227_002.wav")


def _exchange(root: Path) -> None:
    clean, noisy = (root / f"{side}_trainset_28spk_wav" for side in ("clean", "noisy"))
    clean.rename(root / "x")
    noisy.rename(clean)
    (root / "x").rename(noisy)


def _no_noise(path: Path) -> None:
    sf.write(path, 0.5 * read(Path(str(path).replace("noisy", "clean", 1))), RATE)


def _leak(root: Path) -> None:
    for side in ("clean", "noisy"):
        shutil.copy(
            root / f"{side}_testset_wav" / "p232_001.wav", root / f"{side}_trainset_28spk_wav"
        )


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no noisy": (
        _in("noisy", Path.unlink),
        ("1 files without their other side", "clean_trainset_28spk_wav/p227_002.wav"),
    ),
    "no clean": (
        _in("clean", Path.unlink),
        ("1 files without their other side", "noisy_trainset_28spk_wav/p227_002.wav"),
    ),
    "capitals": (
        _in("noisy", lambda path: path.rename(path.with_name("P227_002.wav"))),
        ("2 files without their other side", "P227_002.wav", "capital letters too"),
    ),
    "zero length": (_in("noisy", lambda path: path.write_bytes(b"")), ("empty: no bytes",)),
    "text": (_in("noisy", lambda path: path.write_text("x" * 99)), ("cannot be decoded",)),
    "cut": (
        _in("clean", lambda path: path.write_bytes(path.read_bytes()[:5000])),
        ("cut short or damaged",),
    ),
    "nan": (_in("noisy", _float_with_nan), ("p227_002.wav: has NaN or infinite samples",)),
    "silent": (
        _in("clean", lambda path: sf.write(path, np.zeros(9600), RATE)),
        ("p227_002.wav: silent",),
    ),
    "8 kHz": (
        _in("noisy", lambda path: sf.write(path, sound(0.6, 8000), 8000)),
        ("1 files are not of 16 kHz", "p227_002.wav: 8000 Hz, 1 channels"),
    ),
    "8 channels": (_in("noisy", _stereo), ("p227_002.wav: 16000 Hz, 8 channels",)),
    "clipped": (_in("noisy", _clip), ("1 files are clipped", "with some dB less gain")),
    "short": (
        _in("noisy", lambda path: sf.write(path, sf.read(path)[0][:-3], RATE)),
        ("longer or shorter", "p227_002.wav: -3 samples"),
    ),
    "late": (_in("noisy", shift), ("late or early", "p227_002.wav: +37 samples")),
    "same": (
        _in("noisy", lambda path: shutil.copy(str(path).replace("noisy", "clean", 1), path)),
        ("1 recordings are there more than once",),
    ),
    "twice": (
        twice,
        ("2 files lie in clean_testset_wav/clean_testset_wav", "remove the inner folder"),
    ),
    "leak": (
        _leak,
        ("p232 in train and test", "tested on must not be trained on", "more than once"),
    ),
    "exchanged": (
        _exchange,
        ("3 noisy files are not their clean files and noise", "dB less noise in its pauses"),
    ),
    "upside down": (
        _in("noisy", lambda path: sf.write(path, -sf.read(path)[0], RATE)),
        ("p227_002.wav is turned upside down",),
    ),
    "no noise": (_in("noisy", _no_noise), ("p227_002.wav has no noise",)),
    "stranger": (
        _in("clean", lambda path: (path.with_name("readme 1.wav")).write_bytes(path.read_bytes())),
        ("readme 1", "rename them"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(
    corpus: Path, fault: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(findings, "MOST", 0.6)  # one stranger among four is few
    make_wrong, said = FAULTS[fault]
    make_wrong(corpus)
    status, text = run(corpus, capsys)
    assert status == 1, text
    for each in (*said, "What to do: "):
        assert each in text


def test_files_that_the_log_has_and_the_corpus_not(
    corpus: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(split_checks.SETS, "test", (3, TEST_FILES.keys(), "the small test set"))
    monkeypatch.setattr(split_checks, "MOST", 0.5)
    (corpus / "logfiles").mkdir()
    lines = "".join(f"{name} bus 2.5\n" for name in [*TEST, "p257_432"])
    (corpus / "logfiles" / "log_testset.txt").write_text(lines)
    status, text = run(corpus, capsys)
    assert status == 1
    assert "  p257_432\n" in text
    assert "2 of 3 pairs: 1 of the small test set are missing" in text


def test_a_part_is_right_whatever_the_log_has(corpus: Path, capsys: pytest.CaptureFixture):
    (corpus / "logfiles").mkdir()
    (corpus / "logfiles" / "log_testset.txt").write_text("p257_432 bus 2.5\nnot a_file 3\n")
    status, text = run(corpus, capsys)
    assert status == 0
    assert "a part of: VoiceBank-DEMAND's test set, 2 of 824 pairs" in text


def test_many_files_are_counted_and_json_has_all(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for number in range(9):
        put(corpus, "clean", "trainset_28spk", f"p228_{100 + number}", sound(0.3, seed=number))
    status, text = run(corpus, capsys, "--json", str(tmp_path / "v.json"))
    assert status == 1
    assert "  and 4 more\n" in text
    content = json.loads((tmp_path / "v.json").read_text())
    assert content["verdict"] == "wrong"
    (wrong,) = [f for f in content["findings"] if f["verdict"] == "wrong"]
    assert len(wrong["files"]) == 9
    assert wrong["check"] == "pairing"


def test_several_processes_find_the_same(corpus: Path, capsys: pytest.CaptureFixture):
    _leak(corpus)
    _, one = run(corpus, capsys)
    main([str(corpus), "--workers", "2", "--no-scores"])
    assert capsys.readouterr().out == one


def test_the_same_sound_in_another_format_is_a_duplicate(
    corpus: Path, capsys: pytest.CaptureFixture
):
    folder = corpus / "noisy_trainset_28spk_wav"
    x, _ = sf.read(folder / "p227_002.wav", dtype="int16")
    (folder / "p228_003.wav").unlink()
    sf.write(folder / "p228_003.flac", x, RATE)
    _, text = run(corpus, capsys)
    assert "1 recordings are there more than once" in text


def test_other_corpora_are_not_scored(
    tiny_corpus: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verify, "noisy_scores", lambda paths: pytest.fail("scored"))
    assert main([str(tiny_corpus), "--workers", "1"]) == 0


def test_24_bits_are_right_and_a_table_too(corpus: Path, capsys: pytest.CaptureFixture):
    for path in corpus.rglob("p227_002.wav"):
        sf.write(path, sf.read(path)[0], RATE, "PCM_24")
    assert run(corpus, capsys)[0] == 0
    table = corpus / "pairs.csv"
    lines = [f"{s}_trainset_28spk_wav/{n}.wav" for n in TRAIN for s in ("clean", "noisy")]
    rows = [",".join(lines[i : i + 2]) for i in range(0, len(lines), 2)]
    table.write_text("clean,noisy\n" + "\n".join(rows) + "\n")
    status, text = run(table, capsys)
    assert status == 0, text
    assert "none, as a table says what there is" in text
    assert "3 of 11,572 pairs" in text


# The command line


@pytest.mark.parametrize("root", ["missing", "empty"])
def test_nothing_to_look_at(tmp_path: Path, root: str, capsys: pytest.CaptureFixture):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / root)]) == 2
    assert capsys.readouterr().err.startswith(
        f"verify: {tmp_path / root}: no pairs there. Expected"
    )


def test_a_report_that_cannot_be_written(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    target = tmp_path / "none" / "v.json"
    assert main([str(corpus), "--workers", "1", "--no-scores", "--json", str(target)]) == 2
    assert f"{target} cannot be written (No such file or directory)" in capsys.readouterr().err
