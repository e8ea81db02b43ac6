"""`python -m data.verify`: what it says of good corpora, and of every way in which one is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import sound

from data import verify
from data.audio import read
from data.benchmark import TEST_FILES, TRAIN_PAIRS, TRAIN_SPEAKERS
from data.corpus import Listing
from data.verify import check_scores, lag_of, main, mixture_fault, noisy_scores
from evaluation.scores import score

RATE = 16000

pytestmark = pytest.mark.usefixtures("own_index")

TRAIN = ["p226_001", "p227_002", "p228_003"]
TEST = ["p232_001", "p257_002"]


def put(root: Path, side: str, split: str, name: str, x: np.ndarray, rate: int = RATE) -> Path:
    """A recording in the published folder of its side and split."""
    path = root / f"{side}_{split}_wav" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x, rate)
    return path


def small_corpus(root: Path) -> Path:
    """Three training pairs and two test pairs, all as they should be."""
    for split, names in (("trainset_28spk", TRAIN), ("testset", TEST)):
        for name in names:
            seed = int(name[1:4])
            clean = sound(0.6, seed=seed)
            clean[3000:5000] *= 0.01  # a pause that is not quite silent, as speech has some
            put(root, "clean", split, name, clean)
            put(root, "noisy", split, name, 0.7 * clean + 0.2 * sound(0.6, seed=seed + 1000))
    return root


def shift(path: Path) -> None:
    """Let a recording come 37 samples later."""
    x, _ = sf.read(path)
    sf.write(path, np.concatenate([np.zeros(37), x])[: len(x)], RATE)


def run(root: Path, capsys: pytest.CaptureFixture, *options: str) -> tuple[int, str]:
    """The command's status and what it prints."""
    status = main([str(root), "--workers", "1", "--no-scores", *options])
    return status, capsys.readouterr().out


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return small_corpus(tmp_path / "vb")


def test_a_part_of_the_benchmark_is_right(corpus: Path, capsys: pytest.CaptureFixture):
    status, text = run(corpus, capsys)
    assert status == 0, text
    assert "train count         3 of the 11,572 pairs of VoiceBank-DEMAND's set" in text
    assert "test  count         2 of the 824 pairs of VoiceBank-DEMAND's set" in text
    assert "wrong" not in text
    assert "What to do" not in text


def test_any_other_corpus_is_right_too(tiny_corpus: Path, capsys: pytest.CaptureFixture):
    status, text = run(tiny_corpus, capsys)
    assert status == 0, text
    assert "6 pairs" in text


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
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(corpus: Path, fault: str, capsys: pytest.CaptureFixture):
    make_wrong, said = FAULTS[fault]
    make_wrong(corpus)
    status, text = run(corpus, capsys)
    assert status == 1, text
    for each in (*said, "What to do: "):
        assert each in text


def test_many_files_are_counted(corpus: Path, capsys: pytest.CaptureFixture):
    for number in range(9):
        put(corpus, "clean", "trainset_28spk", f"p228_{100 + number}", sound(0.3, seed=number))
    status, text = run(corpus, capsys)
    assert status == 1
    assert "9 files without their other side" in text
    assert "  and 4 more\n" in text


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
    assert "3 of the 11,572 pairs" in text


# The command line


@pytest.mark.parametrize("root", ["missing", "empty"])
def test_nothing_to_look_at(tmp_path: Path, root: str, capsys: pytest.CaptureFixture):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / root)]) == 2
    assert capsys.readouterr().err.startswith(f"verify: {tmp_path / root}: no pairs there")


# The last word


def test_noisy_scores_of_a_part_are_told_without_verdict(speech, tmp_path, capsys):
    for number, name in enumerate(TEST):
        clean, noisy = (np.roll(x, 100 * number) for x in speech)
        put(tmp_path, "clean", "testset", name, clean)
        put(tmp_path, "noisy", "testset", name, noisy)
    assert main([str(tmp_path), "--workers", "1"]) == 0
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("test  noisy scores  PESQ ")
    assert line.endswith("over 2 files; of all 824: 1.97 and 0.92")


def test_noisy_scores_wait_for_all_else_to_be_right(
    corpus: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verify, "noisy_scores", lambda paths: pytest.fail("scored"))
    shift(corpus / "noisy_testset_wav" / "p232_001.wav")
    assert main([str(corpus), "--workers", "1"]) == 1
    assert "not scored, as something is wrong above" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pesq", "stoi", "verdict"),
    [
        (1.972, 0.921, "ok"),
        (1.9795, 0.9255, "ok"),
        (1.99, 0.921, "wrong"),
        (1.95, 0.921, "wrong"),
        (1.97, 0.9, "wrong"),
    ],
)
def test_the_whole_test_set_must_score_as_everybodys(pesq: float, stoi: float, verdict: str):
    scores = [{"pesq_wb": pesq + sign * 0.3, "stoi": stoi + sign * 0.05} for sign in (-1, 1)] * 412
    found = check_scores(scores)
    assert bool(found.remedy) == (verdict == "wrong")


