"""What a network costs: its parameters, and its multiply-accumulates for a second of audio."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bandsplit.net import BandSplitNet
from data.audio import SAMPLE_RATE


def count_parameters(net: nn.Module) -> int:
    """Numbers in a network that are learnt."""
    return sum(p.numel() for p in net.parameters())


def count_macs(net: BandSplitNet, seconds: int = 2) -> float:
    """Multiply-accumulates for one second of one recording, counted on one forward pass.

    Counted are matrix products, convolutions, LSTMs, and three in each state update of a scan (the
    decay, the input, the output); not counted are elementwise functions, norms and transforms.
    """

    def lstm(x: Any, w_in: Any, w_out: Any, *args: Any, **kwargs: Any) -> int:
        return 2 * x[0] * x[1] * (w_in[0] * w_in[1] + w_out[0] * w_out[1])

    # The counter knows products and convolutions; the scan's operators have told it their own cost.
    formulas = {torch.ops.aten.mkldnn_rnn_layer: lstm}
    probe = copy.deepcopy(net).cpu().eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        probe(torch.zeros(1, seconds * SAMPLE_RATE))
    return counter.get_total_flops() / 2 / seconds
