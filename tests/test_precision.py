"""Mixed precision on a CPU: only what it can do, and by itself only what it does faster."""

from __future__ import annotations

import pytest
import torch

from bsbimamba.training import precision
from bsbimamba.training.config import ConfigError
from bsbimamba.training.precision import Precision


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


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_capability_query_knows_whether_an_lstm_runs(amp: str) -> None:
    """Where the query says no, oneDNN refuses the LSTM."""
    lstm = torch.nn.LSTM(4, 4)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    if not precision.can_do(amp):
        pytest.skip(f"this CPU cannot compute in {amp}")
    with torch.autocast("cpu", dtype):
        assert lstm(torch.zeros(3, 1, 4))[0].isfinite().all()


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
