"""`train.py` of ablation 3, narrow, called in tests as a function."""

from __future__ import annotations

import pytest

from abl3.mbs_net import MBSNet
from abl3.train import CONFIG, PRESETS
from bsbimamba.training import cli

QUICK = ["--steps", "1", "--workers", "0", "--batch-size", "2", "--crop", "0.5"]
# Without a fall of the rate at its end, a run goes on with more steps from its last one.
NARROW = ["--optim.fall=0", "--model.channels=16"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """The one message with which `train.py` ends with that status."""
    with pytest.raises(SystemExit) as ended:
        cli.main(MBSNet, CONFIG, PRESETS, [str(argument) for argument in arguments])
    assert ended.value.code == status
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return " ".join(errors.replace("│", " ").split())  # tyro puts its messages into a box
