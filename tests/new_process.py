"""A scan in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT


def run_in_new_process(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


SCAN = """
import torch
from scan_cases import make_arguments, run
torch.set_num_threads(2)
got = run(make_arguments(2, 70, 64, 4), torch.float32, "cpu")
print({k: float(v.detach().double().sum()) for k, v in got.items()})
"""
