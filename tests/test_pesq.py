"""PESQ from worker processes that may die or hang: their recording alone has no score."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import voiced

from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.training.pesq import PesqPool, normalised_pesq


@pytest.fixture
def pool() -> Iterator[PesqPool]:
    made = PesqPool(1, limit=4)
    yield made
    made.close()


def pairs(seed: int) -> tuple[NDArray, NDArray]:
    clean, noisy = voiced(seed, 0.05)
    return clean.numpy(), noisy.numpy()


def end_worker(clean: NDArray, *more: object) -> float:
    """Stands for a recording that kills whoever scores it."""
    os._exit(1)


def hang(clean: NDArray, *more: object) -> float:
    """Stands for a recording that is never scored."""
    time.sleep(3600)
    return 0.0


def test_labels_are_pesq_and_nan_where_there_is_none(pool: PesqPool) -> None:
    clean, noisy = pairs(0)
    labels = pool.label(clean, noisy)()
    expected = [(pesq_wb(c, n) - 1) / 3.5 for c, n in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    scores = [pool.validate(*pair, ("pesq_wb",))() for pair in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose([s["pesq_wb"] for s in scores], 1 + 3.5 * labels, rtol=1e-6)
    clean[1] = 0
    assert np.isfinite(pool.label(clean, noisy)()).tolist() == [True, False]
    assert np.isnan(normalised_pesq(np.zeros(16000), np.ones(16000)))


def test_labels_are_made_while_the_caller_works(pool: PesqPool) -> None:
    """The second request finds its worker idle: what was asked for first is done already."""
    clean, noisy = pairs(10)
    pool.label(clean, noisy)()  # the worker is up
    labels = pool.label(clean, noisy)
    time.sleep(5)
    began = time.monotonic()
    labels()
    assert time.monotonic() - began < 0.1


@pytest.mark.parametrize("fault", [end_worker, hang])
def test_recording_that_ends_or_holds_its_worker_has_no_score(
    fault: Callable, pool: PesqPool, caplog: pytest.LogCaptureFixture
) -> None:
    clean, noisy = pairs(2)
    waits = [pool._start(fault, clean), pool.label(clean, noisy)]
    assert waits[0]() is None
    assert "an utterance is left without a score" in caplog.text
    assert np.isfinite(waits[1]()).all()  # the worker is replaced


def test_worker_that_dies_while_idle_is_replaced(pool: PesqPool) -> None:
    clean, noisy = pairs(3)
    assert np.isfinite(pool.label(clean, noisy)()).all()
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    time.sleep(2)  # until the pool has noticed
    assert np.isfinite(pool.label(clean, noisy)()).all()
