"""Where one system is better than another."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from bandsplit.bands import BANDS, WIDTHS
from tools.by_band import band_snr, compared, main, table

RATE = 16000
NAMES = ("clean", "noisy", "one", "other")


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def above(x: np.ndarray, hertz: float) -> np.ndarray:
    spectrum = np.fft.rfft(x)
    spectrum[np.fft.rfftfreq(len(x), 1 / RATE) < hertz] = 0
    return np.fft.irfft(spectrum, len(x)).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """One's error is half of Other's above 4 kHz, and the same below."""
    for number in range(12):
        speech, error = noise(number), 0.3 * noise(100 + number)
        signals = {
            "clean": speech,
            "noisy": speech + (1 + number / 4) * noise(200 + number),
            "one": speech + error - above(error, 4000) / 2,
            "other": speech + error,
        }
        for name, x in signals.items():
            (tmp_path / name).mkdir(exist_ok=True)
            sf.write(tmp_path / name / f"{number:02}.wav", x, RATE, "FLOAT")
    return {name: tmp_path / name for name in NAMES}


def test_a_bands_snr_is_its_powers_ratio() -> None:
    """Against the definition, in a loop; the error is a scaled copy in some bands alone."""
    speech, error = noise(0), noise(1)
    window = np.hanning(513)[:-1]
    padded = [np.pad(x.astype(float), 256) for x in (speech, error)]
    spectra = [
        np.stack([np.fft.rfft(window * x[i : i + 512]) for i in range(0, len(x) - 511, 128)])
        for x in padded
    ]
    found = band_snr(speech, speech + error)
    start = 0
    for band, width in enumerate(WIDTHS):
        signal, wrong = (np.square(np.abs(s[:, start : start + width])).sum() for s in spectra)
        assert found[band] == pytest.approx(10 * np.log10(signal / wrong), abs=1e-6)
        start += width


def test_silence_does_not_count_and_extremes_are_limited() -> None:
    speech = above(noise(0) * np.hanning(RATE), 6000) * np.hanning(RATE).astype(np.float32)
    assert np.isnan(band_snr(speech, noise(1))[:20]).all()
    assert band_snr(noise(0), noise(0)) == pytest.approx(np.full(BANDS, 40.0))
    assert band_snr(noise(0), 1000 * noise(1)) == pytest.approx(np.full(BANDS, -20.0))


def test_the_difference_is_where_it_was_made(folders: dict[str, Path]) -> None:
    differences, levels = compared(*folders.values())
    assert differences.shape == (12, BANDS)
    assert np.abs(differences[:, :20]).max() < 0.1
    assert differences[:, 25:] == pytest.approx(np.full((12, 6), 6.02), abs=0.1)
    assert np.all(np.diff(list(levels.values())) < 0.5)
    assert levels["00"] == pytest.approx(0, abs=0.3)
    text = table(differences, levels)
    high = next(line for line in text.splitlines() if line.startswith("| high"))
    assert re.search(r"\+[56]\.\d\d \(\+[56]\.\d\d to \+[56]\.\d\d\)", high)
    low = next(line for line in text.splitlines() if line.startswith("| low"))
    assert "| +0.0" in low or "| -0.0" in low


def test_the_command_prints_the_table(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]
    assert main(arguments) == 0
    assert "all files (12)" in capsys.readouterr().out
    (folders["other"] / "03.wav").unlink()
    assert main(arguments) == 2
    assert "other lacks 03, which is in" in capsys.readouterr().err


def test_folders_may_be_named_twice_and_broken_files_are_told(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folders["other"] = folders["noisy"]
    arguments = [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]
    assert main(arguments) == 0
    assert "all files (12)" in capsys.readouterr().out
    (folders["one"] / "05.wav").write_bytes(b"broken")
    assert main(arguments) == 2
    assert "05.wav" in capsys.readouterr().err
