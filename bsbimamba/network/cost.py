"""What a network costs: its size, its multiply-accumulates, and the time of its use."""

import copy
import os
import statistics
from timeit import repeat
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bsbimamba.data.levels import SAMPLE_RATE
from bsbimamba.network.bands import BANDS, BandLinear
from bsbimamba.network.net import BandSplitNet
from bsbimamba.utils import hardware


def count_parameters(net: nn.Module) -> int:
    """Return how many numbers of a network are learnt."""
    return sum(p.numel() for p in net.parameters())


def count_macs(net: BandSplitNet, seconds: int = 2) -> float:
    """Count multiply-accumulates for one second of one recording, counted on one forward pass.

    Counted are matrix products, convolutions, LSTMs, and three in each state update of a scan (the
    decay, the input, the output); not counted are elementwise functions, norms and transforms, nor
    the zeros that pad the products of all bands.
    """

    def lstm(x: Any, w_in: Any, w_out: Any, *args: Any, **kwargs: Any) -> int:
        return 2 * x[0] * x[1] * (w_in[0] * w_in[1] + w_out[0] * w_out[1])

    # The counter knows matrix products and convolutions; the scan has registered its operators.
    # Products of bands, the only ones by `baddbmm`, are padded: their weights are counted instead.
    formulas = {torch.ops.aten.mkldnn_rnn_layer: lstm, torch.ops.aten.baddbmm: lambda *_, **__: 0}
    of_bands = sum(m.weight.numel() for m in net.modules() if isinstance(m, BandLinear))
    probe = copy.deepcopy(net).cpu().eval()
    with (
        # This one may name a backend that no CPU can run, or that does not say what it costs.
        patch.dict(os.environ, {"BSBIMAMBA_SCAN": ""}),
        torch.no_grad(),
        FlopCounterMode(display=False, custom_mapping=formulas) as counter,
    ):
        noisy = torch.zeros(1, seconds * SAMPLE_RATE)
        # Band statistics, which are a norm's, take a product unless they are given.
        _, spectrum = probe(noisy, statistics=torch.ones(1, BANDS, 2))
    return (counter.get_total_flops() / 2 + spectrum.shape[-1] * of_bands) / seconds


def measure_cost(net: BandSplitNet, device: torch.device, seconds: int = 4) -> dict[str, Any]:
    """Measure the use of a network on one recording of noise, whole, with `net.enhance`.

    Time is the median of three passes over it. A copy is measured: the network stays on its device
    and in its mode, and no random state changes.

    Returns:
        `parameters`, `macs_per_second`, `real_time_factor` (seconds of processing for a second of
        audio), `measured_on`.
    """
    probe = copy.deepcopy(net).to(device).eval()
    # Noise: of silence a processor may compute faster, or far slower.
    noise = torch.randn(1, seconds * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    noisy = 0.1 * noise.to(device)

    # What is loaded and compiled once does not count.
    probe.enhance(noisy[:, : SAMPLE_RATE // 4])
    times = repeat(lambda: probe.enhance(noisy).cpu(), repeat=3, number=1)  # which waits for a GPU
    return {
        "parameters": count_parameters(net),
        "macs_per_second": count_macs(net),
        "real_time_factor": statistics.median(times) / seconds,
        "measured_on": f"{hardware(device)}, {seconds} s at once",
    }
