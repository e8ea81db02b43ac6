"""The metric discriminator: what it learns, from whose labels, and what it tells the generator."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from lesson import LABELS, FixedPool, lesson, make
from processes import start_rank
from recordings import voiced
from torch import Tensor, nn

from bsbimamba.data.corpus import load_pairs
from bsbimamba.data.dataset import PairDataset
from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config, Loss, Optim
from bsbimamba.training.discriminator import Discriminator, MetricDiscriminator
from bsbimamba.training.distributed import World
from bsbimamba.training.pesq import PesqPool

THIRD = Config(loss=Loss(third_pair=True))


@pytest.fixture(scope="module")
def pool() -> PesqPool:
    made = PesqPool(2)
    yield made
    made.close()


def learn(discriminator: MetricDiscriminator) -> dict[str, Tensor]:
    """The discriminator's part of a step."""
    values = discriminator.backward()
    discriminator.step()
    return values


def after_one_lesson(labels: list[float], items: slice) -> dict[str, Tensor]:
    discriminator = make(FixedPool(labels))
    clean, noisy = voiced(5, 0.05)
    discriminator.remember(noisy[items], clean[items], noisy[items])
    learn(discriminator)
    return discriminator.network.state_dict()


def test_crop_without_a_label_teaches_nothing() -> None:
    """The lesson of a batch whose second item failed is that of the first item alone."""
    masked = after_one_lesson([0.4, np.nan], slice(0, 2))
    alone = after_one_lesson([0.4], slice(0, 1))
    for name, value in alone.items():
        torch.testing.assert_close(masked[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_term_has_gradients_of_the_generator_alone() -> None:
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
def test_gradient_of_the_term_is_finite_at_silence(silent: slice) -> None:
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


@pytest.mark.parametrize("config", [Config(), THIRD], ids=["two pairs", "three"])
def test_state_with_a_pending_batch_goes_on_exactly(config: Config, pool: PesqPool) -> None:
    clean, noisy = voiced(8, 0.1)
    _, other = voiced(9, 0.03)
    first, second = make(pool, config), make(pool, config)
    first.remember(noisy, clean, noisy)
    learn(first)
    first.remember(other, clean, noisy)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.pending is not None
    for discriminator in (first, second):
        learn(discriminator)
    for a, b in zip(
        first.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_discriminator_learns_to_tell_good_from_bad() -> None:
    discriminator = make(FixedPool([0.9, 0.1]), dropout=0.3)
    clean, noisy = voiced(11, 0.3)
    enhanced = torch.stack([clean[0], noisy[1]])
    losses = []
    for _ in range(40):
        discriminator.remember(enhanced, clean, noisy)
        losses.append(float(learn(discriminator)["discriminator"]))
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


# Its optimizer, its dropout, its loss


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_optimizer_is_adamw_at_its_own_rate(algorithm: str) -> None:
    config = Config(optim=Optim(algorithm=algorithm, learning_rate=4e-3))
    optimizer = make(FixedPool([]), config).optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4]


def test_dropout_acts_where_it_learns_and_not_where_it_judges() -> None:
    """On 0.3 of its head's features, as in CMGAN and MP-SENet."""
    clean, noisy = voiced(12, 0.1)
    magnitudes = [compressed_magnitude(stft(x)) for x in (noisy, clean)]
    judged, learnt = [], []
    for seed in (0, 1):
        discriminator = make(FixedPool([0.4, 0.6]), dropout=0.3)
        discriminator.remember(noisy, clean, noisy)
        torch.manual_seed(seed)
        judged.append(float(discriminator.term(*magnitudes)))
        learnt.append(float(discriminator.backward()["discriminator"]))
    assert judged[0] == judged[1]
    assert learnt[0] != learnt[1]
    dropouts = [x.p for x in Discriminator().modules() if isinstance(x, nn.Dropout)]
    assert dropouts == [0.3]


def test_loss_is_the_sum_over_kinds_of_pairs_of_means_over_labelled_crops() -> None:
    discriminator = make(FixedPool([0.4, np.nan], [0.9, 0.3]), THIRD)
    seen: list[Tensor] = []
    discriminator.network.register_forward_hook(lambda *call: seen.extend((*call[1], call[2])))
    clean, noisy = voiced(13, 0.2)
    enhanced = 0.5 * (clean + noisy)
    discriminator.remember(enhanced, clean, noisy)
    learnt = discriminator.backward()
    references, judged, scores = seen
    sides = [compressed_magnitude(stft(x)) for x in (clean, enhanced, noisy)]
    # Clean, enhanced and noisy recordings, the last with the enhanced ones as reference.
    assert torch.equal(references, torch.cat([sides[0], sides[0], sides[1]]))
    assert torch.equal(judged, torch.cat(sides))
    perfect, first, third = scores.detach().double().numpy().reshape(3, 2)
    expected = (perfect[0] - 1) ** 2 + (first[0] - 0.4) ** 2
    expected += ((third[0] - 0.9) ** 2 + (third[1] - 0.3) ** 2) / 2
    assert float(learnt["discriminator"]) == pytest.approx(expected, rel=1e-5)
    assert (float(learnt["labelled"]), float(learnt["pesq"])) == pytest.approx((1, 1 + 3.5 * 0.4))


def test_third_pairs_are_labelled_by_pesq_of_the_noisy_against_the_enhanced(
    pool: PesqPool, tiny_corpus: Path
) -> None:
    valid = PairDataset(load_pairs(tiny_corpus, "valid"), 0, None, 32000)
    clean, noisy = (valid[0, 0][side][None] for side in ("clean", "noisy"))
    enhanced = 0.7 * clean + 0.3 * noisy
    discriminator = make(pool, THIRD)
    discriminator.remember(enhanced, clean, noisy)
    assert discriminator.pending is not None
    c, e, n = (x[0].numpy() for x in (clean, enhanced, noisy))
    expected = [[(pesq - 1) / 3.5] for pesq in (pesq_wb(c, e), pesq_wb(e, n))]
    np.testing.assert_allclose(discriminator.pending.labels(), expected, rtol=1e-5)
    assert abs(pesq_wb(e, n) - pesq_wb(n, e)) > 0.01  # the order counts


def test_two_processes_learn_the_mean_over_the_labelled_crops_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has a label of two, the other both: a mean of their means would be another lesson."""
    assert [int(np.isfinite(half).sum()) for half in np.split(LABELS, 2)] == [1, 2]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(ROOT / "tests" / "lesson.py"), str(tmp_path)]
    for process in [start_rank(command, rank, 2, 29513) for rank in range(2)]:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    alone = lesson(World())
    for rank in range(2):
        learnt = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert learnt.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(learnt[name], value, rtol=1e-4, atol=1e-6, msg=name)
