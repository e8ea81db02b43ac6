"""What is known of VoiceBank-DEMAND, by which every copy of it can be checked.

Valentini-Botinhao et al., "Investigating RNN-based speech enhancement methods for noise-robust
text-to-speech", SSW 2016; doi 10.7488/ds/2117, the training set of 28 speakers.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME = "VoiceBank-DEMAND"
TRAIN_PAIRS = 11_572
# Training speakers that are kept for validation, as in several papers.
HELD_OUT = ("p226", "p287")
# Test pairs by speaker. Trained or selected on, they would spoil that test.
TEST_FILES = {"p232": 393, "p257": 431}
TEST_PAIRS = sum(TEST_FILES.values())
# Mean PESQ-WB of the noisy test files, as all papers state it, and how far a right copy may be from
# it: another resampler changes PESQ by 0.002.
NOISY_PESQ, PESQ_TOLERANCE = 1.97, 0.01
# Its logs of noises and SNRs, beside its folders or in one of this name.
LOG_FOLDER = "logfiles"
TRAIN_LOG, TEST_LOG = "log_trainset_28spk.txt", "log_testset.txt"


def read_log(path: Path) -> dict[str, tuple[str, float]]:
    """Return noise and SNR (dB) by recording from lines NAME NOISE SNR; {} without a file."""
    if not os.path.isfile(path):
        return {}
    lines = (line.split() for line in path.read_text("utf-8-sig").splitlines())
    rows = (words for words in lines if len(words) == 3)
    return {name.removesuffix(".wav"): (noise, float(snr)) for name, noise, snr in rows}
