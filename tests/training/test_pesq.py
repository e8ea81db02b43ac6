"""PESQ from worker processes, which may die: their recording alone has no score."""

import multiprocessing
import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import voiced

from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.training.pesq import PesqPool

CLEAN, NOISY = (side.numpy() for side in voiced(0, 0.05))
LABELLING = "bsbimamba.training.pesq.normalised_pesq"


@pytest.fixture
def pool() -> Iterator[PesqPool]:
    """A pool of one worker."""
    made = PesqPool(1)
    yield made
    made.close()


def end_worker(clean: NDArray, enhanced: NDArray) -> float:
    """Stands for a recording that kills whoever scores it."""
    os._exit(1)


def take_a_second(clean: NDArray, enhanced: NDArray) -> float:
    time.sleep(1)
    return 0.5


def test_labels_are_pesq_and_nan_where_there_is_none(pool: PesqPool) -> None:
    labels = pool.label(CLEAN, NOISY)()
    expected = [(pesq_wb(c, n) - 1) / 3.5 for c, n in zip(CLEAN, NOISY, strict=True)]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    scores = [pool.validate(*pair, ("pesq_wb",))() for pair in zip(CLEAN, NOISY, strict=True)]
    np.testing.assert_allclose([s["pesq_wb"] for s in scores], 1 + 3.5 * labels, rtol=1e-6)
    silent = CLEAN * [[1], [0]]
    assert np.isfinite(pool.label(silent, NOISY)()).tolist() == [True, False]


def test_labels_are_made_while_the_caller_works(
    pool: PesqPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.label(CLEAN, NOISY)()  # the worker is up
    monkeypatch.setattr(LABELLING, take_a_second)
    labels = pool.label(CLEAN[:1], NOISY[:1])
    time.sleep(3)
    began = time.monotonic()
    assert labels() == [0.5]
    assert time.monotonic() - began < 0.5


def test_recording_that_ends_its_worker_has_no_score(
    pool: PesqPool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(LABELLING, end_worker)
        broken = pool.label(CLEAN[:1], NOISY[:1])
    sound = pool.label(CLEAN, NOISY)
    assert np.isnan(broken()).all()
    assert "an utterance is left without a score" in caplog.text
    assert np.isfinite(sound()).all()  # the worker is replaced


def test_worker_that_dies_while_idle_is_replaced(pool: PesqPool) -> None:
    assert np.isfinite(pool.label(CLEAN, NOISY)()).all()
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    time.sleep(2)  # until the pool has noticed
    assert np.isfinite(pool.label(CLEAN, NOISY)()).all()
