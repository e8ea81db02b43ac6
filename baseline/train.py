"""Train the baseline, BSRNN, on VoiceBank-DEMAND, or on what the command line names.

By the same code, data, recipe and steps as the ablations. Its controls are presets: the published
size and norms, an LSTM in both directions of time, and ablation 2 with LSTMs in place of Mamba.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bsbimamba.openmp  # noqa: F401  (before torch)
from baseline.bsrnn import BSRNN, LSTMDualPath
from bsbimamba.training.cli import main
from bsbimamba.training.config import BASE

CONFIG = replace(
    BASE,
    name="bsrnn",
    model={"num_layers": 5, "channels": 56},
    data=replace(BASE.data, batch_size=6, crop_seconds=2.0),
    run=replace(BASE.run, amp="auto"),
)
PUBLIC = {
    "num_layers": 5,
    "channels": 64,
    "norm": "recording",
    "time_first": True,
    "published_start": True,
}
BOTH_WAYS = {"num_layers": 4, "channels": 56, "bidirectional_time": True}
PRESETS = {
    "bsrnn_public": (BSRNN, replace(CONFIG, name="bsrnn_public", model=PUBLIC)),
    "bsrnn_bi": (BSRNN, replace(CONFIG, name="bsrnn_bi", model=BOTH_WAYS)),
    "lstm_dualpath": (LSTMDualPath, replace(CONFIG, name="lstm_dualpath", model={"num_layers": 1})),
}

if __name__ == "__main__":
    main(BSRNN, CONFIG, PRESETS)
