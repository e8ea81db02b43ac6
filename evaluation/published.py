"""Figures that are not measured here: of other systems, of the benchmark, and what is hoped for.

Nothing of this is ever shown as a result.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data.benchmark import NAME, NOISY_PESQ, PESQ_TOLERANCE, TEST_FILES


@dataclass(frozen=True)
class Published:
    """A system on VoiceBank-DEMAND's test set as its authors report it; None: not known.

    parameters: in millions. csig, cbak, covl: of either scale, whichever the authors used.
    """

    name: str
    parameters: float | None
    pesq: float
    csig: float | None = None
    cbak: float | None = None
    covl: float | None = None
    stoi: float | None = None


@dataclass(frozen=True)
class Curve:
    """PESQ-WB of a system in the course of its training, on VoiceBank-DEMAND's own test set.

    source: a repository, and an issue's number. points: thousands of two-second crops, from and to
    where they are known roughly, and the PESQ.
    """

    name: str
    source: str
    points: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Benchmark:
    """How the test set of a benchmark is known.

    files: by speaker. noisy_pesq: PESQ-WB of the noisy side, which any right copy has within
    `tolerance`.
    """

    name: str
    files: Mapping[str, int]
    noisy_pesq: float
    tolerance: float

    def members(self, utterances: Sequence[str]) -> list[int]:
        """The places of the test set among these names, whatever folders and others there are.

        Empty where it is not whole: known by how many files of each speaker there are.
        """
        names = [re.fullmatch(r"(?:.*/)?(p\d+)_\d{3}", name) for name in utterances]
        places = [place for place, name in enumerate(names) if name and name[1] in self.files]
        found = Counter(match[1] for match in names if match and match[1] in self.files)
        return places if found == Counter(self.files) else []


BENCHMARK = Benchmark(f"{NAME}'s test set", TEST_FILES, NOISY_PESQ, PESQ_TOLERANCE)

# What the configurations of these names, at these millions of parameters, were made in the hope of:
# PESQ-WB on that test set after a whole training on that training set, from and to.
EXPECTED = {
    ("bsrnn", 2.4): (3.23, 3.23),
    ("abl1", 1.8): (3.20, 3.30),
    ("abl2", 2.6): (3.25, 3.35),
    ("abl3", 2.0): (3.30, 3.40),
}

PUBLISHED = (
    Published("BSRNN (public re-implementation)", 2.96, 3.10, stoi=0.95),
    Published("BSDB-Net", 9.8, 3.11, 4.33, 3.58, 3.73, 0.95),
    Published("CMGAN", 1.83, 3.41, 4.63, 3.94, 4.12, 0.96),
    Published("MP-SENet", 2.05, 3.50, 4.73, 3.95, 4.22, 0.96),
    Published("xLSTM-SENet2", 2.27, 3.53, 4.78, 3.98, 4.27, 0.96),
    Published("SEMamba", 2.25, 3.55, 4.77, 3.95, 4.29, 0.96),
    Published("BASENet", 0.83, 3.55, stoi=0.96),
    Published("Mamba-SEUNet", 6.2, 3.59, 4.80, 4.02, 4.32, 0.96),
    Published("PrimeK-Net", 1.41, 3.61, 4.81, 3.98, 4.35),
    Published("ZipEnhancer-S", 2.04, 3.63),
)

# An epoch of VoiceBank-DEMAND's training set is 11,572 crops, one of each file.
_EPOCH = 11.6
# Scored on random two-second crops of the test set.
_BSRNN_EPOCHS = (
    2.32, 2.70, 2.72, 2.79, 2.70, 2.85, 2.76, 2.78, 2.87, 2.89, 2.93, 2.92, 3.00, 2.87, 2.95,
)  # fmt: skip
TRAINING = (
    Curve(
        "BSRNN, public log",
        "Fazazl2020/BSRNN",
        [(epoch * _EPOCH, epoch * _EPOCH, y) for epoch, y in enumerate(_BSRNN_EPOCHS, 1)],
    ),
    # Of these two, the first and the last epoch are known; the first one ends in NaN.
    Curve(
        "earlier Mamba form, 1",
        "Fazazl2020/BSRNN",
        [(epoch * _EPOCH, epoch * _EPOCH, y) for epoch, y in ((1, 2.49), (6, 2.72))],
    ),
    Curve(
        "earlier Mamba form, 2",
        "Fazazl2020/BSRNN",
        [(epoch * _EPOCH, epoch * _EPOCH, y) for epoch, y in ((1, 2.44), (18, 2.62))],
    ),
    Curve(
        "ZipEnhancer-S, re-trained",
        "jiangxiaobai222/zipenhancer-repro",
        [(40, 75, 3.1), (60, 120, 3.3), (360, 360, 3.43)],
    ),
    Curve("CMGAN, re-trained", "ruizhecao96/CMGAN#33", [(580, 580, 3.24)]),
)