def test_a_score_that_does_not_exist_is_named():
    scores = [{"pesq_wb": 1.97, "stoi": 0.921}] * 823 + [{"pesq_wb": "too long", "stoi": 0.9}]
    found = check_scores(scores)
    assert (found.text, found.files) == ("1 scores do not exist", ["too long"])


def test_the_noisy_scores_are_those_of_evaluation(tmp_path: Path, speech: tuple):
    paths = tuple(put(tmp_path, side, "x", "a", x) for side, x in zip("cn", speech, strict=True))
    assert noisy_scores(paths) == score(read(paths[0]), read(paths[1]), ("pesq_wb", "stoi"))
    long = tuple(
        put(tmp_path, side, "x", "b", np.tile(x, 15)) for side, x in zip("cn", speech, strict=True)
    )
    assert noisy_scores(long)["pesq_wb"] == "too long for PESQ (20 s)"


# The whole of the benchmark's sets, as far as names go


def counted(
    kind: str, root: Path, change: Callable[[dict[str, str]], object] = lambda names: None
) -> verify.Finding:
    """Count a split with all of the set's names, by speaker."""
    if kind == "test":
        names = {
            f"{who}_{n + 1:03}": who for who, count in TEST_FILES.items() for n in range(count)
        }
    else:
        people = sorted(TRAIN_SPEAKERS)
        names = {f"{people[n % 28]}_{n // 28 + 1:03}": people[n % 28] for n in range(TRAIN_PAIRS)}
    change(names)
    sides = ({name: Path(f"{name}.{side}") for name in names} for side in ("clean", "noisy"))
    return verify._count(root, kind, {kind: Listing((root / "c", root / "n"), *sides, names)})


@pytest.mark.parametrize(("kind", "said"), [("train", "11,572 of the 11,572"), ("test", "824 of")])
def test_a_whole_set_is_right(tmp_path: Path, kind: str, said: str):
    found = counted(kind, tmp_path)
    assert not found.remedy
    assert found.text.startswith(said)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("test", lambda names: names.pop("p232_001"), "823 of the 824 pairs"),
        ("test", lambda names: names.update(p232_999="p232"), "825 of the 824 pairs"),
        ("train", lambda names: names.pop("p226_001"), "11,571 of the 11,572 pairs"),
    ],
)
def test_sets_that_are_nearly_whole_are_wrong(
    tmp_path: Path, kind: str, change: Callable[[dict[str, str]], object], said: str
):
    (tmp_path / "logfiles").mkdir()
    (tmp_path / "logfiles" / "log_testset.txt").write_text("p232_001 bus 5\np232_002 bus 5\n")
    found = counted(kind, tmp_path, change)
    assert found.remedy
    assert found.text.startswith(said)
    assert list(found.files) == (["p232_001"] if said.startswith("823") else [])


def test_real_recordings(shared_data: Path, capsys: pytest.CaptureFixture):
    for folder, part in (
        ("voicebank_demand_p232", "393 of the 824 pairs"),
        ("voicebank_demand_train_sample", "22 of the 11,572 pairs"),
    ):
        assert main([str(shared_data / folder), "--no-scores"]) == 0
        assert part in capsys.readouterr().out


# A pair's samples


@pytest.mark.parametrize("lag", [-400, -1, 0, 1, 17, 8000])
def test_lag(lag: int):
    rng = np.random.default_rng(0)
    clean = sound(2.0, seed=3)
    rumble = 5 * np.cumsum(rng.standard_normal(len(clean))) / 100
    noisy = np.roll(clean, lag)
    if lag:
        noisy[slice(0, lag) if lag > 0 else slice(lag, None)] = 0
    assert lag_of(clean + rumble, noisy + 0.3 * sound(2.0, seed=4)) == lag


@pytest.mark.parametrize("gain", [0.1, 1.0, 3.0])
def test_a_mixture_may_be_at_another_level(gain: float):
    clean = sound(1.0, seed=1)
    clean[4000:8000] *= 0.03
    noisy = clean + 0.02 * sound(1.0, seed=2)
    assert mixture_fault(clean, gain * noisy) == ""
    other = noisy + 0.1 * sound(1.0, seed=3)
    assert "less noise in its pauses" in mixture_fault(other, gain * noisy)
    assert mixture_fault(clean, gain * clean + 0.1) == "has no noise"
    assert mixture_fault(clean, -gain * noisy) == "is turned upside down"
    assert mixture_fault(np.zeros(9), np.ones(9)) == ""
