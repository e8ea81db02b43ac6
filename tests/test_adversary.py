"""The metric discriminator and its labels: used one step later, masked where there is none."""

from __future__ import annotations

import contextlib
import copy
import math
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
import torch
from conftest import ROOT
from numpy.typing import NDArray
from torch import Tensor

from bandsplit.stft import stft
from evaluation.metrics import pesq_wb
from training.adversary import Adversary
from training.config import Optim
from training.distributed import World
from training.optimizer import make_optimizer
from training.pesq_pool import PesqPool, normalised_pesq


@pytest.fixture(scope="module")
def pool() -> PesqPool:
    made = PesqPool(2)
    yield made
    made.close()


def make(pool: object, scaler: bool = False) -> Adversary:
    torch.manual_seed(3)
    return Adversary(
        World(),
        torch.device("cpu"),
        lambda network: make_optimizer(network, Optim()),
        contextlib.nullcontext,
        torch.amp.GradScaler("cpu", enabled=scaler),
        pool,  # type: ignore[arg-type]
        5.0,
    )


def voiced(seed: int, noise: float) -> tuple[Tensor, Tensor]:
    """Two seconds of something that PESQ takes for speech, clean and noisy: (2, s) each."""
    rng = np.random.default_rng(seed)
    t = np.arange(32000) / 16000
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)[None] + rng.uniform(-10, 10, (2, 1))
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / 16000
    clean = sum(np.sin(k * phase) / k for k in range(1, 20))
    clean *= np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1)
    noisy = clean + noise * rng.standard_normal(clean.shape)
    return torch.from_numpy(clean).float(), torch.from_numpy(noisy).float()


def learn(adversary: Adversary) -> dict[str, Tensor]:
    """The discriminator's part of a step."""
    values = adversary.backward()
    adversary.step()
    return values


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


class FixedPool:
    """Gives the labels it is told to, and counts how often they are asked for."""

    def __init__(self, labels: list[float]) -> None:
        self.labels = np.array(labels, np.float32)
        self.requests: list[NDArray] = []
        self.waits = 0

    def label(self, clean: NDArray, enhanced: NDArray):  # type: ignore[no-untyped-def]
        self.requests.append(enhanced.copy())

        def wait() -> NDArray:
            self.waits += 1
            return self.labels

        return wait


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


def test_a_batch_is_learnt_from_in_the_step_after_its_own() -> None:
    fixed = FixedPool([0.5, 0.5])
    adversary = make(fixed)
    clean, first = voiced(3, 0.05)
    _, second = voiced(4, 0.1)
    assert learn(adversary) == {}
    adversary.remember(first, clean)
    assert fixed.waits == 0
    before = copy.deepcopy(adversary.network.state_dict())
    logged = learn(adversary)
    assert fixed.waits == 1
    assert int(logged["labelled"]) == 2
    assert float(logged["pesq"]) == pytest.approx(1 + 3.5 * 0.5)
    assert any(not torch.equal(a, b) for a, b in zip(
        before.values(), adversary.network.state_dict().values(), strict=True
    ))  # fmt: skip
    assert learn(adversary) == {}
    adversary.remember(second, clean)
    np.testing.assert_array_equal(fixed.requests[1], second.numpy())


def after_one_lesson(labels: list[float], items: slice) -> dict[str, Tensor]:
    adversary = make(FixedPool(labels))
    clean, noisy = voiced(5, 0.05)
    adversary.remember(noisy[items], clean[items])
    learn(adversary)
    return adversary.network.state_dict()


def test_an_item_without_a_label_teaches_nothing() -> None:
    """The lesson of a batch whose second item failed is that of the first item alone."""
    masked = after_one_lesson([0.4, np.nan], slice(0, 2))
    alone = after_one_lesson([0.4], slice(0, 1))
    for name, value in alone.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_batch_without_any_label_moves_no_weight() -> None:
    adversary = make(FixedPool([np.nan, np.nan]))
    before = [p.detach().clone() for p in adversary.network.parameters()]
    clean, noisy = voiced(6, 0.05)
    adversary.remember(noisy, clean)
    logged = learn(adversary)
    assert int(logged["labelled"]) == 0
    assert float(logged["discriminator"]) == 0
    assert math.isnan(float(logged["pesq"]))
    # AdamW's own decay of 0.01 x the rate is all that moves.
    for old, new in zip(before, adversary.network.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old, rtol=1e-5, atol=0)


def test_the_term_teaches_the_generator_alone() -> None:
    adversary = make(FixedPool([]))
    clean, noisy = (stft(x) for x in voiced(7, 0.05))
    state = copy.deepcopy(adversary.network.state_dict())
    spectrum = noisy.clone().requires_grad_()
    adversary.term(spectrum, clean).backward()
    assert spectrum.grad is not None
    assert spectrum.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in adversary.network.parameters())
    for name, value in adversary.network.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("silent", [slice(0, 2), slice(0, 1)])
def test_the_terms_gradient_is_finite_at_silence(silent: slice) -> None:
    adversary = make(FixedPool([]))
    clean, noisy = voiced(7, 0.05)
    noisy[silent] = 0
    clean[silent] = 0
    noisy.requires_grad_()
    term = adversary.term(stft(noisy), stft(clean))
    term.backward()
    assert term.isfinite()
    assert noisy.grad is not None
    assert noisy.grad.isfinite().all()


def test_state_with_a_pending_batch_goes_on_exactly(pool: PesqPool) -> None:
    clean, noisy = voiced(8, 0.1)
    _, other = voiced(9, 0.03)
    first, second = make(pool), make(pool)
    first.remember(noisy, clean)
    learn(first)
    first.remember(other, clean)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.pending is not None
    for adversary in (first, second):
        learn(adversary)
    for a, b in zip(
        first.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


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


def test_it_learns_to_tell_good_from_bad() -> None:
    adversary = make(FixedPool([0.9, 0.1]))
    clean, noisy = voiced(11, 0.3)
    enhanced = torch.stack([clean[0], noisy[1]])
    losses = []
    for _ in range(40):
        adversary.remember(enhanced, clean)
        losses.append(float(learn(adversary)["discriminator"]))
    assert losses[-1] < 0.3 * losses[0]
