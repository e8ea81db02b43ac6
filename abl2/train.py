"""Train ablation 2 on VoiceBank-DEMAND, or on what the command line names.

Hypothesis: Mamba across the bands of each frame, beside Mamba along time, adds what a band alone
cannot know; the network then surpasses BSRNN.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bsbimamba.openmp  # noqa: F401  (before torch)
from abl2.mbs_net import MBSNet
from bsbimamba.training.cli import main
from bsbimamba.training.config import BASE

CONFIG = replace(
    BASE,
    name="abl2",
    model={"num_layers": 1, "d_state": 16, "chunk_size": 64, "use_checkpoint": True},
    data=replace(BASE.data, batch_size=6, crop_seconds=2.0),
    run=replace(BASE.run, amp="auto"),
)

if __name__ == "__main__":
    main(MBSNet, CONFIG)
