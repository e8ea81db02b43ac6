"""The search for the largest batch, and what is said of a limit that is kept or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import memory_12gb
from benchmarks.candidates import networks
from benchmarks.fitting import Meter, largest, predicted, usable
from benchmarks.memory_12gb import Sizes, held, main, measure, misfits, table

CPU = torch.device("cpu")
MIB = 2**20


class Asked:
    """Numbers up to `most` fit; notes which were tried."""

    def __init__(self, most: int) -> None:
        self.most, self.tried = most, []

    def __call__(self, number: int) -> bool:
        self.tried.append(number)
        return number <= self.most


@pytest.mark.parametrize("start", [-3, 1, 2, 17, 50, 99, 100, 1000])
@pytest.mark.parametrize("most", [0, 1, 2, 16, 17, 18, 63, 99, 100, 500])
def test_the_largest_is_found(most: int, start: int) -> None:
    asked = Asked(most)
    assert largest(asked, start, 100) == min(most, 100)
    assert len(asked.tried) == len(set(asked.tried))
    assert all(1 <= number <= 100 for number in asked.tried)
    assert len(asked.tried) <= 14


def test_a_good_start_needs_few_attempts() -> None:
    asked = Asked(48)
    assert largest(asked, 47, 4096) == 48
    assert asked.tried == [47, 48, 50, 49]


def test_memory_is_predicted_along_a_line() -> None:
    assert predicted({4: 1400, 2: 1200}, 5000) == 40
    assert predicted({2: 1200, 4: 1400}, 5099) == 40
    assert predicted({2: 1200, 4: 1400}, 100) == 1
    assert predicted({2: 1200, 4: 1200}, 5000) == 4


def test_a_run_beyond_the_limit_does_not_fit() -> None:
    def work() -> object:
        return torch.zeros(MIB // 4)

    used = Meter(CPU, MIB).run(work)
    assert used is not None
    assert used.allocated == MIB
    assert Meter(CPU, MIB - 1).run(work) is None


def small(meter: Meter, *names: str, most: int = 3, recordings: tuple[int, ...] = (1, 2)) -> dict:
    chosen = {name: networks()[name] for name in names}
    return measure(meter, chosen, Sizes(1, 0.25, 2, recordings, most), channels=12)


def test_everything_fits_a_large_card() -> None:
    result = json.loads(json.dumps(small(Meter(CPU, 2**33), "abl1", "baseline")))
    assert misfits(result) == []
    first, second = result["rows"]
    assert [(x["checkpoint"], x["batch"]) for x in first["largest"]] == [(True, 3), (False, 3)]
    modes = [None] if networks()["baseline"].default is None else [True, False]
    assert [(x["checkpoint"], x["batch"]) for x in second["largest"]] == [(x, 3) for x in modes]
    for row in (first, second):
        assert row["train"]["allocated"] > 0
        assert row["validate 2 s"]["allocated"] > row["validate 1 s"]["allocated"] > 0
    shown = table(result)
    assert shown.count("\n| ") == 3
    assert "train 1 x 0.25 s (MiB)" in shown


def test_nothing_fits_a_tiny_card() -> None:
    result = small(Meter(CPU, 1000), "abl1", most=8)
    assert misfits(result) == ["abl1: train", "abl1: validate 1 s", "abl1: validate 2 s"]
    assert [x["batch"] for x in result["rows"][0]["largest"]] == [0, 0]
    assert "does not fit" in table(result)


def test_a_batch_that_leaves_no_room_to_validate_does_not_fit() -> None:
    free = small(Meter(CPU, 2**33), "abl1", most=1, recordings=(10,))["rows"][0]
    train, validate = (free[kind]["allocated"] for kind in ("train", "validate 10 s"))
    assert train < validate
    assert [x["batch"] for x in free["largest"]] == [1, 1]
    row = small(Meter(CPU, (train + validate) // 2), "abl1", most=1, recordings=(10,))["rows"][0]
    assert row["train"]
    assert row["validate 10 s"] is None
    assert [x["batch"] for x in row["largest"]] == [0, 0]


@pytest.mark.parametrize(("total", "limit"), [(10, 10), (11, 11), (80, 11)])
def test_a_smaller_card_is_held_to_what_it_has(
    monkeypatch: pytest.MonkeyPatch, total: int, limit: int
) -> None:
    card = SimpleNamespace(total_memory=total * 2**30)
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda x, device: fractions.append(x)
    )
    meter = Meter(torch.device("cuda"), usable())
    assert meter.limit == limit * 2**30
    assert fractions == [limit / total]
    said = held({"limit_bytes": meter.limit, "wanted_bytes": meter.wanted})
    assert said.startswith(f"PyTorch was held to {1024 * limit:,} MiB")
    assert ("instead of 11,264 MiB" in said) == (limit < 11)


def test_the_command_needs_a_card(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["memory_12gb"])
    assert main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "CUDA" in captured.err


@pytest.mark.parametrize(("limit", "status"), [(2**33, 0), (1000, 1)])
def test_the_status_says_whether_all_fits(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    limit: int,
    status: int,
) -> None:
    """The command as on a card, which is a CPU here."""
    path = tmp_path / "memory.json"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(memory_12gb, "Meter", lambda device, given: Meter(CPU, limit))
    monkeypatch.setattr(memory_12gb, "measure", lambda meter, chosen: small(meter, *chosen))
    monkeypatch.setattr(sys, "argv", ["x", "--network", "abl1", "--json", str(path)])
    assert main() == status
    captured = capsys.readouterr()
    assert json.loads(path.read_text())["limit_bytes"] == limit
    assert captured.err.count("does not fit: abl1") == 3 * status
    assert "abl1" in captured.out
