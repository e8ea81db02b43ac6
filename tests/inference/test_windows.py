"""Windows: they cover every sample once, with the loudness and statistics of the whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given
from hypothesis import strategies as st
from recordings import sound
from torch import Tensor, nn

from bsbimamba.data.audio import AudioError
from bsbimamba.inference.windows import Windows, enhanced, hops, overlapped, survey
from bsbimamba.network.bands import band_statistics
from bsbimamba.network.net import loudness
from bsbimamba.network.stft import compressed, stft

SHORT = Windows(length=0.4, context=0.08, fade=0.048)


def blocks_of(x: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Cut a signal (c, n) into blocks of these sizes, again and again, until it ends."""
    ends = np.cumsum(sizes * (x.shape[1] // sum(sizes) + 1))
    return np.split(x, ends[ends < x.shape[1]], axis=1)


class Given:
    """A source of given blocks."""

    def __init__(self, rate: int, *blocks: Any) -> None:
        self.rate, self.channels = rate, len(blocks[0])
        self.given = [np.asarray(block, np.float32) for block in blocks]
        self.frames = sum(block.shape[1] for block in self.given)

    def blocks(self) -> Iterator[np.ndarray]:
        yield from self.given


class Untouched(nn.Module):
    """A network that returns its input, and keeps the loudness and statistics that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.given: list[tuple[float, Tensor]] = []

    def enhance(self, noisy: Tensor, scale: Tensor, statistics: Tensor) -> Tensor:
        self.given.append((float(scale), statistics))
        return noisy


@given(
    st.integers(1, 30_000),
    st.integers(1, 3),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=4),
    st.sampled_from([SHORT, Windows(0.4, 0, 0), Windows(0.4, 0.1, 0), Windows(0.4, 0, 0.2)]),
)
def test_overlapped_returns_its_input_where_nothing_is_changed(
    total: int, channels: int, sizes: list[int], windows: Windows
):
    x = np.random.default_rng(0).standard_normal((channels, total)).astype(np.float32)
    y = np.concatenate(list(overlapped(blocks_of(x, sizes), np.copy, total, windows)), axis=1)
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_overlapped_drops_context_and_fades_the_rest():
    """Each window is replaced by its number, so that the output shows the windows of a sample."""
    total = 5 * SHORT.step
    count = iter(range(99))
    silence = [np.zeros((1, total), np.float32)]
    blocks = overlapped(silence, lambda x: np.full_like(x, next(count)), total, SHORT)
    y = np.concatenate(list(blocks), axis=1)[0]
    context, fade = hops(SHORT.context), hops(SHORT.fade)
    for number, (begin, _) in enumerate(SHORT.spans(total)[1:], 1):
        slope = y[begin + context : begin + context + fade] - (number - 1)
        expected = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
        np.testing.assert_allclose(slope, expected, atol=1e-6)
        assert (y[begin + context + fade : begin + SHORT.step + context] == number).all()


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_enhanced_resamples_there_and_back(rate: int):
    """Content below 3.5 kHz is preserved, over many windows and blocks."""
    x = soxr.resample(sound(4, 7_000), 7_000, rate)[None].astype(np.float32)
    source, network = Given(rate, *np.split(x, [1, 700, 20_001], axis=1)), Untouched()
    y = np.concatenate(list(enhanced(network, source, SHORT)), axis=1)  # type: ignore[arg-type]
    assert y.shape == x.shape
    assert 10 * np.log10(np.sum((y - x) ** 2) / np.sum(x**2)) < -50
    # Every window gets the loudness and the statistics of the whole.
    total, _, expected = survey(source)
    assert len(network.given) == len(SHORT.spans(total))
    for scale, statistics in network.given:
        assert scale == pytest.approx(np.sqrt(np.mean(x**2)), rel=1e-3)
        assert np.array_equal(statistics, expected)


def test_enhanced_refuses_a_network_that_overflows():
    source, network = Given(16_000, np.full((1, 39_000), 0.5)), Untouched()
    network.enhance = lambda noisy, *_: noisy / 0  # type: ignore[method-assign]
    with pytest.raises(AudioError, match="the network gives NaN or infinite"):
        list(enhanced(network, source, SHORT))  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [1, 127, 128, 513, 30_001])
def test_survey_in_blocks_finds_the_statistics_of_the_whole(samples: int):
    x = np.stack([sound(2)[:samples], np.zeros(samples), 0.001 * sound(2)[:samples]])
    whole = torch.from_numpy(x).float()
    expected = band_statistics(torch.view_as_real(compressed(stft(whole / loudness(whole)))))
    for size in (100, 512, 7_001):
        _, _, found = survey(Given(16_000, *blocks_of(whole.numpy(), [size])))
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
