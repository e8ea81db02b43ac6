"""PESQ from worker processes that may die or hang, at no cost but time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import voiced

from evaluation.scores import pesq_wb
from training.pesq import PesqPool, normalised_pesq


@pytest.fixture
def pool() -> Iterator[PesqPool]:
    made = PesqPool(1, limit=4)
    yield made
    made.close()


def pairs(seed: int) -> tuple[NDArray, NDArray]:
    clean, noisy = voiced(seed, 0.05)
    return clean.numpy(), noisy.numpy()


def worker() -> int:
    """Return the process of the one worker."""
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    return process.pid


def end_worker(clean: NDArray) -> None:
    """Stands for a recording that kills whoever scores it."""
    os._exit(1)


def hang(clean: NDArray) -> None:
    """Stands for a recording that is never scored."""
    time.sleep(3600)


def test_labels_are_pesq_and_nan_where_there_is_none(pool: PesqPool) -> None:
    clean, noisy = pairs(0)
    labels = pool.label(clean, noisy)()
    expected = [(pesq_wb(c, n) - 1) / 3.5 for c, n in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    clean[1] = 0
    assert np.isfinite(pool.label(clean, noisy)()).tolist() == [True, False]
    assert np.isnan(normalised_pesq(np.zeros(16000), np.ones(16000)))


def test_labels_are_made_while_the_caller_works(pool: PesqPool) -> None:
    """The second request finds its worker idle: what was asked for first is done already."""
    clean, noisy = pairs(10)
    pool.label(clean, noisy)()  # the worker is up
    labels = pool.label(clean, noisy)
    time.sleep(3)
    began = time.monotonic()
    labels()
    assert time.monotonic() - began < 0.05


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_worker_that_dies_costs_no_score(
    busy: bool, pool: PesqPool, caplog: pytest.LogCaptureFixture
) -> None:
    clean, noisy = pairs(2)
    expected = pool.label(clean, noisy)()
    assert np.isfinite(expected).all()
    first = worker()
    waits: list[Callable[[], NDArray]] = []
    if busy:
        waits = [pool.label(clean, noisy) for _ in range(3)]
    os.kill(first, signal.SIGKILL)
    if not busy:
        time.sleep(1)
    waits.append(pool.label(clean, noisy))
    for wait in waits:
        np.testing.assert_array_equal(wait(), expected)
    if busy:
        assert "the process that scored an utterance failed" in caplog.text
    assert worker() != first
    scores = [pool.validate(*pair, ("pesq_wb",))() for pair in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose([s["pesq_wb"] for s in scores], 1 + 3.5 * expected, rtol=1e-6)


@pytest.mark.parametrize("fault", [end_worker, hang])
def test_recording_that_ends_or_holds_its_worker_twice_has_no_score(
    fault: Callable, pool: PesqPool, caplog: pytest.LogCaptureFixture
) -> None:
    clean, noisy = pairs(2)
    assert pool._start(fault, clean)() is None
    assert "the utterance is left without a score" in caplog.text
    assert np.isfinite(pool.label(clean, noisy)()).all()
