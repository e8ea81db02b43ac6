"""The four networks and the controls: size, cost, and what every enhancer here promises."""

import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import abl1.mbs_net
import abl2.mbs_net
import abl3.mbs_net
from abl1.train import CONFIG as ABL1
from abl2.train import CONFIG as ABL2
from abl3.train import CONFIG as ABL3
from abl3.train import PRESETS as ABL3_PRESETS
from baseline.bsrnn import BSRNN
from baseline.train import CONFIG as BASELINE
from baseline.train import PRESETS as BASELINE_PRESETS
from benchmarks.measuring import Operators
from bsbimamba.network.bands import DEFAULT_NORM, NORMS, Norm, band_statistics
from bsbimamba.network.cost import count_parameters
from bsbimamba.network.net import BandSplitNet
from bsbimamba.network.stft import compressed

NETWORKS = {
    "bsrnn": (BSRNN, BASELINE),
    "abl1": (abl1.mbs_net.MBSNet, ABL1),
    "abl2": (abl2.mbs_net.MBSNet, ABL2),
    "abl3": (abl3.mbs_net.MBSNet, ABL3),
}
EVERYTHING = {**NETWORKS, **BASELINE_PRESETS, **ABL3_PRESETS}
# SHA-256, first 12 digits, of names and shapes in each state_dict: trained weights depend on them.
KEYS = {
    "bsrnn": "996dd63b399f",
    "abl1": "c6dfd483db38",
    "abl2": "c05745b7a83d",
    "abl3": "cde0a9f610c6",
    "bsrnn_public": "076e08391d35",
    "bsrnn_bi": "f1becbf5415e",
    "lstm_dualpath": "5b62fa0b330a",
    "uniform31": "ff81f1add845",
}
PROMISED = {"bsrnn": 2.4e6, "abl1": 1.8e6, "abl2": 2.6e6, "abl3": 2.0e6}


def small(name: str, **options: Any) -> BandSplitNet:
    """A narrow network of that kind, with its output moved away from the identity."""
    network, config = EVERYTHING[name]
    torch.manual_seed(1)
    net = network(**{**config.model, "channels": 16, **options})
    with torch.no_grad():
        for parameter in net.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_size_is_the_promised_one(name: str) -> None:
    network, config = NETWORKS[name]
    assert count_parameters(network(**config.model)) == pytest.approx(PROMISED[name], rel=0.02)


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("norm", NORMS)
def test_state_dict_keys_are_frozen(name: str, norm: str) -> None:
    network, config = EVERYTHING[name]
    with torch.device("meta"):
        state = network(**{**config.model, "norm": norm}).state_dict()
    text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == KEYS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_without_arguments_it_is_the_network_of_the_table(name: str) -> None:
    network, config = NETWORKS[name]
    shapes = [p.shape for p in network().parameters()]
    assert shapes == [p.shape for p in network(**config.model).parameters()]


def test_lstm_path_is_as_large_as_a_mamba_path() -> None:
    lstm = count_parameters(BASELINE_PRESETS["lstm_dualpath"][0]().layers) / 2
    mamba = count_parameters(abl2.mbs_net.MBSNet().layers) / 2
    assert lstm == pytest.approx(mamba, rel=0.005)


def snr(estimate: Tensor, reference: Tensor) -> float:
    return float(10 * torch.log10(reference.square().sum() / (estimate - reference).square().sum()))


@pytest.mark.parametrize("name", EVERYTHING)
def test_untrained_it_returns_its_input(name: str) -> None:
    network, config = EVERYTHING[name]
    torch.manual_seed(0)
    noisy = 0.1 * torch.randn(1, 8000)
    assert snr(network(**config.model).enhance(noisy), noisy) > 25


