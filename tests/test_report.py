"""The three files that an evaluation leaves, read back."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from evaluation import report
from evaluation.metrics import METRICS
from evaluation.report import System, write_report
from evaluation.scoring import Row

FACTS = {
    "parameters": 2_012_345,
    "macs_per_second": 6.25e9,
    "checkpoint": "best.pt",
    "step": 12_000,
    "epochs": 6.221,
    "seed": 3,
    "batch": "6 x 2 s",
    "recipe": "plain",
    "beside_recipe": {"optim.learning_rate": 0.001, "loss.time": 0.5},
    "held_out": ["p226", "p287"],
}


def row(utterance: str, pesq_wb: float, note: str = "") -> Row:
    return Row(
        utterance, {"pesq_wb": pesq_wb, "stoi": 0.9, "estoi": 0.8, "si_sdr": 10 * pesq_wb}, note
    )


NOISY = System("noisy", [row("a", 1.0), row("b", 2.0), row("c", 1.5)])
PARTLY = System(
    "abl3",
    [
        row("a", 3.0),
        Row("b", {"stoi": 0.7, "estoi": 0.5}, "PESQ finds no speech; SI-SDR is infinite"),
        row("c", 2.0, "-12 samples: the common part is scored"),
    ],
    FACTS,
)
NOTHING = System("broken", [Row(name, {}, "has no samples") for name in "abc"])


def per_file(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_file.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(folder: Path) -> dict[str, Any]:
    """The summary by a strict reader of JSON, which knows no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "summary.json").read_text("utf-8"), parse_constant=refuse)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_every_metric_has_a_column():
    assert tuple(report._HEADINGS) == METRICS


def test_per_file_has_a_line_for_each_file_of_each_system(tmp_path: Path):
    write_report(tmp_path, [NOISY, PARTLY], "corpus")
    lines = per_file(tmp_path)
    assert list(lines[0]) == ["system", "utterance", *METRICS, "note"]
    assert [(line["system"], line["utterance"]) for line in lines] == [
        (system, name) for system in ("noisy", "abl3") for name in "abc"
    ]
    assert lines[0] == {
        "system": "noisy",
        "utterance": "a",
        "pesq_wb": "1.000000",
        "stoi": "0.900000",
        "estoi": "0.800000",
        "si_sdr": "10.000000",
        "note": "",
    }
    assert lines[4]["pesq_wb"] == lines[4]["si_sdr"] == ""
    assert lines[4]["stoi"] == "0.700000"
    assert lines[4]["note"] == "PESQ finds no speech; SI-SDR is infinite"


def test_means_are_over_the_files_that_have_the_score(tmp_path: Path):
    write_report(tmp_path, [NOISY, PARTLY, NOTHING], "corpus")
    found = summary(tmp_path)
    assert found["data"] == "corpus"
    assert found["versions"].keys() == {"pesq", "pystoi", "numpy", "torch"}
    assert list(found["systems"]) == ["noisy", "abl3", "broken"]
    abl3, broken = found["systems"]["abl3"], found["systems"]["broken"]
    assert abl3["files"] == broken["files"] == 3
    assert abl3["scored"] == {"pesq_wb": 2, "stoi": 3, "estoi": 3, "si_sdr": 2}
    assert abl3["means"] == pytest.approx(
        {"pesq_wb": 2.5, "stoi": 2.5 / 3, "estoi": 2.1 / 3, "si_sdr": 25.0}
    )
    assert abl3["notes"] == {
        "b": "PESQ finds no speech; SI-SDR is infinite",
        "c": "-12 samples: the common part is scored",
    }
    assert abl3["facts"] == FACTS
    assert broken["scored"] == dict.fromkeys(METRICS, 0)
    assert broken["means"] == dict.fromkeys(METRICS)


def test_table_has_a_line_for_each_system_in_their_order(tmp_path: Path):
    table = write_report(tmp_path, [NOISY, PARTLY, NOTHING], "corpus")
    assert (tmp_path / "table.md").read_text("utf-8") == table
    lines = table.splitlines()
    assert cells(lines[0]) == [
        "system",
        "parameters",
        "steps",
        "PESQ-WB",
        "STOI",
        "ESTOI",
        "SI-SDR (dB)",
    ]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert cells(lines[2]) == ["noisy", "", "", "1.500", "0.9000", "0.8000", "15.00"]
    assert cells(lines[3])[:5] == ["abl3", "2,012,345", "12,000", "2.500", "0.8333"]
    assert cells(lines[4]) == ["broken", "", "", "none", "none", "none", "none"]


def test_table_says_what_it_rests_on(tmp_path: Path):
    lines = write_report(tmp_path, [NOISY, PARTLY, NOTHING], "corpus").splitlines()
    assert "Means over the 3 files of corpus." in lines
    assert any(line.startswith("abl3: 1 without all scores, ") for line in lines)
    assert "abl3: 1 with a note in per_file.csv." in lines
    assert any(line.startswith("broken: 3 without all scores, ") for line in lines)
    assert not any(line.startswith(("noisy:", "broken: 0")) for line in lines)
    assert (
        "abl3: best.pt, 6.22 epochs of batches of 6 x 2 s, seed 3, recipe plain with "
        "optim.learning_rate 0.001 with loss.time 0.5, held out p226, p287." in lines
    )
    assert lines[-1].startswith("pesq 0.0.4, pystoi ")


def test_table_of_untrained_systems_says_nothing_of_training(tmp_path: Path):
    table = write_report(tmp_path, [NOISY, NOTHING], "corpus")
    assert "best.pt" not in table
    assert "seed" not in table


NAMES = ["a,b", 'a"b', "a|b", "a\nb", "a\rb", "a\\|b", "ä/ö", " a ", "=1+1", "'"]


def test_any_name_can_be_read_back(tmp_path: Path):
    system = System("of | two\nlines", [row(name, 2.0, f"note on {name}") for name in NAMES])
    table = write_report(tmp_path, [NOISY, system], "corpus | of\nmine")
    lines = per_file(tmp_path)[len(NOISY.rows) :]
    # A carriage return is the one character that is written as an escape.
    expected = [name.replace("\r", "\\r") for name in NAMES]
    assert [line["utterance"] for line in lines] == expected
    assert [line["note"] for line in lines] == [f"note on {name}" for name in expected]
    assert {line["system"] for line in lines} == {"of | two\nlines"}
    assert summary(tmp_path)["systems"]["of | two\nlines"]["notes"].keys() == set(NAMES)
    assert "| of \\| two lines |  |  | 2.000 |" in table
    assert "Means over the 3 files of corpus \\| of mine." in table


def test_a_name_that_is_no_text_is_written_with_escapes(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    write_report(tmp_path, [System(name, [row(name, 2.0)])], name)
    (line,) = per_file(tmp_path)
    assert line["system"] == line["utterance"] == "caf\\udce9"
    assert name in summary(tmp_path)["systems"]


def test_an_earlier_report_is_replaced_and_nothing_else_is_left(tmp_path: Path):
    write_report(tmp_path, [NOISY, PARTLY], "corpus")
    write_report(tmp_path, [NOISY], "another corpus")
    assert summary(tmp_path)["data"] == "another corpus"
    assert len(per_file(tmp_path)) == 3
    assert sorted(os.listdir(tmp_path)) == ["per_file.csv", "summary.json", "table.md"]


def test_a_file_that_cannot_be_replaced_leaves_no_torn_one(tmp_path: Path):
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_report(tmp_path, [NOISY], "corpus")
    assert sorted(os.listdir(tmp_path)) == ["per_file.csv", "summary.json"]
