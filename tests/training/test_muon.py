"""Muon: its updates, stacks of matrices, and what it takes of each network."""

import pytest
import torch
from torch import nn

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from abl3.train import PRESETS as PRESETS3
from baseline.bsrnn import BSRNN, LSTMDualPath
from baseline.train import PRESETS
from bsbimamba.training.config import Optim
from bsbimamba.training.muon import Muon, matrices, orthogonalise
from bsbimamba.training.optimizer import make_optimizer


def parameter(shape: tuple[int, ...], count: int = 1, seed: int = 0) -> nn.Parameter:
    """A parameter that holds `count` matrices, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    p = nn.Parameter(torch.randn(shape, generator=generator))
    p.matrices = count
    p.grad = torch.randn(shape, generator=generator)
    return p


def muon(*parameters: nn.Parameter) -> Muon:
    return Muon([{"params": parameters, "use_muon": True}], 0.01, (0.9, 0.99), 0.1)


SHAPES = pytest.mark.parametrize("shape", [(24, 40), (40, 24)])


@SHAPES
def test_orthogonalise_changes_singular_values_by_its_polynomial(shape: tuple[int, int]) -> None:
    """To between 0.68 and 1.21, whatever the scale."""
    x = torch.tensor([1e-4, 1.0, 1e4])[:, None, None] * torch.randn(3, *shape)
    u, values, vh = torch.linalg.svd(x.double(), full_matrices=False)
    values /= values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert 0.68 < values.min() < values.max() < 1.21
    expected = u @ torch.diag_embed(values) @ vh
    torch.testing.assert_close(orthogonalise(x).double(), expected, rtol=0, atol=1e-4)


@SHAPES
def test_muon_steps_as_torch_does_on_one_matrix(shape: tuple[int, int]) -> None:
    """As large as AdamW's, that is: 0.2 times the rate in the root mean square."""
    ours, its = parameter(shape), parameter(shape)
    before = ours.detach().clone()
    optimizer = muon(ours)
    other = torch.optim.Muon([its], 0.01, 0.1, adjust_lr_fn="match_rms_adamw")
    for seed in range(3):
        ours.grad = its.grad = parameter(shape, seed=seed).grad
        optimizer.step()
        other.step()
    distance = (ours - its).norm() / (its - before).norm()
    assert distance < 0.01  # torch's matrices are bfloat16


def test_muon_steps_stacks_together_as_each_of_their_matrices_alone() -> None:
    """And leaves a parameter without a gradient alone."""
    shapes = [((32, 6), 4), ((12, 12), 2), ((5, 4, 6), 5), ((5, 6, 4), 5), ((8, 6), 1)]
    stacks = [parameter(shape, count, seed) for seed, (shape, count) in enumerate(shapes)]
    idle = parameter((4, 6))
    idle.grad = None
    muon(idle, *stacks).step()
    assert torch.equal(idle, parameter((4, 6)))
    for seed, (shape, count) in enumerate(shapes):
        before = parameter(shape, count, seed)
        sides = (x.view(count, -1, shape[-1]) for x in (before.detach(), before.grad))
        expected = []
        for matrix, grad in zip(*sides, strict=True):
            part = nn.Parameter(matrix.clone())
            part.matrices, part.grad = 1, grad
            muon(part).step()
            expected.append(part)
        torch.testing.assert_close(
            stacks[seed], torch.stack(expected).view(shape), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_optimizer_steps_what_is_not_muons_as_adamw_does(algorithm: str) -> None:
    """Mamba's A_log and D are not decayed."""
    optim = Optim(algorithm=algorithm, weight_decay=0.5)
    module, other = MBSNet3(channels=16), MBSNet3(channels=16)
    other.load_state_dict(module.state_dict())
    free = [p for name, p in other.named_parameters() if name.endswith((".A_log", ".D"))]
    decayed = [p for p in other.parameters() if all(p is not x for x in free)]
    usual = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.5}, {"params": free, "weight_decay": 0.0}],
        betas=(optim.beta1, optim.beta2),
    )
    for network, optimizer in ((module, make_optimizer(module, optim)), (other, usual)):
        for rate in (0.01, 0.02, 0.01):
            for p in network.parameters():
                p.grad = torch.cos(9 * p.detach())
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
    for (name, p), q in zip(module.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6) != (algorithm == "muon" and matrices(p) > 0), name


NETWORKS = [
    *((network, {}) for network in (MBSNet1, MBSNet2, MBSNet3, BSRNN)),
    *((network, config.model) for network, config in (PRESETS | PRESETS3).values()),
]


@pytest.mark.parametrize(("network", "settings"), NETWORKS)
def test_muon_has_all_but_small_and_last_matrices(network: type, settings: dict) -> None:
    """Each gate, half and band of a stack is a matrix of its own."""
    counts = {"lstm": 4, "in_proj": 2, "gate_and_value": 2}
    left = set()
    for path, p in network(**settings).named_parameters():
        module, name = path.split(".")[-2:]
        if matrices(p):
            assert matrices(p) == (len(p) if p.ndim == 3 else counts.get(module, 1)), path
        elif p.ndim > 1 and not path.endswith("bias") and "norm" not in path:
            left.add(f"{module}.{name}")
    mamba = {"ssm.A_log", "x_proj.weight", "dt_proj.weight", "conv1d.weight"}
    always = {"split.weight", "output.weight"}  # gains of bins, and the decoders' last layers
    assert left == (always if network in (BSRNN, LSTMDualPath) else always | mamba)
