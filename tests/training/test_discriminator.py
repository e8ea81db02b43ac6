"""The metric discriminator: what it learns, from whose labels, and what it tells the generator.

`python test_discriminator.py FOLDER` learns in one of several processes, and saves loss and
gradients as FOLDER/RANK.pt.
"""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import ROOT
from recordings import voiced
from saved_runs import assert_same_state, fit_to, load, metrics
from torch import Tensor, nn

from bsbimamba.metrics.pesq_torch import pesq_torch
from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config, Loss, Optim, Run
from bsbimamba.training.discriminator import MetricDiscriminator
from bsbimamba.training.distributed import World, join
from bsbimamba.training.logging import read_config
from bsbimamba.training.loop import Trainer
from bsbimamba.training.precision import Precision


class FixedLabels:
    """A labeller: return the given labels (b,) of each kind of pairs, note what is labelled."""

    def __init__(self, *labels: list[float]) -> None:
        self._labels = torch.tensor(labels)
        self.labelled: list[Tensor] = []

    def __call__(self, waveforms: Tensor) -> Callable[[], Tensor]:
        self.labelled.append(waveforms)
        return lambda: self._labels


def make(
    *labels: list[float], config: Config | None = None, world: World | None = None
) -> MetricDiscriminator:
    """A discriminator on the CPU with fixed labels, without its dropout."""
    torch.manual_seed(3)
    precision, labeller = Precision("cpu", "off"), FixedLabels(*labels)
    made = MetricDiscriminator(world or World(), config or Config(), precision, labeller)
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
    assert discriminator.flat.tensor.grad is None
    for name, value in discriminator.network.state_dict().items():
        assert torch.equal(value, state[name]), name


# Its own loss


def test_loss_is_the_sum_over_kinds_of_pairs_of_means_over_labelled_crops() -> None:
    discriminator = make([0.4, np.nan], [0.9, 0.3], config=Config(loss=Loss(third_pair=True)))
    seen: list[Tensor] = []
    discriminator.network.register_forward_hook(lambda *call: seen.extend((*call[1], call[2])))
    clean, noisy = voiced(13, 0.2)
    enhanced = 0.5 * (clean + noisy)
    discriminator.remember(torch.stack([clean, enhanced, noisy]), torch.tensor(1.0))
    # PESQ is not symmetric: the enhanced recordings are the references of the noisy ones.
    assert torch.equal(discriminator.labeller.labelled[0], torch.stack([clean, enhanced, noisy]))
    learnt = discriminator.backward(*discriminator.take())
    references, judged, scores = seen
    sides = magnitudes_of(clean, enhanced, noisy)
    assert torch.equal(references, torch.cat([sides[0], sides[0], sides[1]]))
    assert torch.equal(judged, torch.cat(sides))
    perfect, first, third = scores.detach().double().numpy().reshape(3, 2)
    expected = (perfect[0] - 1) ** 2 + (first[0] - 0.4) ** 2
    expected += ((third[0] - 0.9) ** 2 + (third[1] - 0.3) ** 2) / 2
    assert float(learnt["discriminator"]) == pytest.approx(expected, rel=1e-5)
    assert (float(learnt["labelled"]), float(learnt["pesq"])) == pytest.approx((1, 1 + 3.5 * 0.4))
    assert discriminator.flat.tensor.grad.isfinite().all()


def test_discriminator_learns_to_tell_good_from_bad() -> None:
    """By AdamW, whatever the generator's optimizer."""
    discriminator = make([0.9, 0.1], config=Config(optim=Optim(algorithm="muon")))
    assert not discriminator.flat.muon
    clean, noisy = voiced(11, 0.3)
    waveforms = torch.stack([clean, torch.stack([clean[0], noisy[1]]), noisy])
    losses = []
    for _ in range(40):
        discriminator.remember(waveforms, torch.tensor(1.0))
        losses.append(float(discriminator.backward(*discriminator.take())["discriminator"]))
        discriminator.optimizer.step(torch.tensor(1.0), torch.tensor(True))
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


# Labels by processes and on the device


def run_with(labels: Literal["auto", "pesq", "torch"]) -> Run:
    return Run(workers=0, device="cpu", amp="off", log_every=1, metric_labels=labels)


@pytest.mark.parametrize("third_pair", [False, True])
def test_run_with_torch_labels_resumes_bit_for_bit(
    third_pair: bool, make: Callable[..., Trainer]
) -> None:
    settings = {"loss": Loss(metric=0.05, third_pair=third_pair), "run": run_with("torch")}
    whole = make("whole", **settings)
    fit_to(whole, 4)
    for stop in (2, 4):
        part = make("part", **settings)
        fit_to(part, stop)
    assert_same_state(whole.folder, part.folder)
    pending = load(part.folder / "last.pt")["discriminator"]["pending"]
    waveforms = pending["waveforms"]
    assert len(pending["labels"]) == 1 + third_pair
    for labels, reference, judged in zip(pending["labels"], waveforms, waveforms[1:], strict=False):
        expected = (pesq_torch(reference, judged) - 1) / 3.5
        torch.testing.assert_close(labels, expected, atol=1e-4, rtol=0)
        assert labels.isfinite().any()
    assert whole.pool.events == part.pool.events == []  # type: ignore[attr-defined]


def test_run_may_go_on_with_other_labels(make: Callable[..., Trainer]) -> None:
    """A batch keeps the labels that it was given; every start of the run says which it gives."""
    for step, labels in enumerate(("pesq", "torch", "torch", "auto"), start=1):
        trainer = make(run=run_with(labels))
        trainer.describe()
        fit_to(trainer, step)
    sessions = read_config(trainer.folder)["sessions"]
    assert [x["metric_labels"] for x in sessions] == ["pesq", "torch", "torch", "pesq"]
    pesq = [line["train"].get("pesq") for line in metrics(trainer.folder) if "train" in line]
    assert pesq[:2] == [None, 1 + 3.5 * 0.5]  # the fake pool's
    assert 1 + 3.5 * 0.5 not in pesq[2:]


# Two processes


def share_of_four(world: World) -> dict[str, Tensor]:
    """Loss and gradients, by name, of this process' share of four crops."""
    labels = [0.4, np.nan, 0.7, 0.2]  # of two processes, one has a label and the other two
    mine = world.shard(len(labels))
    discriminator = make(labels[mine], world=world)
    pairs = [voiced(seed, noise) for seed, noise in ((1, 0.02), (2, 0.2))]
    clean, noisy = (torch.cat(side)[mine] for side in zip(*pairs, strict=True))
    waveforms = torch.stack([clean, 0.5 * (clean + noisy), noisy])
    discriminator.remember(waveforms, torch.tensor(1.0))
    learnt = discriminator.backward(*discriminator.take())
    return {"loss": learnt["discriminator"], "gradient": discriminator.flat.tensor.grad}


def test_two_processes_learn_the_mean_over_the_labelled_crops_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one label and of two; a mean of the processes' means would weigh them wrongly."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([sys.executable, "-m", *launcher, __file__, str(tmp_path)], check=True)
    alone = share_of_four(World())
    for rank in range(2):
        learnt = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert learnt.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(learnt[name], value, rtol=1e-4, atol=1e-6, msg=name)


if __name__ == "__main__":
    with join() as joined:
        torch.save(share_of_four(joined), Path(sys.argv[1]) / f"{joined.rank}.pt")
