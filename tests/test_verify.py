"""`python -m data.verify`: what it says of good corpora, and of every way in which one is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import sound

from data import findings, index, split_checks, verify
from data.audio import read
from data.benchmark import TEST_FILES
from data.checks import clipped_share, lag_of
from data.corpus_checks import check_scores
from data.findings import Split
from data.listing import list_pairs
from data.manifest import make
from data.verify import main

RATE = 16000
TRAIN = ["p226_001", "p227_002", "p228_003"]
TEST = ["p232_001", "p257_002"]


@pytest.fixture(autouse=True)
def _own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX", tmp_path / ".cache" / "index.json")


def pause(x: np.ndarray) -> np.ndarray:
    """With a pause that is not quite silent, as speech has some."""
    x = x.copy()
    x[3000:5000] *= 0.01
    return x


def put(root: Path, side: str, split: str, name: str, x: np.ndarray, rate: int = RATE) -> Path:
    path = root / f"{side}_{split}_wav" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x, rate)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three training pairs and two test pairs as of VoiceBank-DEMAND, all as they should be."""
    root = tmp_path / "vb"
    for split, names in (("trainset_28spk", TRAIN), ("testset", TEST)):
        for name in names:
            seed = int(name[1:4])
            clean = pause(sound(0.6, seed=seed))
            put(root, "clean", split, name, clean)
            put(root, "noisy", split, name, 0.7 * clean + 0.2 * sound(0.6, seed=seed + 1000))
    return root


def run(root: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[int, str]:
    status = main([str(root), "--workers", "1", "--no-scores", *options])
    return status, capsys.readouterr().out


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
    assert "3 of 11,572 pairs, 2 here" in text
    assert "3 of 11,572 pairs, 1 here" in text


# What is wrong: made of the corpus, and what is said of it.


def _shift(path: Path) -> None:
    x, _ = sf.read(path)
    sf.write(path, np.concatenate([np.zeros(37), x])[: len(x)], RATE)


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


def _twice(root: Path) -> None:
    for side in ("clean", "noisy"):
        folder = root / f"{side}_testset_wav"
        shutil.copytree(folder, folder / folder.name)


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
    "late": (_in("noisy", _shift), ("late or early", "p227_002.wav: +37 samples")),
    "same": (
        _in("noisy", lambda path: shutil.copy(str(path).replace("noisy", "clean", 1), path)),
        ("1 recordings are there more than once",),
    ),
    "twice": (
        _twice,
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


def test_files_that_are_not_the_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    path = corpus / "noisy_testset_wav" / "p232_001.wav"
    sf.write(path, 0.9 * read(path), RATE)
    status, text = run(corpus, capsys)
    assert status == 1
    assert f"1 times the manifests say something else\n  {path}\n" in text


def test_lengths_that_are_not_the_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    manifest = corpus / "manifests" / "test.jsonl"
    manifest.write_text(manifest.read_text().replace('"seconds": 0.6', '"seconds": 0.7', 1))
    status, text = run(corpus, capsys)
    assert status == 1
    assert "  p232_001: is not 0.7 s long\n" in text


def test_one_file_in_two_manifests(corpus: Path, capsys: pytest.CaptureFixture):
    make(corpus)
    line = (corpus / "manifests" / "test.jsonl").read_text().splitlines()[0]
    with (corpus / "manifests" / "train.jsonl").open("a") as file:
        file.write(line.replace('"p232"', '"p250"') + "\n")
    status, text = run(corpus, capsys)
    assert status == 1
    assert "clean_testset_wav/p232_001.wav: clean in test, clean in train" in text


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


# The last word


def test_noisy_scores_of_a_part_are_told_without_verdict(speech, tmp_path, capsys):
    for number, name in enumerate(TEST):
        clean, noisy = (np.roll(x, 100 * number) for x in speech)
        put(tmp_path, "clean", "testset", name, clean)
        put(tmp_path, "noisy", "testset", name, noisy)
    assert main([str(tmp_path), "--workers", "1"]) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("test   noisy scores  note     PESQ ")
    assert line.endswith("over 2 files; only the mean of all 824 is known: 1.97 and 0.92")


def test_noisy_scores_wait_for_all_else_to_be_right(
    corpus: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verify, "noisy_scores", lambda paths: pytest.fail("scored"))
    _shift(corpus / "noisy_testset_wav" / "p232_001.wav")
    assert main([str(corpus), "--workers", "1"]) == 1
    assert "not scored, as something is wrong above" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pesq", "stoi", "verdict"),
    [
        (1.972, 0.921, "ok"),
        (1.9795, 0.926, "ok"),
        (1.99, 0.921, "wrong"),
        (1.95, 0.921, "wrong"),
        (1.97, 0.9, "wrong"),
        (float("nan"), 0.921, "wrong"),
    ],
)
def test_the_whole_test_set_must_score_as_everybodys(
    corpus: Path, pesq: float, stoi: float, verdict: str
):
    files = {str(number): Path(f"{number}.wav") for number in range(824)}
    listing = replace(list_pairs(corpus, "test"), clean=files, noisy=files)
    test = Split("test", listing, dict.fromkeys(files))  # type: ignore[arg-type]
    scores = [(pesq - 0.3, stoi - 0.05), (pesq + 0.3, stoi + 0.05)] * 412
    found = check_scores(test, scores)
    assert found.verdict == verdict
    assert bool(found.remedy) == (verdict == "wrong")


# By themselves


@pytest.mark.parametrize("lag", [-400, -1, 0, 1, 17, 8000])
def test_lag(lag: int):
    rng = np.random.default_rng(0)
    clean = sound(2.0, seed=3)
    rumble = 5 * np.cumsum(rng.standard_normal(len(clean))) / 100
    noisy = np.roll(clean, lag)
    if lag:
        noisy[slice(0, lag) if lag > 0 else slice(lag, None)] = 0
    assert lag_of(clean + rumble, noisy + 0.3 * sound(2.0, seed=4)) == lag


def test_clipping_is_runs_at_the_top():
    x = sound(1.0).astype(np.float32)
    assert clipped_share(x) == 0
    assert clipped_share(np.zeros(10, np.float32)) == 0
    cut = x.clip(-0.1, 0.2)
    top = int(np.sum(cut >= 0.2) + np.sum(cut <= -0.1))
    assert 0 < clipped_share(cut) <= top / len(x)
    x[500:504] = x.max()
    assert clipped_share(x) == 4 / len(x)


def test_real_recordings(shared_data: Path, capsys: pytest.CaptureFixture):
    for folder, part in (
        ("voicebank_demand_p232", "a part of: VoiceBank-DEMAND's test set, 393 of 824 pairs"),
        ("voicebank_demand_train_sample", "28 speakers, 22 of 11,572 pairs"),
    ):
        assert main([str(shared_data / folder), "--no-scores"]) == 0
        assert part in capsys.readouterr().out


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
