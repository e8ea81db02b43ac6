"""Muon: its updates, stacks of matrices, and what it takes of each network."""

import math

import pytest
import torch

from abl1.mbs_net import MBSNet as MBSNet1
from abl2.mbs_net import MBSNet as MBSNet2
from abl3.mbs_net import MBSNet as MBSNet3
from abl3.train import PRESETS as PRESETS3
from baseline.bsrnn import BSRNN, LSTMDualPath
from baseline.train import PRESETS
from bsbimamba.training.muon import matrices, muon_update, orthogonalise, split


@pytest.mark.parametrize("rows", [24, 40])
def test_orthogonalise_changes_singular_values_by_its_polynomial(rows: int) -> None:
    """To between 0.68 and 1.21, whatever the scale."""
    x = torch.tensor([1e-4, 1.0, 1e4])[:, None, None] * torch.randn(3, rows, 40)
    u, values, vh = torch.linalg.svd(x.double(), full_matrices=False)
    values /= values.norm(dim=-1, keepdim=True)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    if rows == 24:  # of a square matrix, the smallest is too small
        assert 0.68 < values.min() < values.max() < 1.21
    expected = u @ torch.diag_embed(values) @ vh
    torch.testing.assert_close(orthogonalise(x).double(), expected, rtol=0, atol=1e-4)


def test_muon_updates_stacks_together_as_each_of_their_matrices_alone() -> None:
    shapes = [(4, 8, 6), (2, 6, 12), (5, 4, 6), (5, 6, 4), (1, 8, 6)]
    momentum = torch.randn(sum(math.prod(shape) for shape in shapes))
    updates = muon_update(momentum, shapes)
    for stack, update in zip(split(momentum, shapes), updates, strict=True):
        for matrix, got in zip(stack, update, strict=True):
            tall = matrix.shape[0] > matrix.shape[1]
            expected = orthogonalise((matrix.mT if tall else matrix)[None])[0]
            expected = 0.2 * max(matrix.shape) ** 0.5 * (expected.mT if tall else expected)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


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
