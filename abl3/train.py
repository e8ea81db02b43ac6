"""Train ablation 3 on VoiceBank-DEMAND, or on what the command line names.

Hypothesis: decoders as wide as what each band must produce lose nothing against uniform ones three
to four times as wide, so that ablation 2 keeps its quality with a fifth fewer parameters.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bsbimamba.openmp  # noqa: F401  (before torch)
from abl3.mbs_net import MBSNet
from bsbimamba.training.cli import main
from bsbimamba.training.config import BASE

CONFIG = replace(
    BASE,
    name="abl3",
    model={"num_layers": 1, "d_state": 16, "chunk_size": 64, "use_checkpoint": True},
    data=replace(BASE.data, batch_size=6, crop_seconds=2.0),
    run=replace(BASE.run, amp="auto"),
)

# The control: adaptive widths against one width for all bands, at equal size.
PRESETS = {
    "uniform31": (
        MBSNet,
        replace(CONFIG, name="uniform31", model={**CONFIG.model, "hidden": (31, 31, 31)}),
    ),
}

if __name__ == "__main__":
    main(MBSNet, CONFIG, PRESETS)
