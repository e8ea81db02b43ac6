"""PESQ in PyTorch against the package `pesq`, on crops as training has them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from recordings import SAMPLE
from torch import Tensor

from bsbimamba.metrics.pesq_torch import pesq_torch
from bsbimamba.metrics.scores import pesq_wb
from bsbimamba.metrics.signals import MetricError
from bsbimamba.network.stft import istft, stft

LENGTH = 32_000  # two seconds


def crops(folder: Path, number: int, seed: int) -> Tensor:
    """Crops (n, s) of the recordings of a folder, of each in turn."""
    rng = np.random.default_rng(seed)
    paths = rng.permutation(sorted(x for x in folder.rglob("*.*") if x.suffix != ".csv"))
    found = []
    for path in np.resize(paths, number):
        start = rng.integers(max(1, sf.info(path).frames - LENGTH))
        found.append(sf.read(path, LENGTH, start, dtype="float32", fill_value=0.0)[0])
    return torch.from_numpy(np.stack(found))


def pairs(corpus: Path, number: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Clean and degraded crops (n, s) by the kind of degradation: -5 to 20 dB, levels 30 dB apart.

    A quarter of the crops is silent in part. The gains that enhance know the noise.
    """
    rng = torch.Generator().manual_seed(0)
    clean, noise = crops(corpus / "clean", number, 1), crops(corpus / "noise", number, 2)
    noise = noise + 1e-5 * torch.randn(noise.shape, generator=rng)  # some crops are all zeros
    for row, start in enumerate((0, 12_000, 24_000) * (number // 12)):
        clean[4 * row, start : start + 8_000] = 0
    ratio = 10 ** (torch.linspace(-5, 20, number)[:, None] / 10)
    power, noise_power = (x.square().mean(-1, keepdim=True) for x in (clean, noise))
    noise = noise * (power / noise_power / ratio).sqrt()
    speech, added, mixed = (stft(x) for x in (clean, noise, clean + noise))
    speech_power, added_power = (x.abs().square().clamp_min(1e-12) for x in (speech, added))
    wiener = (speech_power / (speech_power + added_power)).clamp_min(0.05)
    stationary = added_power.mean(-1, keepdim=True)
    subtraction = (1 - stationary / mixed.abs().square()).clamp_min(0.01).sqrt()
    kinds = {
        "noisy": clean + noise,
        "half-denoised": clean + noise / 2,
        "Wiener": istft(wiener * mixed, LENGTH),
        "subtraction": istft(subtraction * mixed, LENGTH),
    }
    gains = 10 ** (-1.5 * torch.rand(2, len(kinds), number, 1, generator=rng))
    return {
        kind: (a * clean, b * degraded)
        for a, b, (kind, degraded) in zip(*gains, kinds.items(), strict=True)
    }


def exact(clean: Tensor, degraded: Tensor) -> Tensor:
    """The package's scores (n,); NaN where there is none."""
    found = torch.full((len(clean),), torch.nan)
    for row, pair in enumerate(zip(clean.numpy(), degraded.numpy(), strict=True)):
        try:
            found[row] = pesq_wb(*pair)
        except MetricError:
            continue
    return found


@pytest.mark.parametrize("corpus", ["sample", "open_mix"])
def test_agrees_with_the_package(corpus: str, request: pytest.FixtureRequest) -> None:
    """To three digits, but for the few crops in which the package finds delays."""
    folder = SAMPLE
    if corpus == "open_mix":
        folder = request.getfixturevalue("shared_data") / corpus
    for kind, (clean, degraded) in pairs(folder, 36 if corpus == "sample" else 96).items():
        expected, found = exact(clean, degraded), pesq_torch(clean, degraded)
        known = ~expected.isnan()
        assert known.float().mean() > 0.9
        error = (found - expected)[known]
        r = float(torch.corrcoef(torch.stack([found, expected])[:, known])[0, 1])
        bias, mean, median = (
            float(x) for x in (error.mean(), error.abs().mean(), error.abs().median())
        )
        about = f"{kind}, {len(error)} crops: bias {bias:.4f}, mean error {mean:.4f}, r {r:.4f}"
        assert abs(bias) <= 0.04, about
        assert mean <= 0.09, about
        assert r >= 0.985, about
        assert median <= 1e-3, about


@pytest.fixture(scope="module")
def noisy() -> tuple[Tensor, Tensor]:
    """Eight clean and noisy crops."""
    return tuple(x[1:9] for x in pairs(SAMPLE, 36)["noisy"])


def test_identical_recordings_have_the_highest_score(noisy: tuple[Tensor, Tensor]) -> None:
    clean, degraded = noisy
    torch.testing.assert_close(pesq_torch(clean, clean), torch.full((8,), 4.6439))
    assert (pesq_torch(clean, degraded) < 4.6).all()


def test_batch_and_levels_change_nothing(noisy: tuple[Tensor, Tensor]) -> None:
    clean, degraded = noisy
    scores = pesq_torch(clean, degraded)
    alone = torch.cat([pesq_torch(c[None], d[None]) for c, d in zip(clean, degraded, strict=True)])
    torch.testing.assert_close(alone, scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(pesq_torch(300 * clean, 0.01 * degraded), scores, atol=1e-3, rtol=0)


def test_silence_has_no_score(noisy: tuple[Tensor, Tensor]) -> None:
    clean, degraded = (x[:4].clone() for x in noisy)
    clean[:2] = degraded[1:3] = 0
    assert pesq_torch(clean, degraded).isnan().tolist() == [True, True, True, False]


def test_nothing_is_read_on_the_host() -> None:
    """A tensor without data cannot be: every shape is known beforehand."""
    empty = torch.empty(3, LENGTH, device="meta")
    assert pesq_torch(empty, empty).shape == (3,)
