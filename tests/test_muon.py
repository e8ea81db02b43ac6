"""Muon: orthogonal updates, stacks of matrices, what it takes of each network, and its state."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from abl3.train import PRESETS as PRESETS3
from baseline.bsrnn import BSRNN, LSTM
from baseline.train import PRESETS
from bsbimamba.network.bands import BandLinear
from bsbimamba.training.config import Optim
from bsbimamba.training.muon import Muon, matrices, orthogonalise
from bsbimamba.training.optimizer import make_optimizer


def parameter(shape: tuple[int, ...], count: int = 1, seed: int = 0) -> nn.Parameter:
    """A parameter that holds `count` matrices, with a gradient."""
    generator = torch.Generator().manual_seed(seed)
    p = nn.Parameter(torch.randn(shape, generator=generator))
    p.matrices = count  # type: ignore[attr-defined]
    p.grad = torch.randn(shape, generator=generator)
    return p


def muon(*parameters: nn.Parameter, lr: float = 0.01, weight_decay: float = 0.1) -> Muon:
    return Muon([{"params": parameters, "use_muon": True}], lr, (0.9, 0.99), weight_decay)


@pytest.mark.parametrize(("rows", "columns"), [(24, 40), (40, 24), (16, 16)])
def test_orthogonalise_keeps_singular_vectors_and_levels_singular_values(
    rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(3, rows, columns, generator=generator, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(random, full_matrices=False)
    values = torch.linspace(0.2, 1, min(rows, columns), dtype=torch.float64)
    scales = torch.tensor([1e-4, 1.0, 1e4], dtype=torch.float64)[:, None, None]
    result = orthogonalise((scales * (u * values) @ vh).float()).double()
    between = u.mT @ result @ vh.mT
    levels = between.diagonal(dim1=1, dim2=2)
    assert ((levels > 0.67) & (levels < 1.21)).all()
    torch.testing.assert_close(between, torch.diag_embed(levels), rtol=0, atol=1e-4)
    torch.testing.assert_close(u @ between @ vh, result, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon_steps_as_torch_does_on_one_matrix(shape: tuple[int, int]) -> None:
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
    """Matrices of one size, from whatever parameters, are computed as one batch."""
    shapes = [((32, 6), 4), ((12, 12), 2), ((5, 4, 6), 5), ((5, 6, 4), 5), ((8, 6), 1)]
    stacks = [parameter(shape, count, seed) for seed, (shape, count) in enumerate(shapes)]
    muon(*stacks).step()
    for seed, (shape, count) in enumerate(shapes):
        before = parameter(shape, count, seed)
        assert before.grad is not None
        sides = (x.view(count, -1, shape[-1]) for x in (before.detach(), before.grad))
        expected = []
        for matrix, grad in zip(*sides, strict=True):
            part = nn.Parameter(matrix.clone())
            part.matrices, part.grad = 1, grad  # type: ignore[attr-defined]
            muon(part).step()
            expected.append(part)
        torch.testing.assert_close(
            stacks[seed], torch.stack(expected).view(shape), rtol=0, atol=1e-6
        )


def test_muon_steps_are_as_large_as_those_of_adamw() -> None:
    """A root mean square of 0.2 times the rate, whatever the sizes."""
    for shape in ((32, 32), (128, 32), (32, 128)):
        p = parameter(shape)
        before = p.detach().clone()
        muon(p, lr=0.01, weight_decay=0.0).step()
        assert float((p.detach() - before).square().mean().sqrt()) == pytest.approx(2e-3, rel=0.25)


def test_muon_leaves_parameters_without_a_gradient_alone() -> None:
    first, second = parameter((4, 6)), parameter((4, 6))
    before = first.detach().clone()
    first.grad = None
    optimizer = muon(first, second)
    optimizer.step()
    assert torch.equal(first, before)
    assert first not in optimizer.state
    assert not torch.equal(second, before)


class Mixed(nn.Module):
    """Hidden matrices of all kinds, and parameters that are AdamW's, decayed and not."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.bands, self.head = LSTM(8, 6, True), BandLinear(3, 8, 8), nn.Linear(8, 4)
        self.bands.weight.matrices = 3  # type: ignore[attr-defined]
        self.kept = nn.Parameter(torch.ones(2, 4))
        self.kept.no_weight_decay = True  # type: ignore[attr-defined]

    def loss(self) -> Tensor:
        x = torch.linspace(-1, 1, 120).view(3, 5, 8)
        y = self.head(self.bands(self.lstm(x)))
        return (y[:, :2] * self.kept).square().sum()


