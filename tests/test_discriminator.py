"""The metric discriminator: its labels are used one step later, masked where there is none."""

from __future__ import annotations

import contextlib
import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recordings import voiced
from torch import Tensor

from bandsplit.stft import compressed_magnitude, stft
from training.config import Optim
from training.discriminator import MetricDiscriminator
from training.distributed import World
from training.optimizer import make_optimizer
from training.pesq_pool import PesqPool


@pytest.fixture(scope="module")
def pool() -> PesqPool:
    made = PesqPool(2)
    yield made
    made.close()


def make(pool: object, scaler: bool = False) -> MetricDiscriminator:
    torch.manual_seed(3)
    return MetricDiscriminator(
        World(),
        torch.device("cpu"),
        lambda network: make_optimizer(network, Optim()),
        contextlib.nullcontext,
        torch.amp.GradScaler("cpu", enabled=scaler),
        pool,  # type: ignore[arg-type]
        5.0,
    )


def learn(discriminator: MetricDiscriminator) -> dict[str, Tensor]:
    """The discriminator's part of a step."""
    values = discriminator.backward()
    discriminator.step()
    return values


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


def test_a_batch_is_learnt_from_in_the_step_after_its_own() -> None:
    fixed = FixedPool([0.5, 0.5])
    discriminator = make(fixed)
    clean, first = voiced(3, 0.05)
    _, second = voiced(4, 0.1)
    assert learn(discriminator) == {}
    discriminator.remember(first, clean)
    assert fixed.waits == 0
    before = copy.deepcopy(discriminator.network.state_dict())
    logged = learn(discriminator)
    assert fixed.waits == 1
    assert int(logged["labelled"]) == 2
    assert float(logged["pesq"]) == pytest.approx(1 + 3.5 * 0.5)
    assert any(not torch.equal(a, b) for a, b in zip(
        before.values(), discriminator.network.state_dict().values(), strict=True
    ))  # fmt: skip
    assert learn(discriminator) == {}
    discriminator.remember(second, clean)
    np.testing.assert_array_equal(fixed.requests[1], second.numpy())


def after_one_lesson(labels: list[float], items: slice) -> dict[str, Tensor]:
    discriminator = make(FixedPool(labels))
    clean, noisy = voiced(5, 0.05)
    discriminator.remember(noisy[items], clean[items])
    learn(discriminator)
    return discriminator.network.state_dict()


def test_an_item_without_a_label_teaches_nothing() -> None:
    """The lesson of a batch whose second item failed is that of the first item alone."""
    masked = after_one_lesson([0.4, np.nan], slice(0, 2))
    alone = after_one_lesson([0.4], slice(0, 1))
    for name, value in alone.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_a_batch_without_any_label_moves_no_weight() -> None:
    discriminator = make(FixedPool([np.nan, np.nan]))
    before = [p.detach().clone() for p in discriminator.network.parameters()]
    clean, noisy = voiced(6, 0.05)
    discriminator.remember(noisy, clean)
    logged = learn(discriminator)
    assert int(logged["labelled"]) == 0
    assert float(logged["discriminator"]) == 0
    assert math.isnan(float(logged["pesq"]))
    # AdamW's own decay of 0.01 x the rate is all that moves.
    for old, new in zip(before, discriminator.network.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old, rtol=1e-5, atol=0)


def test_the_term_teaches_the_generator_alone() -> None:
    discriminator = make(FixedPool([]))
    clean, noisy = (compressed_magnitude(stft(x)) for x in voiced(7, 0.05))
    state = copy.deepcopy(discriminator.network.state_dict())
    magnitude = noisy.clone().requires_grad_()
    discriminator.term(magnitude, clean).backward()
    assert magnitude.grad is not None
    assert magnitude.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in discriminator.network.parameters())
    for name, value in discriminator.network.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("silent", [slice(0, 2), slice(0, 1)])
def test_the_terms_gradient_is_finite_at_silence(silent: slice) -> None:
    discriminator = make(FixedPool([]))
    clean, noisy = voiced(7, 0.05)
    noisy[silent] = 0
    clean[silent] = 0
    noisy.requires_grad_()
    term = discriminator.term(*(compressed_magnitude(stft(x)) for x in (noisy, clean)))
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
    for discriminator in (first, second):
        learn(discriminator)
    for a, b in zip(
        first.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_it_learns_to_tell_good_from_bad() -> None:
    discriminator = make(FixedPool([0.9, 0.1]))
    clean, noisy = voiced(11, 0.3)
    enhanced = torch.stack([clean[0], noisy[1]])
    losses = []
    for _ in range(40):
        discriminator.remember(enhanced, clean)
        losses.append(float(learn(discriminator)["discriminator"]))
    assert losses[-1] < 0.3 * losses[0]
