"""The signal path around the networks: transform, bands, decoder, filter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bsbimamba.network.bands import (
    BANDS,
    BIN_OF_PLACE,
    PLACE_OF_BIN,
    WIDEST,
    WIDTHS,
    BandSplit,
    Norm,
    runs,
)
from bsbimamba.network.decoder import MaskDecoder, apply_filter
from bsbimamba.network.stft import BINS, HOP, N_FFT, compressed, compressed_magnitude, istft, stft
from bsbimamba.recompute.rows import layer_norm


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(1, 3000))
def test_inverse_transform_is_the_inverse_at_any_length(samples: int) -> None:
    x = torch.randn(2, samples, generator=torch.Generator().manual_seed(samples))
    spectrum = stft(x)
    assert spectrum.shape == (2, 257, samples // HOP + 1)
    assert spectrum.dtype == torch.complex64
    torch.testing.assert_close(istft(spectrum, samples), x, rtol=1e-4, atol=1e-5)


def test_transform_against_numpy() -> None:
    """If this changes, every trained weight and every score changes."""
    x = torch.randn(1, 2000, dtype=torch.float64)
    padded = np.pad(x[0].numpy(), N_FFT // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    frames = [
        np.fft.rfft(window * padded[t * HOP : t * HOP + N_FFT]) for t in range(2000 // HOP + 1)
    ]
    np.testing.assert_allclose(stft(x)[0].numpy(), np.array(frames).T, atol=1e-10)


@pytest.mark.parametrize("function", [compressed, compressed_magnitude])
def test_compression(function: object) -> None:
    spectrum = torch.tensor([3 + 4j, 0, 1e-3j], requires_grad=True)
    value = function(spectrum)  # type: ignore[operator]
    torch.testing.assert_close(value.abs()[0], torch.tensor(5**0.3), rtol=1e-4, atol=0)
    if function is compressed:
        assert value[1] == 0
        torch.testing.assert_close(value[0].angle(), spectrum[0].angle())
    value.abs().pow(2).sum().backward()
    assert torch.view_as_real(spectrum.grad).isfinite().all()


def test_bands_tile_the_spectrum() -> None:
    places = BIN_OF_PLACE.view(BANDS, WIDEST).tolist()
    covered = [bin_ for row, width in zip(places, WIDTHS, strict=True) for bin_ in row[:width]]
    assert covered == BIN_OF_PLACE[PLACE_OF_BIN].tolist() == list(range(BINS))
    beyond = [set(row[width:]) - {row[0]} for row, width in zip(places, WIDTHS, strict=True)]
    assert not any(beyond)


def test_runs_part_where_the_hidden_width_does() -> None:
    hidden = [24] * 11 + [32] * 12 + [36] * 8
    assert runs(WIDTHS, hidden) == [(1, 2, 24), (10, 3, 24), (12, 8, 32), (7, 16, 36), (1, 17, 36)]
    assert runs(WIDTHS, [8] * 15 + [9] * 16)[2:4] == [(4, 8, 8), (8, 8, 9)]
    with pytest.raises(ValueError, match="shorter"):
        runs(WIDTHS, [1] * 30)


@pytest.mark.parametrize("bin_", [0, 1, 2, 31, 32, 100, 240, 256])
def test_a_pure_tone_lands_in_its_band(bin_: int) -> None:
    # Differences from what the split makes of silence are what the tone does.
    split, plain = BandSplit(8), torch.tensor([0.0, 1.0]).expand(1, BANDS, 2)
    t = torch.arange(4 * N_FFT)
    tone = torch.cos(2 * math.pi * bin_ * t / N_FFT)[None]
    spectrum = stft(tone)[..., 6:8]  # away from the ends
    response = split(spectrum, plain) - split(torch.zeros_like(spectrum), plain)
    response = response.norm(dim=-1)[:, 0, 0]
    band = int(np.searchsorted(np.cumsum(WIDTHS), bin_, side="right"))
    # The window spreads a tone over three bins, and compression lifts its skirts.
    assert abs(int(response.argmax()) - band) <= (bin_ + 1 in np.cumsum(WIDTHS))
    far = [k for k in range(BANDS) if abs(k - band) > 1]
    assert response[far].max() < 0.3 * response[band]


def test_norms_of_bands() -> None:
    """Those of all bands together are compared in tests/recompute."""
    x = 3 + 2 * torch.randn(31, 2, 9, 6)
    of_bands = nn.GroupNorm(1, 6)(x.flatten(0, 1).mT).mT.view_as(x)
    of_channels = nn.LayerNorm(6)(x)
    expected = {"recording": of_bands, "channel": of_channels, "frame": of_channels}
    for kind, own in expected.items():
        norm = Norm(6, kind, bands=31)
        torch.testing.assert_close(layer_norm(x, norm.dims, norm.eps)[0], own)
        assert norm.weight.numel() == 31 * 6


def parts_of(x: torch.Tensor) -> torch.Tensor:
    """The compressed spectrum's parts (b, f, t, 2) of waveforms."""
    return torch.view_as_real(compressed(stft(x)))


