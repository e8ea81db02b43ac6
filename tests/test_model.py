"""A trained network as a function: what goes in comes out, in every kind of array."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from recordings import sound
from saved_runs import save_run
from torch import Tensor, nn

from bandsplit.bands import band_statistics
from bandsplit.net import loudness
from bandsplit.stft import compressed, stft
from data.audio import AudioError
from enhance import Model, load
from enhancement.recording import _at_16_khz, enhanced, survey
from enhancement.windows import Windows
from training.checkpoint import CheckpointError
from training.config import ConfigError
from training.trained import load_trained

SHORT = Windows(1.0, 0.2, 0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(save_run(tmp_path_factory.mktemp("model") / "run"), "cpu")


class Untouched(nn.Module):
    """A network that returns its input, and has seen what it was told of the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.scales: set[float] = set()
        self.statistics: list[Tensor] = []

    def enhance(self, noisy: Tensor, scale: Tensor, statistics: Tensor) -> Tensor:
        self.scales.add(float(scale))
        self.statistics.append(statistics)
        return noisy


class Given:
    """A source of given blocks."""

    def __init__(self, rate: int, *blocks: Any) -> None:
        self.rate, self.channels = rate, len(blocks[0]) if blocks else 1
        self.given = [np.asarray(block, np.float32) for block in blocks]

    def blocks(self) -> Iterator[np.ndarray]:
        yield from self.given


def test_at_16_khz_it_is_the_network(model: Model):
    x = torch.from_numpy(sound(0.9)).float()
    np.testing.assert_allclose(
        model(x, 16_000).numpy(), model.trained.network.enhance(x[None])[0].numpy(), atol=1e-6
    )


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_kinds_of_arrays(model: Model, rate: int, dtype: str):
    x = sound(0.3, rate).astype(dtype)
    y = model(x, rate)
    assert (type(y), y.shape, y.dtype) == (np.ndarray, x.shape, x.dtype)
    tensor = model(torch.from_numpy(x), rate)
    assert (type(tensor), tensor.shape, tensor.dtype) == (
        Tensor,
        x.shape,
        torch.from_numpy(x).dtype,
    )
    np.testing.assert_array_equal(tensor.numpy(), y)
    assert not np.shares_memory(x, y)


def test_bfloat16_and_odd_numbers(model: Model):
    x = torch.from_numpy(sound(0.2)).to(torch.bfloat16)
    y = model(x, 16_000)
    assert (y.dtype, y.shape) == (torch.bfloat16, x.shape)
    with pytest.raises(ValueError, match="infinite"):  # beyond float32
        model(np.full(9, 1e300), 16_000)


def test_a_network_that_overflows_is_told():
    class Overflowing(Untouched):
        def enhance(self, noisy: Tensor, scale: Tensor, statistics: Tensor) -> Tensor:
            return noisy * torch.tensor([1.0, float("inf")])[(noisy > 0.9).long()]

    x = np.full((1, 40_000), 0.5)
    x[0, 30_000] = 0.95
    source = Given(16_000, x)
    with pytest.raises(AudioError, match="the network gives NaN or infinite"):
        list(enhanced(Overflowing(), source, survey(source), SHORT))  # type: ignore[arg-type]


def test_each_channel_as_if_it_were_alone(model: Model):
    x = np.stack([sound(0.4, seed=1), 0.01 * sound(0.4, seed=2), np.zeros(6_400)])
    y = model(x, 16_000)
    for channel, alone in zip(x, y, strict=True):
        np.testing.assert_allclose(model(channel, 16_000), alone, atol=1e-8)
    assert not y[2].any()
    np.testing.assert_array_equal(model(x[:1], 16_000)[0], y[0])
    np.testing.assert_array_equal(model(x[:, ::-1], 16_000).shape, x.shape)  # a view is no matter


def test_every_length_comes_back(model: Model):
    for rate in (4_000, 11_025, 16_000, 48_000, 192_000):
        for samples in (1, 2, 13, 130, 1_001):
            assert model(np.full(samples, 0.1), rate).shape == (samples,)


