"""The metric discriminator: a network that learns to predict PESQ, and gives it a gradient.

Sources: MetricGAN+ (Fu et al., Interspeech 2021) for the idea; CMGAN (Abdulatif, Cao and Yang,
IEEE TASLP 2024, figure 3 and equation 9) and MP-SENet for the network, its dropout and the losses;
sungwon23/BSRNN for the third pair, the noisy recording judged with the enhanced one as reference.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from bsbimamba.network.stft import compressed_magnitude, stft
from bsbimamba.training.config import Config
from bsbimamba.training.distributed import World
from bsbimamba.training.flat import Flat
from bsbimamba.training.optimizer import Optimizer
from bsbimamba.training.pesq import Labeller
from bsbimamba.training.precision import Precision

_WIDTH = 16


class Discriminator(nn.Module):
    """Map compressed magnitudes of two recordings, (b, f, t) each, to the second's score (b,).

    The score, in (0, 1), is PESQ scaled from [1, 4.5], of the second with the first as reference.
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
            nn.Dropout(0.3),
            nn.PReLU(width // 2),
            spectral_norm(nn.Linear(width // 2, 1)),
        )
        self.slope = nn.Parameter(torch.ones(1))  # of the sigmoid, learnt

    def forward(self, reference: Tensor, judged: Tensor) -> Tensor:
        x = self.features(torch.stack([reference, judged], dim=1))
        return torch.sigmoid(self.slope * self.head(x.amax(dim=(2, 3)))[:, 0].float())


class Pending(NamedTuple):
    """Pairs to learn from, of which the labels may still be computed."""

    waveforms: Tensor  # (p + 1, b, s): clean, enhanced, (noisy), each judged against the one before
    labels: Callable[[], Tensor]  # waits for the PESQ (p, b), scaled to [0, 1]; NaN: there is none


class MetricDiscriminator:
    """The discriminator, its optimizer, its scaler and the batch it learns from next.

    In each step of training, in this order: `take` waits for the labels of the batch of the step
    before; `term` judges the generator, with the discriminator frozen; `backward` computes the
    gradients of the discriminator's loss on what was taken, which the optimizer follows, if all is
    well; `remember` has the present batch labelled while the next step is computed.
    """

    def __init__(
        self, world: World, config: Config, precision: Precision, labeller: Labeller
    ) -> None:
        self.world, self.labeller, self.autocast = world, labeller, precision.autocast
        self.third_pair = config.loss.third_pair
        self.network = Discriminator().to(precision.device)
        for parameter in self.network.parameters():
            parameter.full_precision = True  # type: ignore[attr-defined]  # for spectral norms
        # AdamW, whatever the generator's optimizer: the rate and the optimizer of its sources.
        self.flat = Flat(self.network, use_muon=False)
        self._parallel = world.parallel(self.flat)
        rate = config.optim.discriminator_rate
        self.optimizer = Optimizer(self.flat, config.optim, rate, precision.make_scaler())
        self.pending: Pending | None = None

    def term(self, enhanced: Tensor, clean: Tensor) -> Tensor:
        """Compute the generator's metric loss, the squared distance of its scores to 1.

        enhanced, clean: compressed magnitudes (b, f, t).
        """
        self.network.eval()  # its spectral norms keep their power iteration for its own steps
        with self.autocast():
            judged = self.flat(clean, enhanced, frozen=True)
        self.network.train()
        return F.mse_loss(judged, torch.ones_like(judged))

    def take(self) -> tuple[Tensor, ...]:
        """Return the remembered waveforms (p + 1, b, s) and labels (p, b), or nothing."""
        pending, self.pending = self.pending, None
        return () if pending is None else (pending.waveforms, pending.labels())

    def backward(self, waveforms: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the gradients of the loss on a batch from `take`; return what to log of it.

        A clean recording with itself as reference has the label 1, the pairs have their PESQ. The
        loss is the mean over the labelled crops of all processes, kind by kind, and the sum over
        the kinds of pairs.
        """
        magnitudes = [compressed_magnitude(stft(x)) for x in waveforms]
        valid = ~labels.isnan()
        known = labels.nan_to_num()
        sums = self.world.all_reduce_sum(torch.cat([valid.sum(1).float(), known[0].sum()[None]]))
        counts, total = sums[:-1], sums[-1]
        with self.autocast():
            # All in one pass: no layer looks from one item to another.
            references = torch.cat([magnitudes[0], *magnitudes[:-1]])
            judged = self._parallel(references, torch.cat(magnitudes))
        perfect, scores = judged.view(-1, labels.shape[1]).split([1, len(labels)])
        errors = (scores - known).square()
        errors = torch.cat([errors, (perfect - 1).square()])
        valid, shares = torch.cat([valid, valid[:1]]), torch.cat([counts, counts[:1]]).clamp_min(1)
        loss = (torch.where(valid, errors, 0.0).sum(1) / shares).sum()
        # Gradients become means over the processes; this loss is one process' part of a sum.
        self.optimizer.backward(self.world.size * loss)
        loss = self.world.all_reduce_sum(loss.detach())
        return {
            "discriminator": loss,
            "discriminator_grad_norm": self.optimizer.clip(),
            "pesq": total / counts[0] * 3.5 + 1,  # NaN where there is no label at all
            "labelled": counts[0],
        }

    def remember(self, waveforms: Tensor, go: Tensor) -> None:
        """Have a batch labelled, to learn from in the next step.

        waveforms: clean, enhanced and noisy, (3, b, s). go: where it is 0, the batch is replaced by
        silence, which has no label.
        """
        waveforms = torch.where(go > 0, waveforms[: 3 if self.third_pair else 2], 0.0)
        self.pending = Pending(waveforms, self.labeller(waveforms))

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, with the remembered batch and, once they are there, its labels.

        All processes must call it, and get the same.
        """
        pending = None
        if self.pending is not None:
            mine = {
                "waveforms": self.pending.waveforms.cpu(),
                "labels": self.pending.labels().cpu(),
            }
            parts = self.world.all_gather(mine)
            pending = {name: torch.cat([part[name] for part in parts], 1) for name in mine}
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pending": pending,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pending = None
        if state["pending"] is not None:
            device = next(self.network.parameters()).device
            mine = self.world.shard(state["pending"]["labels"].shape[1])
            waveforms, labels = (
                state["pending"][name][:, mine].to(device) for name in ("waveforms", "labels")
            )
            self.pending = Pending(waveforms, lambda: labels)
