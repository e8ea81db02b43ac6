"""Verification of the benchmark's whole sets and their scores; what a pair's samples tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import sound
from verified import TEST, put, shift, small_corpus

from data import findings, split_checks, verify
from data.audio import read
from data.benchmark import TEST_FILES, TRAIN_PAIRS, TRAIN_SPEAKERS
from data.checks import Looked, Side, clipped_share, lag_of, mixture_fault
from data.corpus_checks import check_scores
from data.findings import Split
from data.listing import Listing
from data.noisy_scores import noisy_scores
from data.verify import main
from evaluation.scores import score

RATE = 16000

pytestmark = pytest.mark.usefixtures("own_index")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return small_corpus(tmp_path / "vb")


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
    found = check_scores(whole("test"), scores)
    assert found.verdict == verdict
    assert bool(found.remedy) == (verdict == "wrong")


def test_a_score_that_does_not_exist_is_named():
    scores = [{"pesq_wb": 1.97, "stoi": 0.921}] * 823 + [{"pesq_wb": "too long", "stoi": 0.9}]
    found = check_scores(whole("test"), scores)
    assert (found.verdict, found.files) == ("wrong", ("p257_431.noisy: too long",))


def test_the_noisy_scores_are_those_of_evaluation(tmp_path: Path, speech: tuple):
    paths = tuple(put(tmp_path, side, "x", "a", x) for side, x in zip("cn", speech, strict=True))
    assert noisy_scores(paths) == score(read(paths[0]), read(paths[1]), ("pesq_wb", "stoi"))
    long = tuple(
        put(tmp_path, side, "x", "b", np.tile(x, 15)) for side, x in zip("cn", speech, strict=True)
    )
    assert noisy_scores(long)["pesq_wb"] == "too long for PESQ (20 s)"


# The whole of the benchmark's sets, as far as names go


def whole(kind: str, change: Callable[[dict[str, str]], object] = lambda names: None) -> Split:
    """A split with all of the set's names, by speaker; nothing of it has been looked at."""
    if kind == "test":
        names = {
            f"{who}_{n + 1:03}": who for who, count in TEST_FILES.items() for n in range(count)
        }
    else:
        people = sorted(TRAIN_SPEAKERS)
        names = {f"{people[n % 28]}_{n // 28 + 1:03}": people[n % 28] for n in range(TRAIN_PAIRS)}
    change(names)
    sides = ({name: Path(f"{name}.{side}") for name in names} for side in ("clean", "noisy"))
    listing = Listing((Path("c"), Path("n")), *sides, names)
    look = Looked(Side(), Side())
    return Split(kind, listing, dict.fromkeys(names, look))


def _count(split: Split, tmp_path: Path) -> findings.Finding:
    return split_checks.check_split(tmp_path, split, {split.name: split})[0]


@pytest.mark.parametrize(("kind", "said"), [("train", "11,572 of 11,572"), ("test", "824 of 824")])
def test_a_whole_set(tmp_path: Path, kind: str, said: str):
    found = _count(whole(kind), tmp_path)
    assert found.verdict == "ok"
    assert found.text.startswith(f"{said} pairs of VoiceBank-DEMAND's t")


def _rename(names: dict[str, str]) -> None:
    names["p257_777"] = names.pop("p232_001") and "p257"


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("test", lambda names: names.pop("p232_001"), "823 of 824 pairs: 1 of"),
        ("test", lambda names: names.update(p232_999="p232"), "825 of 824 pairs of"),
        ("test", _rename, "824 of 824 pairs of VoiceBank-DEMAND's test set, but of other speakers"),
        ("train", lambda names: names.pop("p226_001"), "11,571 of 11,572 pairs: 1 of"),
        (
            "train",
            lambda names: names.update({x: "p999" for x in names if names[x] == "p287"}),
            "11,572 of 11,572 pairs of VoiceBank-DEMAND's training set of 28 speakers, but of",
        ),
    ],
)
def test_sets_that_are_nearly_whole(
    tmp_path: Path, kind: str, change: Callable[[dict[str, str]], object], said: str
):
    found = _count(whole(kind, change), tmp_path)
    assert found.verdict == "wrong"
    assert found.remedy
    assert found.text.startswith(said)
    if "but of" in said:
        assert {line.partition(":")[0] for line in found.files} <= {"p232", "p257", "p287", "p999"}
        assert len(found.files) == 2


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