def steps(module: Mixed, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
    for rate in rates:
        optimizer.zero_grad()
        module.loss().backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()


@pytest.fixture
def mixed() -> Callable[[], Mixed]:
    def make() -> Mixed:
        torch.manual_seed(0)
        return Mixed()

    return make


def test_make_optimizer_gives_adamw_what_is_not_marked(mixed: Callable[[], Mixed]) -> None:
    with_muon, with_adamw = mixed(), mixed()
    steps(with_muon, make_optimizer(with_muon, Optim(algorithm="muon")), [0.01])
    steps(with_adamw, make_optimizer(with_adamw, Optim(algorithm="adamw")), [0.01])
    for (name, p), q in zip(with_muon.named_parameters(), with_adamw.parameters(), strict=True):
        assert torch.equal(p, q) == (not matrices(p)), name


@pytest.mark.parametrize("algorithm", ["adamw", "muon"])
def test_optimizer_resumes_bit_for_bit(algorithm: str, mixed: Callable[[], Mixed]) -> None:
    module, optim = mixed(), Optim(algorithm=algorithm)
    optimizer = make_optimizer(module, optim)
    steps(module, optimizer, [0.01, 0.02])
    saved = io.BytesIO()
    torch.save([module.state_dict(), optimizer.state_dict()], saved)
    saved.seek(0)
    weights, state = torch.load(saved)
    other = mixed()
    other.load_state_dict(weights)
    resumed = make_optimizer(other, optim)
    resumed.load_state_dict(state)
    for one, its in ((module, optimizer), (other, resumed)):
        steps(one, its, [0.03, 0.01])
    for p, q in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "abl1": MBSNet1,
    "abl2": MBSNet2,
    "abl3": MBSNet3,
    "bsrnn": BSRNN,
    **{
        name: lambda network=network, config=config: network(**config.model)
        for name, (network, config) in {**PRESETS, **PRESETS3}.items()
    },
}
# What is left to AdamW is the decoders' last layers most of all: 29 % of BSRNN, 5 % of ablation 3.
SHARES = {
    "abl1": 78.6,
    "abl2": 82.8,
    "abl3": 87.6,
    "uniform31": 87.9,
    "bsrnn": 69.4,
    "bsrnn_public": 72.2,
    "bsrnn_bi": 70.4,
    "lstm_dualpath": 87.3,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_muon_has_its_share_of_each_network(name: str) -> None:
    parameters = list(NETWORKS[name]().parameters())
    share = sum(p.numel() for p in parameters if matrices(p)) / sum(p.numel() for p in parameters)
    assert 100 * share == pytest.approx(SHARES[name], abs=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_small_or_last_matrices_are_left_to_adamw(name: str) -> None:
    left = {
        ".".join(path.split(".")[-2:])
        for path, p in NETWORKS[name]().named_parameters()
        if p.ndim > 1 and not matrices(p) and not path.endswith("bias") and "norm" not in path
    }
    mamba = {"ssm.A_log", "x_proj.weight", "dt_proj.weight", "conv1d.weight"}
    always = {"split.weight", "output.weight"}  # gains of bins, and the decoders' last layers
    assert left == (always if name.startswith(("bsrnn", "lstm")) else always | mamba)


@pytest.mark.parametrize("name", NETWORKS)
def test_marks_count_gates_halves_and_bands(name: str) -> None:
    counts = {"lstm": 4, "in_proj": 2, "gate_and_value": 2}
    for path, p in NETWORKS[name]().named_parameters():
        if matrices(p):
            expected = len(p) if p.ndim == 3 else counts.get(path.split(".")[-2], 1)
            assert matrices(p) == expected, path
