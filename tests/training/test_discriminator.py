"""The metric discriminator: what it learns, from whose labels, and what it tells the generator.

`python test_discriminator.py FOLDER` learns in one of several processes, and saves loss and
gradients as FOLDER/RANK.pt.
"""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from processes import start_rank
from recordings import voiced
from torch import Tensor, nn

from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config, Loss, Optim
from bsbimamba.training.discriminator import MetricDiscriminator
from bsbimamba.training.distributed import World, join
from bsbimamba.training.precision import Precision


class FixedPool:
    """In the place of `PesqPool`: return the given labels (b,) in turn, note what is labelled."""

    def __init__(self, *labels: list[float]) -> None:
        self._labels = list(labels)
        self.pairs: list[tuple[NDArray, NDArray]] = []

    def label(self, reference: NDArray, judged: NDArray) -> Callable[[], NDArray]:
        labels = self._labels[len(self.pairs) % len(self._labels)]
        self.pairs.append((reference, judged))
        return lambda: np.array(labels, np.float32)


def make(
    *labels: list[float], config: Config | None = None, world: World | None = None
) -> MetricDiscriminator:
    """A discriminator on the CPU with fixed labels, without its dropout."""
    torch.manual_seed(3)
    pool = FixedPool(*labels)
    made = MetricDiscriminator(world or World(), config or Config(), Precision("cpu", "off"), pool)
    for layer in made.network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return made


def magnitudes_of(*waveforms: Tensor) -> list[Tensor]:
    return [compressed_magnitude(stft(x)) for x in waveforms]


# The generator's metric term


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_term_has_finite_gradients_of_the_generator_alone(silent: int) -> None:
    discriminator = make()
    clean, noisy = voiced(7, 0.05)
    clean[:silent] = noisy[:silent] = 0
    state = copy.deepcopy(discriminator.network.state_dict())
    noisy.requires_grad_()
    discriminator.term(*magnitudes_of(noisy, clean)).backward()
    assert noisy.grad.isfinite().all()
    assert silent == 2 or noisy.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in discriminator.network.parameters())
    for name, value in discriminator.network.state_dict().items():
        assert torch.equal(value, state[name]), name


# Its own loss


def test_loss_is_the_sum_over_kinds_of_pairs_of_means_over_labelled_crops() -> None:
    discriminator = make([0.4, np.nan], [0.9, 0.3], config=Config(loss=Loss(third_pair=True)))
    seen: list[Tensor] = []
    discriminator.network.register_forward_hook(lambda *call: seen.extend((*call[1], call[2])))
    clean, noisy = voiced(13, 0.2)
    enhanced = 0.5 * (clean + noisy)
    discriminator.remember(enhanced, clean, noisy)
    # PESQ is not symmetric: the enhanced recordings are the references of the noisy ones.
    expected_pairs = [(clean, enhanced), (enhanced, noisy)]
    for got, wanted in zip(discriminator.pool.pairs, expected_pairs, strict=True):
        np.testing.assert_array_equal(got, wanted)
    learnt = discriminator.backward()
    references, judged, scores = seen
    sides = magnitudes_of(clean, enhanced, noisy)
    assert torch.equal(references, torch.cat([sides[0], sides[0], sides[1]]))
    assert torch.equal(judged, torch.cat(sides))
    perfect, first, third = scores.detach().double().numpy().reshape(3, 2)
    expected = (perfect[0] - 1) ** 2 + (first[0] - 0.4) ** 2
    expected += ((third[0] - 0.9) ** 2 + (third[1] - 0.3) ** 2) / 2
    assert float(learnt["discriminator"]) == pytest.approx(expected, rel=1e-5)
    assert (float(learnt["labelled"]), float(learnt["pesq"])) == pytest.approx((1, 1 + 3.5 * 0.4))
    assert all(p.grad.isfinite().all() for p in discriminator.network.parameters())


def test_discriminator_learns_to_tell_good_from_bad() -> None:
    """By AdamW, whatever the generator's optimizer."""
    discriminator = make([0.9, 0.1], config=Config(optim=Optim(algorithm="muon")))
    assert type(discriminator.optimizer) is torch.optim.AdamW
    clean, noisy = voiced(11, 0.3)
    enhanced = torch.stack([clean[0], noisy[1]])
    losses = []
    for _ in range(40):
        discriminator.remember(enhanced, clean, noisy)
        losses.append(float(discriminator.backward()["discriminator"]))
        discriminator.step()
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


# Two processes


def share_of_four(world: World) -> dict[str, Tensor]:
    """Loss and gradients, by name, of this process' share of four crops."""
    labels = [0.4, np.nan, 0.7, 0.2]  # of two processes, one has a label and the other two
    mine = world.shard(len(labels))
    discriminator = make(labels[mine], world=world)
    pairs = [voiced(seed, noise) for seed, noise in ((1, 0.02), (2, 0.2))]
    clean, noisy = (torch.cat(side)[mine] for side in zip(*pairs, strict=True))
    discriminator.remember(0.5 * (clean + noisy), clean, noisy)
    learnt = discriminator.backward()
    gradients = {name: p.grad for name, p in discriminator.network.named_parameters()}
    return {"loss": learnt["discriminator"], **gradients}


def test_two_processes_learn_the_mean_over_the_labelled_crops_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one label and of two; a mean of the processes' means would weigh them wrongly."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    command = [sys.executable, __file__, str(tmp_path)]
    for process in [start_rank(command, rank, 2, 29513) for rank in range(2)]:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    alone = share_of_four(World())
    for rank in range(2):
        learnt = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert learnt.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(learnt[name], value, rtol=1e-4, atol=1e-6, msg=name)


if __name__ == "__main__":
    with join() as joined:
        torch.save(share_of_four(joined), Path(sys.argv[1]) / f"{joined.rank}.pt")
