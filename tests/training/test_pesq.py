"""Labels by worker processes, which may die: their recording alone has no score; and by PyTorch."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from recordings import voiced

from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.training.pesq import PesqPool, label_on_device

PAIR = torch.stack(voiced(0, 0.05))  # clean and noisy: (2, b, s)
CLEAN, NOISY = PAIR.numpy()
SCORING = "bsbimamba.training.pesq.score"


@pytest.fixture
def pool() -> Iterator[PesqPool]:
    """A pool of one worker."""
    made = PesqPool(1)
    yield made
    made.close()


def end_worker(*arguments: Any) -> None:
    """Stands for a recording that kills whoever scores it."""
    os._exit(1)


def take_a_second(*arguments: Any) -> dict[str, float]:
    time.sleep(1)
    return {"pesq_wb": 2.75}


def test_labels_are_pesq_and_nan_where_there_is_none(pool: PesqPool) -> None:
    """Of each recording with the one before as its reference; by processes and on the device."""
    three = torch.stack([*PAIR, PAIR[0]])
    expected = [
        [(pesq_wb(c, n) - 1) / 3.5 for c, n in zip(*sides, strict=True)]
        for sides in ((CLEAN, NOISY), (NOISY, CLEAN))
    ]
    np.testing.assert_allclose(pool.label(three)(), expected, rtol=1e-6)
    np.testing.assert_allclose(label_on_device(three)(), expected, atol=3e-3)
    scores = [pool.validate(*pair, ("pesq_wb",))() for pair in zip(CLEAN, NOISY, strict=True)]
    found = [1 + 3.5 * label for label in expected[0]]
    assert [s["pesq_wb"] for s in scores] == pytest.approx(found)
    three[0, 1] = 0
    for labeller in (pool.label, label_on_device):
        assert labeller(three)().isfinite().tolist() == [[True, False], [True, True]]


def test_labels_are_made_while_the_caller_works(
    pool: PesqPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.label(PAIR)()  # the worker is up
    monkeypatch.setattr(SCORING, take_a_second)
    labels = pool.label(PAIR[:, :1])
    time.sleep(3)
    began = time.monotonic()
    assert labels().tolist() == [[0.5]]
    assert time.monotonic() - began < 0.5


def test_recording_that_ends_its_worker_has_no_score(
    pool: PesqPool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(SCORING, end_worker)
        broken = pool.label(PAIR[:, :1])
    sound = pool.label(PAIR)
    assert broken().isnan().all()
    assert "an utterance is left without a score" in caplog.text
    assert sound().isfinite().all()  # the worker is replaced


def test_worker_that_dies_while_idle_is_replaced(pool: PesqPool) -> None:
    assert pool.label(PAIR)().isfinite().all()
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    time.sleep(2)  # until the pool has noticed
    assert pool.label(PAIR)().isfinite().all()


SIGNALLED = """
import os, signal, time
from bsbimamba.data.workers import STOP_SIGNALS
from test_pesq import PAIR, PesqPool
for number in STOP_SIGNALS:
    signal.signal(number, lambda *_: None)
pool = PesqPool(1)
labels = pool.label(PAIR)  # its worker begins to start
for _ in range(50):
    time.sleep(0.02)
    for number in STOP_SIGNALS:
        os.killpg(0, number)
assert labels().isfinite().all()
"""


def test_signals_to_the_group_cost_no_label() -> None:
    """As a scheduler sends them: the parent alone decides what to do."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SIGNALLED], env=own, start_new_session=True, check=True)
