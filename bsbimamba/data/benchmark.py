"""What is known of VoiceBank-DEMAND, by which every copy of it can be checked.

Valentini-Botinhao et al., "Investigating RNN-based speech enhancement methods for noise-robust
text-to-speech", SSW 2016; doi 10.7488/ds/2117, the training set of 28 speakers.
"""

import os
import re
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
TEST_LOG = "log_testset.txt"
_LINE = re.compile(r"(\S+) +(\S+) +(-?\d+(?:\.\d+)?)")


def read_log(path: Path) -> dict[str, tuple[str, float]]:
    """Return noise and SNR (dB) by recording from lines NAME NOISE SNR; {} without a file."""
    if not os.path.isfile(path):
        return {}
    lines = path.read_text("utf-8-sig", "replace").replace("\t", " ").splitlines()
    found = [match.groups() for line in lines if (match := _LINE.fullmatch(line.strip()))]
    return {name.removesuffix(".wav"): (noise, float(snr)) for name, noise, snr in found}
