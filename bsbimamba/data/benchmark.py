"""What is known of VoiceBank-DEMAND, by which every copy of it can be checked.

Valentini-Botinhao et al., "Investigating RNN-based speech enhancement methods for noise-robust
text-to-speech", SSW 2016; doi 10.7488/ds/2117, the training set of 28 speakers.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from bsbimamba.utils import some

log = logging.getLogger("data")

NAME = "VoiceBank-DEMAND"
TRAIN_PAIRS = 11_572
TRAIN_SPEAKERS = frozenset((
    "p226", "p227", "p228", "p230", "p231", "p233", "p236", "p239", "p243", "p244", "p250", "p254",
    "p256", "p258", "p259", "p267", "p268", "p269", "p270", "p273", "p274", "p276", "p277", "p278",
    "p279", "p282", "p286", "p287",
))  # fmt: skip
# Of these, kept for validation, as in several papers.
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
    """Return noise and SNR (dB) by recording, as a log has them; {} where there is no such file.

    Lines other than NAME NOISE SNR are left out, with a warning.
    """
    table: dict[str, tuple[str, float]] = {}
    if not os.path.isfile(path):
        return table
    malformed = []
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), start=1):
        try:
            name, noise, snr = line.split()
            if not math.isfinite(float(snr)):
                raise ValueError
        except ValueError:
            malformed += [str(number)] if line.strip() else []
        else:
            table[name.removesuffix(".wav")] = noise, float(snr)
    if malformed:
        log.warning("%s: no NAME NOISE SNR in lines %s", path, some(malformed, 5))
    return table
