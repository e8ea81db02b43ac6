"""What the benchmark of windows measures, on a narrow network."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from saved_runs import save_run

from benchmarks import windows
from benchmarks.windows import HARD, long_recordings, measured, table
from training.config import Data
from training.trained import Trained, load_trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Trained:
    found = load_trained(save_run(tmp_path_factory.mktemp("model") / "run"))
    config = replace(found.config, data=Data(source="pairs", root=str(tiny_corpus)))
    return replace(found, config=config)


@pytest.mark.usefixtures("own_index")
def test_recordings_are_utterances_one_after_the_other(trained: Trained) -> None:
    one, _ = long_recordings(trained, 9.0, 2)
    assert len(one.noisy) >= 9 * 16_000
    assert sum(len(clean) for _, clean in one.utterances) == len(one.noisy)
    for place, clean in one.utterances:
        assert len(one.noisy[place]) == len(clean)
        assert np.corrcoef(one.noisy[place], clean)[0, 1] > 0.5


@pytest.mark.usefixtures("own_index")
def test_rows_are_differences_to_the_whole(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_pesq", lambda clean, y: float(np.sqrt(np.mean(y**2))))
    options = Namespace(contexts=[0, 0.2, 50], step=1.0, fade=0.048)
    rows = measured(trained, long_recordings(trained, 4.0, 1), options)
    none, some, whole, hard = rows
    # A context beyond the recording's ends makes the first window all of it.
    assert whole["residual"] < -120  # of rounding
    assert -150 < some["residual"] < none["residual"] < 0
    assert max(whole["worst_pesq"], some["worst_pesq"]) < none["worst_pesq"]
    assert (hard["way"], hard["extra"]) == (HARD, 0)
    assert some["extra"] == pytest.approx((0.4 + 0.048) / 1.0, rel=0.02)
    assert table(rows).count("\n") == 6