def test_split_standardises_each_band() -> None:
    features = parts_of(torch.randn(2, 6000) * torch.tensor([[1.0], [10.0]]))
    split = BandSplit(1)
    with torch.no_grad():
        for linear in split.linears:  # each band's features as they go into its Linear
            linear.weight.zero_()
            linear.weight[:, 0] = 1
            linear.bias.zero_()
    found = split.of_parts(features)[..., 0]
    first = features[:, np.cumsum((0, *WIDTHS[:-1])), :, 0].transpose(0, 1)
    for k, band in enumerate(features.split(WIDTHS, dim=1)):
        for b in range(2):
            expected = (first[k, b] - band[b].mean()) / (band[b].var(correction=0) + 0.01).sqrt()
            torch.testing.assert_close(found[k, b], expected, rtol=1e-4, atol=1e-5)


def test_an_empty_band_is_not_raised_to_the_level_of_the_others() -> None:
    """Noise up to 4 kHz with -140 dB above, away from where it begins and ends with a click."""
    noise = torch.fft.rfft(torch.randn(1, 32000, generator=torch.Generator().manual_seed(1)))
    noise[:, 8000:] *= 1e-7
    features = parts_of(torch.fft.irfft(noise))
    split = BandSplit(8)
    with torch.no_grad():
        for linear in split.linears:
            linear.bias.zero_()
    level = split.of_parts(features)[:, :, 4:-4].square().mean((1, 2, 3)).sqrt()
    assert level[-3:].max() < 0.2 * level[:20].min()


def test_filter_by_its_definition() -> None:
    spectrum = torch.randn(2, 5, 7, dtype=torch.complex64)
    taps = torch.randn(2, 5, 7, 3, dtype=torch.complex64)
    out = apply_filter(taps, spectrum)
    for t in range(7):
        expected = sum(
            taps[:, :, t, i] * spectrum[:, :, t + i - 1] for i in range(3) if 0 <= t + i - 1 < 7
        )
        expected = expected + spectrum[:, :, t]  # the 1 of the tap in the centre
        torch.testing.assert_close(out[:, :, t], expected)


@pytest.mark.parametrize("hidden", [4, [3] * 11 + [5] * 20])
def test_each_band_is_decoded_from_itself_alone(hidden: int | list[int]) -> None:
    decoder = MaskDecoder(8, hidden)
    x = torch.randn(BANDS, 1, 2, 8)
    changed = x.clone()
    changed[12] += torch.randn(8)
    moved = (decoder(x) - decoder(changed)).abs().amax((0, 2, 3)) > 0
    bins = slice(sum(WIDTHS[:12]), sum(WIDTHS[:13]))
    assert moved[bins].all()
    assert int(moved.sum()) == WIDTHS[12]
