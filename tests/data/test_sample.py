"""The shipped sample: attributed, and free of the benchmark's speakers where it is trained on."""

import pytest
from conftest import ROOT
from recordings import SAMPLE

from bsbimamba.data.benchmark import HELD_OUT, TEST_FILES
from bsbimamba.data.corpus import load_recordings

pytestmark = pytest.mark.usefixtures("own_index")


def test_sample_is_listed_in_the_readme_of_the_data() -> None:
    listed = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    files = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert [path for path in files if path.stem not in listed] == []


def test_sample_has_no_speech_of_the_benchmarks_speakers() -> None:
    speakers = {speech.speaker for speech in load_recordings(SAMPLE / "clean")}
    assert len(speakers) == 111
    assert speakers.isdisjoint({*HELD_OUT, *TEST_FILES})
