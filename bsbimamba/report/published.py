"""Figures of other systems. None of them is a result of this project."""

from __future__ import annotations

import pandas as pd

# On VoiceBank-DEMAND's test set as their authors report it; None: not known. The composite scores
# are of either scale, whichever the authors used.
PUBLISHED = pd.DataFrame(
    [
        ("BSRNN (public re-implementation)", 2.96, 3.10, None, None, None, 0.95),
        ("BSDB-Net", 9.8, 3.11, 4.33, 3.58, 3.73, 0.95),
        ("CMGAN", 1.83, 3.41, 4.63, 3.94, 4.12, 0.96),
        ("MP-SENet", 2.05, 3.50, 4.73, 3.95, 4.22, 0.96),
        ("xLSTM-SENet2", 2.27, 3.53, 4.78, 3.98, 4.27, 0.96),
        ("SEMamba", 2.25, 3.55, 4.77, 3.95, 4.29, 0.96),
        ("BASENet", 0.83, 3.55, None, None, None, 0.96),
        ("Mamba-SEUNet", 6.2, 3.59, 4.80, 4.02, 4.32, 0.96),
        ("PrimeK-Net", 1.41, 3.61, 4.81, 3.98, 4.35, None),
        ("ZipEnhancer-S", 2.04, 3.63, None, None, None, None),
    ],
    columns=["system", "parameters (M)", "PESQ-WB", "CSIG", "CBAK", "COVL", "STOI"],
)

# PESQ-WB in the course of a training, on VoiceBank-DEMAND's own test set: name, source (a
# repository, and an issue's number), and points (thousands of two-second crops, from and to where
# they are known roughly, and the PESQ). An epoch of its training set is 11,572 crops.
_BSRNN_EPOCHS = (  # scored on random two-second crops of the test set
    2.32, 2.70, 2.72, 2.79, 2.70, 2.85, 2.76, 2.78, 2.87, 2.89, 2.93, 2.92, 3.00, 2.87, 2.95,
)  # fmt: skip
TRAINING = (
    (
        "BSRNN, public log",
        "Fazazl2020/BSRNN",
        [(11.6 * epoch, 11.6 * epoch, y) for epoch, y in enumerate(_BSRNN_EPOCHS, 1)],
    ),
    # Of these two, the first and the last epoch are known; the first one ends in NaN.
    ("earlier Mamba form, 1", "Fazazl2020/BSRNN", [(11.6, 11.6, 2.49), (69.6, 69.6, 2.72)]),
    ("earlier Mamba form, 2", "Fazazl2020/BSRNN", [(11.6, 11.6, 2.44), (208.8, 208.8, 2.62)]),
    (
        "ZipEnhancer-S, re-trained",
        "jiangxiaobai222/zipenhancer-repro",
        [(40, 75, 3.1), (60, 120, 3.3), (360, 360, 3.43)],
    ),
    ("CMGAN, re-trained", "ruizhecao96/CMGAN#33", [(580, 580, 3.24)]),
)
