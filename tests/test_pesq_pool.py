"""PESQ from worker processes that may die or hang, at no cost but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from recordings import voiced

from evaluation.scores import pesq_wb
from training.pesq_pool import PesqPool, normalised_pesq


@pytest.fixture(scope="module")
def pool() -> PesqPool:
    made = PesqPool(2)
    yield made
    made.close()


def pid(pool: PesqPool) -> int:
    """The process of the first worker, which is started if it was not."""
    return pool.workers[0].call(60, os.getpid)


def gone(process: int) -> bool:
    """Whether a process ends within half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_labels_are_pesq(pool: PesqPool) -> None:
    clean, noisy = voiced(0, 0.05)
    labels = pool.label(clean.numpy(), noisy.numpy())()
    expected = [
        (pesq_wb(c, n) - 1) / 3.5 for c, n in zip(clean.numpy(), noisy.numpy(), strict=True)
    ]
    np.testing.assert_allclose(labels, expected, rtol=1e-6)
    assert (labels > 0).all()


def test_what_has_no_pesq_has_no_label(pool: PesqPool) -> None:
    clean, noisy = voiced(1, 0.05)
    clean[1] = 0
    labels = pool.label(clean.numpy(), noisy.numpy())()
    assert np.isfinite(labels).tolist() == [True, False]
    assert np.isnan(normalised_pesq(np.zeros(16000), np.ones(16000)))


def test_workers_hold_no_torch(pool: PesqPool) -> None:
    held = pool.workers[0].call(60, eval, "'torch' in __import__('sys').modules")
    assert held is False


@pytest.mark.parametrize(
    ("fault", "when"),
    [
        (signal.SIGKILL, "busy"),
        (signal.SIGSTOP, "busy"),
        (signal.SIGKILL, "idle"),
        pytest.param(signal.SIGSTOP, "idle", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_dies_or_hangs_costs_no_score(
    fault: int, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = PesqPool(1, limit=4)
    clean, noisy = (x.numpy() for x in voiced(2, 0.05))
    expected = pool.label(clean, noisy)()
    assert np.isfinite(expected).all()
    worker = pid(pool)
    waits: list[Callable[[], NDArray]] = []
    if when == "busy":
        waits = [pool.label(clean, noisy) for _ in range(3)]
    os.kill(worker, fault)
    waits.append(pool.label(clean, noisy))
    for wait in waits:
        np.testing.assert_array_equal(wait(), expected)
    how = "died" if fault == signal.SIGKILL else "took too long"
    assert f"the process that scored an utterance {how}; it is done again" in caplog.text
    assert pid(pool) != worker
    assert gone(worker)  # a hung one is ended, not left behind
    scores = [pool.validate(*pair, ("pesq_wb",))() for pair in zip(clean, noisy, strict=True)]
    np.testing.assert_allclose([s["pesq_wb"] for s in scores], 1 + 3.5 * expected, rtol=1e-6)
    pool.close()


def test_an_utterance_that_kills_its_worker_twice_has_no_score(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = PesqPool(1)
    assert pool._start(30, os._exit, 1).result() is None
    assert "died; it is done again" in caplog.text
    assert "died; it is left without a score" in caplog.text
    clean, noisy = (x.numpy() for x in voiced(2, 0.05))
    assert np.isfinite(pool.label(clean, noisy)()).all()
    pool.close()


def test_workers_end_with_their_parent_and_are_in_no_group_of_its_own() -> None:
    code = (
        "import os, time; from training.pesq_pool import PesqPool; pool = PesqPool(1);"
        "print(pool.workers[0].call(60, os.getpid), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert os.getpgid(worker) != os.getpgid(parent.pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(worker)


def test_labels_are_made_while_the_caller_works(pool: PesqPool) -> None:
    clean, noisy = voiced(10, 0.05)
    pool.label(clean.numpy(), noisy.numpy())()  # the workers are up
    done: list[Future] = []
    start = pool._start

    def watched(*arguments: Any) -> Future:
        done.append(start(*arguments))
        return done[-1]

    pool._start = watched  # type: ignore[method-assign]
    labels = pool.label(clean.numpy(), noisy.numpy())
    del pool._start
    deadline = time.monotonic() + 60
    while not all(future.done() for future in done) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(done) == 2
    assert all(future.done() for future in done)  # though nobody waits for them
    assert np.isfinite(labels()).all()
