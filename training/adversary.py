"""The metric discriminator: a network that has learnt to predict PESQ, and so can pass it on.

Sources: MetricGAN+ (Fu et al., Interspeech 2021) for the idea; CMGAN (Abdulatif, Cao and Yang,
IEEE TASLP 2024, figure 3 and equation 9) and MP-SENet for the network and the losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bandsplit.stft import compressed_magnitude, stft
from training.clipping import GradientClip
from training.distributed import World
from training.optimizer import gradients
from training.pesq_pool import PesqPool
from training.precision import forget_unscaled

_WIDTH = 16


class Discriminator(nn.Module):
    """Compressed magnitudes of a clean and an enhanced recording, (b, f, t) each, to (b,).

    The output, in (0, 1), is read as PESQ scaled from [1, 4.5].
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 2
        for factor in (1, 2, 4, 8):
            convolution = nn.Conv2d(width, factor * _WIDTH, 4, stride=2, padding=1, bias=False)
            width = factor * _WIDTH
            norm = nn.InstanceNorm2d(width, affine=True)
            layers += [spectral_norm(convolution), norm, nn.PReLU(width)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            spectral_norm(nn.Linear(width, width // 2)),
            nn.PReLU(width // 2),
            spectral_norm(nn.Linear(width // 2, 1)),
        )
        self.slope = nn.Parameter(torch.ones(1))  # of the sigmoid, learnt

    def forward(self, clean: Tensor, enhanced: Tensor) -> Tensor:
        x = self.features(torch.stack([clean, enhanced], dim=1))
        return torch.sigmoid(self.slope * self.head(x.amax(dim=(2, 3)))[:, 0].float())


def unheard(phase: str) -> None:
    """The listener to a step's phases where nobody listens."""


@dataclass
class Pending:
    """A batch whose labels may still be on the way: waveforms (b, s), and the wait for them."""

    clean: Tensor
    enhanced: Tensor
    labels: Callable[[], NDArray]


class Adversary:
    """The discriminator, its optimizer, its scaler and the batch it learns from next, as one.

    In each step of training, in this order: `term` judges the generator, with the discriminator
    frozen; `backward` makes the gradients of the discriminator's loss on the batch of the step
    before, waiting for its labels; `step` follows them, or `skip` forgets them; `remember` has the
    present batch labelled while the next step is computed.

    Args:
        world: the processes that train together; each has its part of every batch.
        device: where the discriminator is.
        make_optimizer: the discriminator to its optimizer.
        autocast: makes the context that forward passes run in.
        scaler: of the discriminator's own loss (enabled for fp16).
        pool: labels by PESQ.
        clip: clips its gradients.
    """

    def __init__(
        self,
        world: World,
        device: torch.device,
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        autocast: Callable[[], AbstractContextManager],
        scaler: torch.amp.GradScaler,
        pool: PesqPool,
        clip: GradientClip,
    ) -> None:
        self.world = world
        self.network = Discriminator().to(device)
        self.optimizer = make_optimizer(self.network)
        self.autocast, self.scaler, self.pool = autocast, scaler, pool
        self.clip = clip
        self.pending: Pending | None = None

    def term(self, enhanced: Tensor, clean: Tensor) -> Tensor:
        """The generator's metric loss for compressed magnitudes (b, f, t): squared distance to a
        score of 1."""
        with self._frozen(), self.autocast():
            judged = self.network(clean, enhanced)
        return F.mse_loss(judged, torch.ones_like(judged))

    def backward(self, mark: Callable[[str], None] = unheard) -> dict[str, Tensor]:
        """The gradients of the discriminator's loss on the remembered batch; what to log of it.

        The loss is the mean over the labelled items of all processes; those without a label are
        masked out. With nothing remembered there are no gradients, and nothing is returned.
        mark: told when the wait for the labels begins ("adversary" has ended) and ends ("labels").
        """
        self.optimizer.zero_grad(set_to_none=True)
        if self.pending is None:
            return {}
        clean, enhanced = (
            compressed_magnitude(stft(x)) for x in (self.pending.clean, self.pending.enhanced)
        )
        mark("adversary")
        labels = torch.from_numpy(self.pending.labels()).to(clean.device)
        mark("labels")
        self.pending = None
        valid = ~labels.isnan()
        known = labels.nan_to_num()
        everywhere = torch.stack([valid.sum().float(), known.sum()])
        self.world.add_up([everywhere])
        count, total = everywhere
        with self.autocast():
            # Both in one pass: no layer looks from one item to another.
            pairs = torch.cat([clean, clean]), torch.cat([clean, enhanced])
            perfect, judged = self.network(*pairs).chunk(2)
        errors = (perfect - 1).square() + (judged - known).square()
        loss = torch.where(valid, errors, 0.0).sum() / count.clamp_min(1)
        self.scaler.scale(loss).backward()
        loss = loss.detach()
        self.world.add_up([*gradients(self.network), loss])
        self.scaler.unscale_(self.optimizer)
        norm = self.clip(self.network.parameters())
        pesq = total / count * 3.5 + 1  # NaN where there is no label at all
        return {
            "discriminator": loss,
            "discriminator_grad_norm": norm,
            "pesq": pesq,
            "labelled": count,
        }

    def step(self) -> None:
        """Follow the gradients that `backward` has made, if it has made any."""
        if self._has_gradients():
            self.clip.accept()
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def skip(self) -> None:
        """Forget the gradients that `backward` has made, if it has made any."""
        if self._has_gradients():
            self.optimizer.zero_grad(set_to_none=True)
            forget_unscaled(self.scaler)

    def _has_gradients(self) -> bool:
        return any(p.grad is not None for p in self.network.parameters())

    def remember(self, enhanced: Tensor, clean: Tensor) -> None:
        """Take waveforms (b, s) to learn from in the next step, and have them labelled."""
        clean, enhanced = clean.detach(), enhanced.detach()
        labels = self.pool.label(*torch.stack([clean, enhanced]).cpu().numpy())
        self.pending = Pending(clean, enhanced, labels)

    def state_dict(self) -> dict[str, Any]:
        """Everything, the whole remembered batch and (waiting for them) its labels included.

        All processes must call it, and get the same.
        """
        pending = None
        if self.pending is not None:
            mine = {
                "clean": self.pending.clean.cpu(),
                "enhanced": self.pending.enhanced.cpu(),
                "labels": torch.from_numpy(self.pending.labels()),
            }
            parts = self.world.gather(mine)
            pending = {name: torch.cat([part[name] for part in parts]) for name in mine}
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "clip": self.clip.state_dict(),
            "pending": pending,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.clip.load_state_dict(state["clip"])
        self.pending = None
        if state["pending"] is not None:
            device = next(self.network.parameters()).device
            mine = self.world.share(len(state["pending"]["labels"]))
            clean, enhanced, labels = (
                state["pending"][name][mine] for name in ("clean", "enhanced", "labels")
            )
            known = labels.numpy()
            self.pending = Pending(clean.to(device), enhanced.to(device), lambda: known)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Gradients pass through the discriminator and stop at its weights.

        In evaluation mode its spectral norms keep their power iteration for its own steps.
        """
        self.network.eval().requires_grad_(False)
        try:
            yield
        finally:
            self.network.train().requires_grad_(True)
