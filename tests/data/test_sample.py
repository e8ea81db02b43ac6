"""The shipped sample: attributed, and split without what must not be trained on."""

import pytest
from conftest import ROOT
from recordings import SAMPLE

from bsbimamba.data.benchmark import TEST_FILES
from bsbimamba.data.corpus import load_pairs
from bsbimamba.training.config import Config, Data
from bsbimamba.training.sources import make_datasets

pytestmark = pytest.mark.usefixtures("own_index")


def test_sample_is_listed_in_the_readme_of_the_data() -> None:
    listed = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert [path for path in files if path.stem not in listed] == []


def test_sample_shares_no_speaker_and_no_noise_with_validation() -> None:
    data = Data("mix", clean=str(SAMPLE / "clean"), noise=str(SAMPLE / "noise"))
    train, valid = make_datasets(Config(data=data), False)
    assert not set(train.speakers()) & set(valid.speakers())
    assert not {r.name for r in train.noise} & {r.name for r in valid.noise}
    assert len(valid.speakers()) >= 8
    assert TEST_FILES.keys().isdisjoint(train.speakers() + valid.speakers())
    assert len(load_pairs(SAMPLE, "test")) == 20
