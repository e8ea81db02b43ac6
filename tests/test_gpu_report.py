"""The page of what was measured on a GPU: figures from files alone, or a word."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from benchmarks.gpu_report import SECTIONS, main, render, results

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
                "ceilings": {"forward": 0.5, "backward": 0.25},
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
        "batch": 6, "crop": 2.0, "limit_bytes": 10 * 2**30, "wanted_bytes": 11 * 2**30,
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
    return render(results(folder))


def section(page: str, name: str) -> str:
    return page.partition(f"## {SECTIONS[name].title}")[2].partition("\n## ")[0]


def cells(text: str, first: str) -> list[str]:
    line = next(x for x in text.splitlines() if x.startswith(f"| {first} "))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_without_results_every_row_is_not_measured(tmp_path: Path) -> None:
    page = render(results(tmp_path))
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
    assert "held to 10,240 MiB, all that this card has, instead of 11,264 MiB." in memory
    expected = ["abl3", "1,024", "2,048", "does not fit", "", "40", "30"]
    assert cells(memory, "abl3") == expected
    assert cells(memory, "abl1")[1] == "not measured"
    assert "not measured" in section(page, "step")


def test_the_scan_is_held_against_mamba(tmp_path: Path) -> None:
    shapes = json.loads(json.dumps(RESULTS["scan"]["shapes"]))
    shapes["band path"] = json.loads(json.dumps(shapes["time path"]))
    for name, seconds, peak in (("time path", 0.0046, 2**20), ("band path", 0.0089, 2**19)):
        theirs = {"forward": 0.01, "both": seconds, "peak": peak}
        shapes[name]["rows"]["mamba-ssm with flips"] = theirs
    scan = section(written(tmp_path, shapes=shapes), "scan")
    assert cells(scan, "time path: speed")[1:] == ["1.53 x", "at least 1.5 x", "reached"]
    assert cells(scan, "time path: memory")[1:] == ["1.00 x", "at most 1 x", "reached"]
    assert cells(scan, "band path: speed")[1:] == ["2.97 x", "at least 3 x", "missed"]
    assert cells(scan, "band path: memory")[1:] == ["2.00 x", "at most 1 x", "missed"]
    assert cells(scan, "band path: backward, of a copy's rate")[1] == "25.0 %"


def test_figures_of_a_cpu_do_not_count(tmp_path: Path) -> None:
    assert written(tmp_path, cuda=False) == render({})


def test_one_page_is_of_one_card_each_part_with_its_own_date(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "pesq_pool.json"
    newer = {"date": "2026-03-04T00:00:00+00:00", "commit": "abcdef0123"}
    path.write_text(json.dumps({**HEAD, **RESULTS["pesq_pool"], **newer}))
    page = render(results(tmp_path))
    assert "A Card, 2026-03-04, commit abcdef0123;" in section(page, "pesq_pool")
    assert "A Card, 2026-01-02, commit 0123456789;" in section(page, "memory_12gb")
    other = {**newer, "device": "Another"}
    path.write_text(json.dumps({**HEAD, **RESULTS["pesq_pool"], **other}))
    page = render(results(tmp_path))
    assert results(tmp_path).keys() == {"pesq_pool"}
    assert "A Card" not in page


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, path: Path) -> int:
    arguments = ["x", "--results", str(folder), "--out", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    return main()


def test_the_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, page = tmp_path / "gpu.md", written(tmp_path)
    assert call(monkeypatch, tmp_path, path) == 0
    assert path.read_text(encoding="utf-8") == page


def test_without_a_gpu_the_page_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, cuda=False)
    path = tmp_path / "gpu.md"
    path.write_text("what was there")
    for folder in (tmp_path, tmp_path / "nothing"):
        assert call(monkeypatch, folder, path) == 1
        assert "no result of a GPU" in capsys.readouterr().err
    assert path.read_text() == "what was there"


def test_the_page_in_the_repository_is_of_the_present_form() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert page.startswith("# Measured on a GPU\n")
    assert all(f"\n## {part.title}\n" in page for part in SECTIONS.values())
