"""docs/architecture.md and its drawing have the figures of the code."""

from __future__ import annotations

from xml.etree import ElementTree

import torch
from document_pages import DOCS, rows
from torch import nn

from abl1.mbs_net import MBSNet as Net1
from abl2.mbs_net import MBSNet as Net2
from abl3.mbs_net import MBSNet as Net3
from bandsplit.bands import WIDTHS
from bandsplit.cost import count_parameters
from bandsplit.net import BandSplitNet
from baseline.bsrnn import BSRNN, BSRNNLayer

NETWORKS: dict[str, type[BandSplitNet]] = {
    "baseline": BSRNN, "abl1": Net1, "abl2": Net2, "abl3": Net3,
}  # fmt: skip


def parameters_of(net: BandSplitNet) -> dict[str, int]:
    """Of each part in the table of docs/architecture.md."""
    time = band = 0
    for layer in net.layers.children():
        if isinstance(layer, BSRNNLayer):
            time += count_parameters(layer.time_norm) + count_parameters(layer.time_lstm)
            band += count_parameters(layer.band_norm) + count_parameters(layer.band_lstm)
        elif type(layer).__name__ == "IntraBandBiMamba":
            time += count_parameters(layer)
        else:
            band += count_parameters(layer)
    return {
        "split": count_parameters(net.split),
        "time paths": time,
        "band paths": band,
        "decoder": count_parameters(net.decoder),
        "in all": count_parameters(net),
    }


def test_the_table_of_parts_is_that_of_the_networks() -> None:
    table = rows("architecture.md", "Where the parameters are")
    for column, name in enumerate(table["part"]):
        found = {part: f"{count:,}" for part, count in parameters_of(NETWORKS[name]()).items()}
        assert {part: table[part][column] for part in found} == found
    assert len(table["part"]) == len(NETWORKS)


def test_the_table_of_a_path_is_that_of_its_modules() -> None:
    table = rows("architecture.md", "A path")
    block = Net1().layers[0].block
    mixer, ssm = block.mixer, block.mixer.forward_mamba.ssm
    single: dict[str, nn.Module] = {
        **dict(ssm.named_children()), "one direction": ssm, "merge": mixer.merge,
        "feed_forward": block.feed_forward, "a path": block,
    }  # fmt: skip
    found = {name: count_parameters(module) for name, module in single.items()}
    found |= {name: getattr(ssm, name).numel() for name in ("A_log", "D")}
    found["both directions"] = 2 * found["one direction"]
    found["both norms"] = sum(map(count_parameters, (block.mixer_norm, block.feed_forward_norm)))
    assert {name: int(row[1].replace(",", "")) for name, row in list(table.items())[2:]} == found
    for name in ("in_proj", "x_proj", "out_proj"):
        assert table[name][0] == " × ".join(map(str, getattr(ssm, name).weight.shape))


def test_the_shapes_are_those_of_a_batch() -> None:
    net = Net3(channels=16)
    noisy = torch.zeros(6, 32000)
    found: dict[str, torch.Size] = {"waveform": noisy.shape}
    net.split.register_forward_hook(
        lambda _, x, y: found.update({"spectrum, complex": x[0].shape, "features": y.shape})
    )
    net.decoder.register_forward_hook(lambda _, x, y: found.update({"filter, complex": y.shape}))
    net.enhance(noisy)
    table = rows("architecture.md", "Axes and shapes")
    for name, shape in found.items():
        sizes = [192 if size == 16 else size for size in shape]
        assert table[name][1] == " × ".join(f"{size:,}" for size in sizes)
    k, b, t, _ = found["features"]
    assert table["sequences of the time path"][1] == f"{k * b} × {t} × 192"
    assert table["sequences of the band path"][1] == f"{b * t:,} × {k} × 192"


def test_the_drawing_shows_the_figures_of_the_code() -> None:
    root = ElementTree.parse(DOCS / "architecture.svg").getroot()
    words = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for name, network in NETWORKS.items():
        assert words[words.index(name) + 4] == f"{count_parameters(network()):,}"
    hidden = [group.hidden for group in Net3().decoder.groups]
    assert f"adaptive, {' / '.join(map(str, sorted(set(hidden))))}" in words
    assert {f"time path: {31 * 6} sequences of 251 frames",
            f"band path: {6 * 251} sequences of {len(WIDTHS)} bands"} <= set(words)  # fmt: skip