@pytest.mark.parametrize("name", EVERYTHING)
def test_loudness_does_not_matter(name: str) -> None:
    net = small(name)
    noisy = 0.1 * torch.randn(1, 6000)
    expected = net.enhance(noisy)
    for gain in (0.01, 0.1, 3.0, 10.0):
        scaled = net.enhance(gain * noisy) / gain
        assert (scaled - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("name", EVERYTHING)
def test_an_item_does_not_depend_on_its_batch(name: str) -> None:
    net = small(name)
    noisy = torch.randn(3, 6000) * torch.tensor([[0.01], [1.0], [0.1]])
    together = net.enhance(noisy)
    for i in range(3):
        alone = net.enhance(noisy[i : i + 1])[0]
        assert (alone - together[i]).norm() / alone.norm() < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("samples", [1, 2, 127, 128, 129, 511, 512, 513, 1000, 4001])
def test_every_length_is_enhanced(name: str, samples: int) -> None:
    enhanced = small(name).enhance(torch.randn(2, samples))
    assert enhanced.shape == (2, samples)
    assert enhanced.isfinite().all()


FORK = """
import os, signal, sys, torch
from test_networks import small
torch.set_num_threads(2)
network, noisy = small(sys.argv[1]), 0.1 * torch.randn(1, 16000)
expected = network.enhance(noisy)
child = os.fork()
signal.alarm(60)  # ends a child that hangs
same = torch.allclose(network.enhance(noisy), expected, rtol=1e-4, atol=1e-6)
if child == 0:
    os._exit(not same)
assert same and os.wait()[1] == 0
"""


@pytest.mark.parametrize("name", ["abl3", "bsrnn"])
def test_forked_child_enhances_as_its_parent_does(name: str) -> None:
    """With the parent's threads running, which the child does not have."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", FORK, name], env=environment, check=True)


def test_what_is_no_batch_of_waveforms_is_refused() -> None:
    for shape in ((100,), (2, 0), (1, 2, 100)):
        with pytest.raises(ValueError, match="expected waveforms"):
            small("abl1").enhance(torch.zeros(shape))


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("norm", NORMS)
def test_silence_stays_silent_and_has_finite_gradients(name: str, norm: str) -> None:
    net = small(name, norm=norm)
    silence = torch.zeros(2, 3000, requires_grad=True)
    waveform, spectrum = net(silence)
    assert waveform.abs().max() < 1e-4
    (waveform.square().sum() + spectrum.abs().square().sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert silence.grad is not None
    assert silence.grad.isfinite().all()


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("norm", [*NORMS, None])
def test_norm_is_that_of_all_paths_and_decoders(name: str, norm: str | None) -> None:
    net = small(name) if norm is None else small(name, norm=norm)
    expected = norm or ("recording" if name == "bsrnn_public" else DEFAULT_NORM)
    dims = {m.dims for m in net.layers.modules() if isinstance(m, Norm)}
    assert dims == {NORMS[expected]}
    of_bands = (2, 3) if expected == "recording" else (3,)
    assert [decoder.norm.dims for decoder in net.decoder.decoders] == 5 * [of_bands]
    assert net.split.split_norm


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm is 'layer', expected one of 'channel', 'frame'"):
        small("abl1", norm="layer")


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("norm", NORMS)
def test_a_piece_with_the_statistics_of_the_whole_gives_what_the_whole_gives(
    name: str, norm: str
) -> None:
    """Shown with the sequence models silenced, which alone see far; in float64."""
    net = small(name, norm=norm).double()
    for module in net.layers.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.weight)
    spectrum = torch.randn(1, 257, 60, dtype=torch.complex128)
    spectrum[..., 20:40] *= 3
    statistics = band_statistics(torch.view_as_real(compressed(spectrum)))

    def taps(spectrum: Tensor, statistics: Tensor | None = None) -> Tensor:
        return net.decoder(net.layers(net.split(spectrum, statistics)))

    whole, piece = taps(spectrum)[:, :, 20:40], spectrum[..., 20:40]
    exact = torch.allclose(taps(piece, statistics), whole, rtol=0, atol=1e-6)
    assert exact is (norm != "recording")
    assert not torch.allclose(taps(piece), whole, atol=1e-3)


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_loop_runs_over_time(name: str) -> None:
    """As many operators, forward and backward, for a long recording as for a short one."""
    counts = []
    for samples in (4000, 16000):
        net = small(name)
        with Operators() as counter:
            waveform, spectrum = net(torch.randn(1, samples))
            (waveform.square().mean() + spectrum.abs().mean()).backward()
        counts.append(counter.count)
    assert counts[0] == counts[1]
    assert counts[0] > 100


@pytest.mark.parametrize("name", NETWORKS)
def test_autocast_stays_close_to_full_precision(name: str) -> None:
    net = small(name)
    noisy = torch.randn(1, 8000)
    expected = net.enhance(noisy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert snr(net.enhance(noisy), expected) > 30


def test_the_parts_that_must_not_overflow_do_not_in_fp16() -> None:
    """A loud bin times a loud filter exceeds fp16's 65504, at which an earlier network died."""
    net = small("abl3")
    with torch.no_grad():
        for decoder in net.decoder.decoders:
            decoder.output.weight.mul_(2000)
    tone = torch.cos(torch.arange(8000) * 2 * math.pi / 16)[None]
    with torch.autocast("cpu", dtype=torch.float16):
        waveform, spectrum = net(tone)
    assert spectrum.abs().max() > 65504
    assert waveform.isfinite().all()


@pytest.mark.filterwarnings("ignore")  # of instances that Dynamo makes, and of complex numbers
@pytest.mark.parametrize(
    ("name", "mode"),
    [("abl1", True), *(pytest.param("abl3", m, marks=pytest.mark.slow) for m in (False, "full"))],
)
def test_network_compiles_to_one_graph(name: str, mode: Any) -> None:
    net = small(name, use_checkpoint=mode)
    noisy = torch.randn(2, 2000)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = []
    for forward in (net, compiled):
        net.zero_grad()
        waveform, spectrum = forward(noisy)
        (waveform.square().sum() + spectrum.abs().sum()).backward()
        found.append([waveform.detach(), *(p.grad for p in net.parameters())])
    for eager, traced in zip(*found, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-4)
