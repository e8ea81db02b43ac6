"""Overlapping windows: they cover every sample once, and change nothing that they need not."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from abl2.mbs_net import MBSNet
from bandsplit.bands import band_statistics
from bandsplit.net import loudness
from bandsplit.stft import HOP, compressed, stft
from enhancement.windows import Windows, _Buffer, hops, overlapped

SHORT = Windows(length=0.4, context=0.08, fade=0.048)


def blocks_of(x: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """A signal (c, n) cut into blocks of those sizes, again and again, until it ends."""
    found, first = [], 0
    while first < x.shape[1]:
        size = sizes[len(found) % len(sizes)]
        found.append(x[:, first : first + size])
        first += size
    return found


@given(st.integers(1, 50_000))
def test_windows_follow_each_other_and_cover_all(total: int):
    spans = SHORT.spans(total)
    assert spans[0][0] == 0
    assert spans[-1][1] == total
    for (begin, end), (next_begin, next_end) in pairwise(spans):
        assert end - begin == hops(SHORT.length)
        assert begin % HOP == 0
        assert next_begin == begin + SHORT.step
        assert end - next_begin == SHORT.overlap
        assert next_end - next_begin > SHORT.overlap


@given(
    st.integers(1, 30_000),
    st.integers(1, 3),
    st.lists(st.integers(1, 9_000), min_size=1, max_size=4),
    st.sampled_from([SHORT, Windows(0.4, 0, 0), Windows(0.4, 0.1, 0), Windows(0.4, 0, 0.2)]),
)
def test_what_nothing_is_done_to_comes_back(
    total: int, channels: int, sizes: list[int], windows: Windows
):
    x = np.random.default_rng(0).standard_normal((channels, total)).astype(np.float32)
    y = np.concatenate(list(overlapped(blocks_of(x, sizes), np.copy, total, windows)), axis=1)
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_the_outermost_of_a_window_is_dropped_and_the_rest_faded():
    """Each window is a constant, its number: what comes out tells which ones a sample is of."""
    total = 5 * SHORT.step
    count = iter(range(99))
    found = overlapped(
        [np.zeros((1, total), np.float32)],
        lambda x: np.full_like(x, next(count)),
        total,
        SHORT,
    )
    y = np.concatenate(list(found), axis=1)[0]
    context, fade = hops(SHORT.context), hops(SHORT.fade)
    for number, (begin, _) in enumerate(SHORT.spans(total)[1:], 1):
        slope = y[begin + context : begin + context + fade] - (number - 1)
        expected = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
        np.testing.assert_allclose(slope, expected, atol=1e-6)
        assert (y[begin + context + fade : begin + SHORT.step + context] == number).all()


def test_no_more_than_a_window_and_a_block_is_held():
    total, block, most = 400_000, 1_000, 0
    buffer = _Buffer(np.zeros((1, block), np.float32) for _ in range(total // block))
    for begin, end in SHORT.spans(total):
        buffer.piece(begin, end)
        assert buffer._held is not None
        most = max(most, buffer._held.shape[1])
    assert most < hops(SHORT.length) + block


def test_a_network_says_nearly_the_same_by_windows():
    network = MBSNet(channels=16).eval()
    x = 0.1 * torch.randn(1, 48_000) * torch.logspace(-1, 0, 48_000)
    whole = network.enhance(x)[0].numpy()
    scale = loudness(x)
    statistics = band_statistics(torch.view_as_real(compressed(stft(x / scale))))

    def enhance(piece: np.ndarray) -> np.ndarray:
        return network.enhance(torch.from_numpy(piece.copy()), scale, statistics).numpy()

    def residual(windows: Windows) -> float:
        y = np.concatenate(list(overlapped([x.numpy()], enhance, 48_000, windows)), axis=1)[0]
        return float(np.abs(y - whole).max() / np.abs(whole).max())

    assert residual(Windows(3.1, 0.4, 0.048)) < 1e-6  # one window is the whole
    assert residual(Windows(1.5, 0.4, 0.048)) < 1e-3
    # Frames at a window's ends lack what lies beyond: without context they are heard.
    assert residual(Windows(1.5, 0, 0)) > 10 * residual(Windows(1.5, 0.4, 0.048))


@pytest.mark.parametrize("given", [(0.4, 0.2, 0), (0.1, 0, 0.1), (1, -0.1, 0), (0, 0, 0)])
def test_windows_too_short_to_come_forward_are_refused(given: tuple[float, float, float]):
    with pytest.raises(ValueError, match="too short"):
        Windows(*given)
