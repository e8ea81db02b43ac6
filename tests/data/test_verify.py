"""`python -m bsbimamba.data.verify`: what it says of good and of bad corpora."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from recordings import sound

from bsbimamba.data import verify
from bsbimamba.data.audio import read
from bsbimamba.data.levels import lag_of
from bsbimamba.data.verify import main

RATE = 16000
TRAIN = ["p226_001", "p227_002", "p228_003"]
TEST = ["p232_001", "p257_002"]

pytestmark = pytest.mark.usefixtures("own_index")


def put(root: Path, side: str, split: str, name: str, x: np.ndarray) -> Path:
    """A recording in the published folder of its side and split."""
    path = root / f"{side}_{split}_wav" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, x, RATE)
    return path


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three training pairs and two test pairs, all as they should be."""
    counts = {"clean_trainset_28spk_wav": len(TRAIN), "clean_testset_wav": len(TEST)}
    monkeypatch.setattr(verify, "_PUBLISHED", counts)
    for split, names in (("trainset_28spk", TRAIN), ("testset", TEST)):
        for name in names:
            seed = int(name[1:4])
            clean = sound(0.6, seed=seed)
            put(tmp_path, "clean", split, name, clean)
            put(tmp_path, "noisy", split, name, 0.7 * clean + 0.2 * sound(0.6, seed=seed + 1000))
    return tmp_path


def run(root: Path, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    """The command's status and what it prints."""
    status = main([str(root)])
    return status, capsys.readouterr().out


def test_verify_finds_nothing_wrong_in_good_corpora(
    corpus: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(corpus, capsys) == (0, "train: 3 pairs\ntest: 2 pairs\nnothing is wrong\n")
    expected = "train: 6 pairs\nvalid: 2 pairs\ntest: 4 pairs\nnothing is wrong\n"
    assert run(tiny_corpus, capsys) == (0, expected)
    for side in ("clean", "noisy"):  # nothing is clipped in floats
        _change(side, lambda x: 20 * x)(corpus)
    assert run(corpus, capsys)[0] == 0
    (corpus / "clean_testset_wav").rename(corpus / "clean")
    (corpus / "noisy_testset_wav").rename(corpus / "noisy")
    shutil.rmtree(corpus / "clean_trainset_28spk_wav")
    assert run(corpus, capsys) == (0, "test: 2 pairs\nnothing is wrong\n")


# What is wrong: made of the corpus, and what is said of it.


def _change(
    side: str, change: Callable[[np.ndarray], np.ndarray], rate: int = RATE, subtype: str = "FLOAT"
) -> Callable:
    def work(root: Path) -> None:
        path = root / f"{side}_trainset_28spk_wav" / "p227_002.wav"
        sf.write(path, change(read(path)), rate, subtype)

    return work


def _leak(root: Path) -> None:
    for split, other in (("testset", "trainset_28spk"), ("trainset_28spk", "testset")):
        name = {"testset": "p232_001.wav", "trainset_28spk": "p226_001.wav"}[split]
        for side in ("clean", "noisy"):
            folders = (root / f"{side}_{x}_wav" for x in (split, other))
            shutil.copy(next(folders) / name, next(folders))


FAULTS: dict[str, Callable[[Path], object]] = {
    "wav/p227_002.wav: has no noisy file": lambda root: next(root.rglob("noisy*/p227*")).unlink(),
    "p227_002.wav: silent": _change("clean", np.zeros_like),
    "p227_002.wav: 8000 Hz, 1 channels": _change("noisy", lambda x: x[::2], 8000),
    "1 clipped": _change("noisy", lambda x: 8 * x, subtype="PCM_16"),
    "p227_002.wav: -3 samples": _change("noisy", lambda x: x[:-3]),
    r"p227_002.wav: \+37 samples": _change("noisy", lambda x: np.pad(x, (37, 0))[: len(x)]),
    r"1 of another level.*\n.*p227_002.wav: -29\.\d dB": _change("noisy", lambda x: x / 20),
    r"p227_002.wav: \+0 samples, inverted": _change("noisy", np.negative),
    "1 of VoiceBank-DEMAND's splits incomplete: .*\n  train: 2 of 3 pairs": (
        lambda root: [path.unlink() for path in root.rglob("p227_002.wav")]
    ),
    r"p232 is a test speaker(.*\n)*.*p226 in train and test": _leak,
}


@pytest.mark.parametrize("said", FAULTS)
def test_verify_names_faults(corpus: Path, said: str, capsys: pytest.CaptureFixture) -> None:
    FAULTS[said](corpus)
    status, text = run(corpus, capsys)
    assert status == 1
    assert re.search(said, text), text


def test_verify_needs_pairs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"verify: {tmp_path}: no pairs there")


# A pair's samples


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("lag", [-400, 0, 8000])
def test_lag_of_is_found_through_noise_and_rumble(lag: int, sign: int) -> None:
    clean, noise = sound(2.0, seed=3), sound(2.0, seed=4)
    rumble = np.cumsum(np.random.default_rng(0).standard_normal(len(clean))) / 20
    shifted = np.pad(clean, (max(lag, 0), max(-lag, 0)))[max(-lag, 0) :][: len(clean)]
    found, likeness, gain = lag_of(clean + rumble, 0.7 * sign * shifted + 0.2 * noise)
    assert (found, 0.5 < sign * likeness < 1) == (lag, True)
    assert lag or gain == pytest.approx(0.7 * sign, abs=0.05)
