"""Train ablation 1 on VoiceBank-DEMAND, or on what the command line names.

Hypothesis: bidirectional Mamba along time within each band, with no exchange between the bands,
reaches BSRNN with fewer parameters. The reference for what the band path of ablation 2 adds.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bsbimamba.openmp  # noqa: F401  (before torch)
from abl1.mbs_net import MBSNet
from bsbimamba.training.cli import main
from bsbimamba.training.config import BASE

CONFIG = replace(
    BASE,
    name="abl1",
    model={"num_layers": 1, "d_state": 16, "chunk_size": 64, "use_checkpoint": True},
    data=replace(BASE.data, batch_size=6, crop_seconds=2.0),
    run=replace(BASE.run, amp="auto"),
)

if __name__ == "__main__":
    main(MBSNet, CONFIG)
