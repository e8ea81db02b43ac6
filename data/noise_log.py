"""VoiceBank-DEMAND's log files: which noise each recording has, and at which SNR. Free of torch."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from data.text import some

log = logging.getLogger("data")

# Where a log lies below a corpus, or beside it.
FOLDER = "logfiles"
TEST_LOG = "log_testset.txt"
LOGS = {"train": ("log_trainset_28spk.txt", "log_trainset_56spk.txt"), "test": (TEST_LOG,)}
_LISTED = 5  # malformed lines, before "and N more"


def read_log(path: Path) -> dict[str, tuple[str, float]]:
    """Noise and SNR (dB) by a recording's name; empty where there is no such file.

    A line is a name, a noise and an SNR; lines that are not are left out, with a warning. A
    file that cannot be read is one without lines, likewise.
    """
    if not os.path.isfile(path):
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        log.warning("%s is left out: %s", path, error.strerror)
        return {}
    table: dict[str, tuple[str, float]] = {}
    malformed = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            name, noise, snr = fields
            if not math.isfinite(float(snr)):
                raise ValueError
        except ValueError:
            malformed.append(str(number))
        else:
            table[name.removesuffix(".wav")] = noise, float(snr)
    if malformed:
        lines = ("line " if len(malformed) == 1 else "lines ") + some(malformed, _LISTED)
        log.warning("%s: %s left out: expected NAME NOISE SNR", path, lines)
    return table