def test_louder_in_louder_out(model: Model):
    x = sound(0.5)
    np.testing.assert_allclose(model(8 * x, 16_000), 8 * model(x, 16_000), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
def test_resampling_there_and_back_changes_little(rate: int):
    """What lies below 3.5 kHz comes back in its place, over many windows and blocks."""
    x = soxr.resample(sound(4, 7_000), 7_000, rate)[None].astype(np.float32)
    cuts = [0, 1, 700, 20_001, x.shape[1]]
    parts = [x[:, a:b] for a, b in pairwise(cuts)]
    source, network = Given(rate, *parts), Untouched()
    found = survey(source)
    y = np.concatenate(list(enhanced(network, source, found, SHORT)), axis=1)  # type: ignore[arg-type]
    assert y.shape == x.shape
    assert 10 * np.log10(np.sum((y - x) ** 2) / np.sum(x**2)) < -50
    # All windows are told the loudness and the statistics of the whole.
    assert list(network.scales) == pytest.approx([np.sqrt(np.mean(x**2))], rel=1e-3)
    assert len(network.statistics) == len(SHORT.spans(found.total))
    assert all(np.array_equal(told, found.statistics) for told in network.statistics)


def statistics_of(signal: np.ndarray) -> np.ndarray:
    """What the network finds itself in a whole signal (c, n) at 16 kHz."""
    x = torch.from_numpy(signal)
    return band_statistics(torch.view_as_real(compressed(stft(x / loudness(x))))).numpy()


@pytest.mark.parametrize("samples", [1, 127, 128, 513, 30_001])
def test_survey_in_blocks_finds_the_statistics_of_the_whole(samples: int):
    x = np.stack([sound(2)[:samples], np.zeros(samples), 0.001 * sound(2)[:samples]])
    x = x.astype(np.float32)
    for size in (1, 100, 512, 7_001):
        parts = [x[:, first : first + size] for first in range(0, samples, size)][-300:]
        whole = np.concatenate(parts, axis=1)
        found = survey(Given(16_000, *parts)).statistics
        np.testing.assert_allclose(found, statistics_of(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_survey_takes_the_statistics_at_16_khz(rate: int):
    x = sound(1.3, rate)[None].astype(np.float32)
    source = Given(rate, *np.array_split(x, 7, axis=1))
    whole = np.concatenate(list(_at_16_khz(source, survey(source).total)), axis=1)
    # Compression magnifies the rounding of what little there is above 4 kHz.
    np.testing.assert_allclose(survey(source).statistics, statistics_of(whole), atol=2e-4)


def test_progress_is_the_recordings_length():
    source, told = Given(16_000, np.ones((1, 40_000))), []
    list(enhanced(Untouched(), source, survey(source), SHORT, told.append))  # type: ignore[arg-type]
    assert len(told) == len(SHORT.spans(40_000))
    assert sum(told) == pytest.approx(2.5)


def test_a_survey_tells_what_a_listener_should_know():
    silent = survey(Given(16_000, np.zeros((2, 500)), np.zeros((2, 20))))
    assert (silent.frames, silent.total, silent.silent) == (520, 520, 2)
    assert silent.notes(2) == ["silent"]
    half = survey(Given(16_000, [np.ones(100), np.zeros(100)]))
    assert half.clipped == 0.5
    assert half.notes(2)[0] == "1 of 2 channels are silent"
    assert half.notes(2)[1].startswith("clipped: 50 % of its samples")
    assert survey(Given(16_000, [sound(0.1)])).notes(1) == []


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ([np.zeros((1, 0))], "empty"),
        ([np.ones((1, 5)), [[1.0, np.nan]]], "NaN"),
        ([[[np.inf]]], "infinite"),
        ([np.full((1, 5), 1e15)], "no audio"),
    ],
)
def test_what_holds_no_sound_is_refused(blocks: list, reason: str):
    with pytest.raises(AudioError, match=reason):
        survey(Given(16_000, *blocks))


def test_a_source_that_changes_between_the_passes_is_noticed():
    source = Given(16_000, np.ones((1, 900)))
    found = survey(source)
    for other in (np.ones((1, 899)), np.ones((1, 901))):
        source.given = [other.astype(np.float32)]
        with pytest.raises(AudioError, match="changed"):
            list(enhanced(Untouched(), source, found, SHORT))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "rate", "error", "reason"),
    [
        (np.zeros(9, np.int16), 16_000, TypeError, "floating-point samples.*int16"),
        ([0.1, 0.2], 16_000, TypeError, "not list"),
        (torch.zeros(9, dtype=torch.int32), 16_000, TypeError, "int32"),
        (np.zeros(9, np.complex64), 16_000, TypeError, "complex64"),
        (np.zeros(0), 16_000, ValueError, "at least one"),
        (np.zeros((1, 2, 3)), 16_000, ValueError, r"\(1, 2, 3\)"),
        (np.zeros((4, 2)), 16_000, ValueError, "x.T"),
        (np.zeros(9), 0, ValueError, "sampling rate of 0"),
        (np.zeros(9), 44_100.5, ValueError, "44100.5"),
        (np.zeros(9), float("nan"), ValueError, "nan"),
        (np.zeros(9), "16000", TypeError, "sampling rate"),
        (np.full(9, np.nan), 16_000, ValueError, "NaN"),
    ],
)
def test_other_things_are_refused(model: Model, x: Any, rate: Any, error: type, reason: str):
    with pytest.raises(error, match=reason):
        model(x, rate)


def test_models_are_found_by_path(tmp_path: Path):
    run = save_run(tmp_path / "run")
    x = sound(0.2)
    expected = load(run)(x, 16_000)
    np.testing.assert_array_equal(load(str(run / "best.pt"))(x, 16_000), expected)
    with pytest.raises(CheckpointError, match="no such run folder, checkpoint or model"):
        load(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="cuda"):
        load(run, "cuda" if not torch.cuda.is_available() else "cuda:99")
    assert load_trained(run).digest == load(run).trained.digest
