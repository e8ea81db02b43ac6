"""The page of what was measured on a GPU: figures from files alone, or a word."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from benchmarks.gpu_report import SECTIONS, main, render

HEAD = {
    "date": "2026-01-02T03:04:05+00:00",
    "commit": "0123456789",
    "versions": {"torch": "9.9"},
    "device": "A Card",
    "cuda": True,
    "threads": 4,
}
TIMES = {"median": 0.2, "min": 0.1, "max": 0.3}
RESULTS: dict[str, dict[str, Any]] = {
    "scan": {
        "ours": "triton",
        "shapes": {
            "time path": {
                "size": "1x2x3x4",
                "dtype": "torch.bfloat16",
                "rows": {
                    "mamba-ssm with flips": {"reason": "not built"},
                    "chunked": {"forward": 0.004, "both": None, "peak": None},
                    "triton": {"forward": 0.002, "both": 0.003, "peak": 2**20},
                },
            }
        },
    },
    "pesq_pool": {
        "network": "abl3", "batch": 6, "crop": 2.0, "amp": "bf16", "workers": 3,
        "seconds": {"with labels": TIMES, "without": TIMES}, "labels_alone": 0.1,
        "ratio": {"median": 1.04, "min": 1.0, "max": 1.2}, "target": 1.05,
    },
    "memory_12gb": {
        "batch": 6, "crop": 2.0, "limit_bytes": 11 * 2**30,
        "rows": [{
            "network": "abl3", "train": {"allocated": 2**30, "reserved": 2**31},
            "validate 15 s": None,
            "largest": [{"checkpoint": True, "batch": 40}, {"checkpoint": False, "batch": 30}],
        }],
    },
}  # fmt: skip


def written(folder: Path, **changes: Any) -> str:
    for name, result in RESULTS.items():
        (folder / f"{name}.json").write_text(json.dumps({**HEAD, **result, **changes}))
    return render(folder)


def section(page: str, name: str) -> str:
    return page.partition(f"## {SECTIONS[name].title}")[2].partition("\n## ")[0]


def cells(text: str, first: str) -> list[str]:
    line = next(x for x in text.splitlines() if x.startswith(f"| {first} "))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_without_results_every_row_is_not_measured(tmp_path: Path) -> None:
    page = render(tmp_path)
    assert page.count("not measured") == sum(len(x.expected) for x in SECTIONS.values())
    for name, part in SECTIONS.items():
        assert all(cells(section(page, name), row)[1] == "not measured" for row in part.expected)


def test_what_was_measured_is_shown_with_where_and_when(tmp_path: Path) -> None:
    page = written(tmp_path)
    for name in RESULTS:
        assert "A Card, 2026-01-02, commit 0123456789; torch 9.9; 4 threads." in section(page, name)
    scan = section(page, "scan")
    assert cells(scan, "chunked") == ["chunked", "4.00 ms (2.00x)", "not measured", ""]
    assert cells(scan, "triton") == ["triton", "2.00 ms (1.00x)", "3.00 ms (1.00x)", "1"]
    assert cells(scan, "mamba-ssm with flips")[1] == "not measured"
    labels = section(page, "pesq_pool")
    assert cells(labels, "with / without")[1] == "1.040 (1.000 to 1.200)"
    assert cells(labels, "target")[1] == "at most 1.05: reached"
    memory = section(page, "memory_12gb")
    expected = ["abl3", "1,024", "2,048", "does not fit", "", "40", "30"]
    assert cells(memory, "abl3") == expected
    assert cells(memory, "abl1")[1] == "not measured"
    assert "not measured" in section(page, "step")


def test_figures_of_a_cpu_do_not_count(tmp_path: Path) -> None:
    assert written(tmp_path, cuda=False) == render(tmp_path / "nothing")


def test_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.md"
    arguments = ["x", "--results", str(tmp_path), "--out", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert path.read_text(encoding="utf-8") == render(tmp_path)


def test_the_page_in_the_repository_is_of_the_present_form() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert page.startswith("# Measured on a GPU\n")
    assert all(f"\n## {part.title}\n" in page for part in SECTIONS.values())
