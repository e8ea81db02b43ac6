"""What is wrong with an enhanced file beside its quality: what is found, and what must not be."""

from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import soxr
from conftest import SIDES
from numpy.typing import NDArray
from recordings import SAMPLE

from bsbimamba.metrics.faults import find_faults
from bsbimamba.metrics.segmental import segsnr, si_sdr

Signal = NDArray[Any]
Pair = tuple[Signal, Signal]


@pytest.mark.parametrize(
    ("change", "amount", "worst"),
    [
        (lambda x: np.roll(x, 160), "shifted by +10.00 ms (+: late)", "SI-SDR"),
        (lambda x: np.roll(x, -1), "shifted by -0.06 ms (+: late)", "SI-SDR"),
        (np.negative, "inverted", "SegSNR"),
        (lambda x: x / 4, "of another level by -12.0 dB", "SegSNR"),
        (lambda x: x + 0.1, "offset by +0.100", "SegSNR"),
    ],
)
def test_fault_is_found_with_what_it_costs(speech: Pair, change: Any, amount: str, worst: str):
    clean, enhanced = speech
    (text,) = find_faults(clean, change(enhanced)).values()
    start, told = text.split(", ")[:2]
    measure = {"SI-SDR": si_sdr, "SegSNR": segsnr}[worst]
    cost = measure(clean, enhanced) - measure(clean, change(enhanced))
    assert start == amount
    # But for the samples that the shift has lost, and the little that is estimated wrongly.
    assert float(told.removeprefix(f"which costs {worst} (dB)")) == pytest.approx(cost, abs=0.2)


def test_faults_of_one_file_are_told_apart(speech: Pair):
    found = find_faults(speech[0], 0.05 - 0.5 * np.roll(speech[1], -400))
    assert [text.partition(", which")[0] for text in found.values()] == [
        "shifted by -25.00 ms (+: late)", "inverted", "of another level by -6.0 dB",
        "offset by +0.050",
    ]  # fmt: skip


@pytest.mark.parametrize(("rate", "edge"), [(8000, "4.0"), (12000, "5.9")])
def test_lost_band_is_found_unless_the_clean_file_lacks_it(speech: Pair, rate: int, edge: str):
    whole = [side[:48000] for side in speech]
    clean, enhanced = (soxr.resample(soxr.resample(x, 16000, rate), rate, 16000) for x in whole)
    text = f"empty above {edge} kHz, where clean speech is not"
    assert find_faults(whole[0], 0.9 * enhanced) == {"band": text}
    assert find_faults(clean, whole[1]) == {}


def suppressed(noisy: Signal) -> Signal:
    """Every bin of a spectrogram that is not far above the usual level of its frequency is 0."""
    spectra = librosa.stft(noisy, n_fft=512)
    levels = np.abs(spectra)
    loud = levels > 4 * np.median(levels, axis=1, keepdims=True)
    return librosa.istft(spectra * loud, length=len(noisy))


@pytest.mark.parametrize("path", sorted((SAMPLE / "test" / "clean").iterdir()))
def test_noise_and_suppression_are_no_faults(path: Any):
    """Real recordings: as they are, with 12 dB more noise, with much of either taken out."""
    clean, noisy = (soundfile.read(SAMPLE / "test" / side / path.name)[0] for side in SIDES)
    noisier = 4 * noisy - 3 * clean
    for enhanced in (noisy, noisier, suppressed(noisy), suppressed(noisier), clean - noisy):
        assert find_faults(clean, enhanced) == {}
