"""Weights that are put together, against assignments to a tensor of zeros."""

import pytest
import torch

from bsbimamba.recompute.weights import padded, stacked


@pytest.mark.parametrize("exporting", [False, True])
def test_padded_concatenates_and_fills_with_zeros(
    monkeypatch: pytest.MonkeyPatch, exporting: bool
) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    shapes = ((1, 2, 3), (2, 4, 1), (3, 5), (1, 2))
    a, b, c, d = parts = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    first, second = torch.zeros(3, 4, 3).double(), torch.zeros(4, 5).double()
    first[:1, :2], first[1:, :, :1], second[:3], second[3:, :2] = a, b, c, d
    for found, expected in zip(padded([a, b], [c, d]), (first, second), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(stacked([c, 2 * c])[0], torch.stack([c, 2 * c]))
    assert torch.autograd.gradcheck(lambda a, b, c, d: padded([a, b], [c, d]), parts)
