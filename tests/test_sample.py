"""The shipped sample: complete, readable, attributed, and free of what must not be trained on."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile as sf
from conftest import ROOT
from recordings import SAMPLE

from bsbimamba.data.benchmark import TEST_FILES
from bsbimamba.data.corpus import load_pairs
from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.training.config import Config, Data
from bsbimamba.training.sources import make_datasets

FILES = sorted(path for path in SAMPLE.rglob("*") if path.is_file())
FOLDERS = sorted({path.parent.relative_to(SAMPLE).as_posix() for path in FILES})

pytestmark = pytest.mark.usefixtures("own_index")


def test_files_are_16_khz_mono_and_at_most_8_mb() -> None:
    assert sum(path.stat().st_size for path in FILES) <= 8e6
    assert {path.suffix for path in FILES} == {".opus", ".flac"}
    for path in FILES:
        info = sf.info(path)
        assert (info.samplerate, info.channels) == (16_000, 1), path


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_listed_with_source_and_licence(folder: str) -> None:
    sections = (ROOT / "data" / "README.md").read_text(encoding="utf-8").split("\n## ")[1:]
    (section,) = (text for text in sections if f"`{folder}`" in text.partition("\n")[0])
    about, _, listed = section.rstrip().rpartition("\n\n")
    assert re.search(r"Source: .*Licence: CC BY 4\.0\.", about, re.S)
    assert "Changes: " in about
    names = sorted(path.stem for path in FILES if path.parent == SAMPLE / folder)
    assert re.split(r",\s+", listed) == names


def test_speech_is_balanced_and_validation_shares_no_speaker_and_no_noise() -> None:
    data = Data("mix", clean=str(SAMPLE / "clean"), noise=str(SAMPLE / "noise"))
    train, valid = make_datasets(Config(data=data), False)
    assert not set(train.speakers()) & set(valid.speakers())
    assert not {r.name for r in train.noise} & {r.name for r in valid.noise}
    assert len(valid.speakers()) >= 8
    speech = [*train.items, *valid.items]
    speakers = [recording.speaker for recording in speech]
    assert len(set(speakers)) >= 40
    assert max(map(speakers.count, speakers)) <= 2
    assert all(2 <= recording.info.frames / 16_000 <= 8 for recording in speech)
    assert 9 < sum(recording.info.frames for recording in speech) / 16_000 / 60 < 11
    trained = [path.stem for path in FILES if "test" not in path.relative_to(SAMPLE).parts]
    assert not [name for name in trained if name.startswith(tuple(TEST_FILES))]


def test_test_pairs_are_equally_long_and_as_noisy_as_the_benchmarks() -> None:
    pairs = load_pairs(SAMPLE, "test")
    assert len(pairs) == 20
    scores = []
    for pair in pairs:
        clean, noisy = (sf.read(path)[0] for path in (pair.clean, pair.noisy))
        assert len(clean) == len(noisy) == pair.frames
        scores.append(pesq_wb(clean, noisy))
    assert 1.7 < np.mean(scores) < 2.4
