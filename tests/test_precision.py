"""Mixed precision on a CPU: only what it can do, and by itself only what it does faster."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from training import precision
from training.config import ConfigError
from training.precision import Precision


def test_amp_is_refused_where_onednn_lacks_the_instructions() -> None:
    """As on a CPU with AVX2 alone, which oneDNN can be told to take this one for."""
    code = """
import torch
from training.config import ConfigError
from training.precision import Precision
if torch.ops.mkldnn._is_mkldnn_bf16_supported():
    raise SystemExit(77)  # no x86 CPU
lstm = torch.nn.LSTM(4, 4)
for amp in ("bf16", "fp16"):
    try:
        with Precision("cpu", amp).autocast():
            lstm(torch.zeros(3, 1, 4))
    except ConfigError as error:
        print(error)
print(Precision("cpu", "auto").amp)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if result.returncode == 77:
        pytest.skip("oneDNN cannot be told here that there are no instructions for bf16")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "--amp bf16: this CPU has no instructions for it; use --amp off",
        "--amp fp16: this CPU has no instructions for it; use --amp off",
        "off",
    ]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("able", [False, True])
def test_precision_follows_the_capability_query(
    amp: str, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda asked: able and asked == amp)
    if able:
        assert Precision("cpu", amp).amp == amp
    else:
        with pytest.raises(ConfigError, match=f"^--amp {amp}: .* use --amp off$"):
            Precision("cpu", amp)


@pytest.mark.parametrize(
    ("able", "capabilities", "chosen"),
    [
        (True, {"avx512_bf16": True}, "bf16"),
        (True, {"avx512_bf16": False}, "off"),  # oneDNN imitates the instructions, slowly
        (True, {"bf16": True}, "off"),  # ARM, where no step was measured
        (False, {"avx512_bf16": True}, "off"),
    ],
)
def test_auto_takes_bf16_only_where_it_is_known_to_be_faster(
    able: bool, capabilities: dict[str, bool], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "can_do", lambda amp: able)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert Precision("cpu", "auto").amp == chosen
