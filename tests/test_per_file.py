"""`per_file.csv`, read back; and as the memory of an evaluation that is run again."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import voiced
from systems import row

from evaluation import metrics, per_file
from evaluation.metrics import METRICS, definition
from evaluation.per_file import PER_FILE, key_of, score_or_recall, write_rows
from evaluation.scoring import Row, Task, score_file

COLUMNS = ["system", "utterance", *METRICS, "note", "key"]


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / PER_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# The file


def test_every_row_has_a_line(tmp_path: Path):
    lacking = Row("abl3", "b", {"stoi": 0.7}, "PESQ finds no speech; SI-SDR is infinite")
    write_rows(tmp_path / PER_FILE, [row("noisy", "a", 1.0), lacking])
    first, second = lines(tmp_path)
    assert list(first) == COLUMNS
    assert first["system"] == "noisy"
    assert first["pesq_wb"] == "1.000000"
    assert second["pesq_wb"] == second["si_sdr"] == ""
    assert second["stoi"] == "0.700000"
    assert second["note"] == "PESQ finds no speech; SI-SDR is infinite"


NAMES = ["a,b", 'a"b', "a|b", "a\nb", "a\rb", "a\\|b", "ä/ö", " a ", "=1+1", "'"]


def test_any_name_can_be_read_back(tmp_path: Path):
    write_rows(tmp_path / PER_FILE, [row("of | two\nlines", n, 2.0, f"on {n}") for n in NAMES])
    found = lines(tmp_path)
    # A carriage return is the one character that is written as an escape.
    expected = [name.replace("\r", "\\r") for name in NAMES]
    assert [line["utterance"] for line in found] == expected
    assert [line["note"] for line in found] == [f"on {name}" for name in expected]
    assert {line["system"] for line in found} == {"of | two\nlines"}


def test_a_name_that_is_no_text_is_written_with_escapes(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9")
    write_rows(tmp_path / PER_FILE, [row(name, name, 2.0)])
    (line,) = lines(tmp_path)
    assert line["system"] == line["utterance"] == "caf\\udce9"


def test_what_cannot_be_replaced_leaves_no_torn_file(tmp_path: Path):
    (tmp_path / PER_FILE).mkdir()
    with pytest.raises(IsADirectoryError):
        write_rows(tmp_path / PER_FILE, [])
    assert os.listdir(tmp_path) == [PER_FILE]


# The memory


class Scored:
    """Stands in for the processes: scores here, and notes what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.stop_at = ""
        self.at: Callable[[Task], object] = lambda task: None
        monkeypatch.setattr(per_file, "score_files", self)

    def __call__(self, tasks: Sequence[Task], workers: int, done) -> None:
        for number, task in enumerate(tasks):
            if task.utterance == self.stop_at:
                raise KeyboardInterrupt
            self.names.append(task.utterance)
            self.at(task)
            done(number, score_file(task))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Scored:
    return Scored(monkeypatch)


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Three pairs of files, and one whose enhanced file is not there."""
    clean, noisy = (side.numpy()[0] for side in voiced(0, 0.1))
    made: list[Task] = []
    for place, name in enumerate("abc"):
        paths = [tmp_path / f"{name}_{side}.wav" for side in ("clean", "enhanced")]
        if made:  # written anew, it could be another second's, which such files have in them
            paths[0].write_bytes((tmp_path / "a_clean.wav").read_bytes())
        else:
            soundfile.write(paths[0], 0.2 * clean, 16000, "FLOAT")
        soundfile.write(paths[1], 0.2 * clean + 0.1 * (place + 1) * (noisy - clean), 16000, "FLOAT")
        made.append(Task("x", name, *paths))
    return [*made, Task("x", "d", made[0].clean, None)]


def test_what_is_known_is_not_scored_again(tmp_path: Path, tasks: list[Task], scored: Scored):
    first = score_or_recall(tasks, 2, tmp_path)
    before = (tmp_path / PER_FILE).read_bytes()
    assert scored.names == ["a", "b", "c", "d"]
    scored.names.clear()
    assert score_or_recall(tasks, 2, tmp_path) == first
    assert (tmp_path / PER_FILE).read_bytes() == before
    assert scored.names == ["d"]  # without a score, there may be one now


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, tasks: list[Task], scored: Scored):
    scored.stop_at = "c"
    with pytest.raises(KeyboardInterrupt):
        score_or_recall(tasks, 2, tmp_path)
    assert [line["utterance"] for line in lines(tmp_path)] == ["a", "b"]
    scored.stop_at = ""
    scored.names.clear()
    rows = score_or_recall(tasks, 2, tmp_path)
    assert scored.names == ["c", "d"]
    (tmp_path / PER_FILE).unlink()
    assert score_or_recall(tasks, 2, tmp_path) == rows


def test_rows_are_written_as_they_come(
    tmp_path: Path, tasks: list[Task], scored: Scored, monkeypatch: pytest.MonkeyPatch
):
    written = []
    monkeypatch.setattr(per_file, "_SECONDS", 0.0)
    monkeypatch.setattr(
        per_file, "write_rows", lambda path, rows: written.append([r.utterance for r in rows])
    )
    score_or_recall(tasks, 2, tmp_path)
    assert written == [["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"], list("abcd")]


def test_content_decides_not_the_name(tmp_path: Path, tasks: list[Task], scored: Scored):
    score_or_recall(tasks, 2, tmp_path)
    scored.names.clear()
    assert tasks[0].enhanced
    assert tasks[1].enhanced
    moved = tmp_path / "moved.wav"
    moved.write_bytes(tasks[1].enhanced.read_bytes())
    tasks[0].enhanced.write_bytes(tasks[2].enhanced.read_bytes())  # type: ignore[union-attr]
    renamed = Task("another", "renamed", tasks[1].clean, moved)
    rows = score_or_recall([tasks[0], renamed], 2, tmp_path)
    assert scored.names == []  # also a's new content is known: it is c's
    assert (rows[1].system, rows[1].utterance) == ("another", "renamed")
    assert rows[1].scores == score_file(renamed).scores
    assert rows[0].scores == score_file(tasks[0]).scores


@pytest.mark.parametrize("side", ["clean", "enhanced"])
def test_another_content_is_scored_anew(
    tmp_path: Path, tasks: list[Task], scored: Scored, side: str
):
    before = score_or_recall(tasks, 2, tmp_path)
    path: Path = getattr(tasks[1], side)
    signal, rate = soundfile.read(path)
    soundfile.write(path, signal + 0.01 * np.sin(np.arange(len(signal))), rate, "FLOAT")
    scored.names.clear()
    after = score_or_recall(tasks, 2, tmp_path)
    assert scored.names == ["b", "d"]
    assert after[1].scores != before[1].scores
    assert after[0] == before[0]


def test_other_definitions_are_scored_anew(
    tmp_path: Path, tasks: list[Task], scored: Scored, monkeypatch: pytest.MonkeyPatch
):
    score_or_recall(tasks, 2, tmp_path)
    scored.names.clear()
    monkeypatch.setattr(per_file, "definition", lambda: "pesq 0.0.5")
    score_or_recall(tasks, 2, tmp_path)
    assert scored.names == ["a", "b", "c", "d"]


def test_what_failed_for_another_reason_than_its_content_is_tried_again(
    tmp_path: Path, tasks: list[Task], scored: Scored, monkeypatch: pytest.MonkeyPatch
):
    rows = [Row("x", task.utterance, {}, "its scoring process died") for task in tasks]
    monkeypatch.setattr(
        per_file,
        "score_files",
        lambda tasks, workers, done: list(map(done, range(4), rows)),
    )
    score_or_recall(tasks, 2, tmp_path)
    monkeypatch.setattr(per_file, "score_files", scored)
    assert all(row.scores for row in score_or_recall(tasks[:3], 2, tmp_path))


def test_scores_that_somebody_has_changed_are_not_taken(
    tmp_path: Path, tasks: list[Task], scored: Scored
):
    rows = score_or_recall(tasks, 2, tmp_path)
    path = tmp_path / PER_FILE
    value = f"{rows[1].scores['pesq_wb']:.6f}"
    for changed in ("4.500000", ""):
        path.write_text(path.read_text().replace(value, changed))
        scored.names.clear()
        assert score_or_recall(tasks, 2, tmp_path) == rows
        assert scored.names == ["b", "d"]


def test_definitions_are_the_code_and_the_packages(monkeypatch: pytest.MonkeyPatch):
    before = definition.__wrapped__()
    assert {"pesq 0.0.4", "pystoi 0.4.1"} <= set(before.split(", "))
    assert "soxr " in before
    monkeypatch.setattr(metrics, "_SOURCES", metrics._SOURCES[1:])
    assert definition.__wrapped__() != before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"\x00\xff" * 1000,
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"key", b"lock"),
        lambda content: content.replace(b"pesq_wb", b"pesq"),
        lambda content: b"\n".join(b"x," + line for line in content.splitlines()),
        lambda content: b"\n".join(line.replace(b".", b"x") for line in content.splitlines()),
        lambda content: content.replace(b",1.", b",nan1."),
    ],
)
def test_a_damaged_memory_is_no_memory(tmp_path: Path, tasks: list[Task], scored: Scored, spoil):
    rows = score_or_recall(tasks, 2, tmp_path)
    path = tmp_path / PER_FILE
    path.write_bytes(spoil(path.read_bytes()))
    assert score_or_recall(tasks, 2, tmp_path) == rows


def test_a_file_that_was_replaced_meanwhile_is_not_remembered(
    tmp_path: Path, tasks: list[Task], scored: Scored
):
    """Neither under what it was before, nor under what it is now."""
    path = tasks[1].enhanced
    assert path
    before, others = path.read_bytes(), tasks[2].enhanced
    assert others

    scored.at = lambda task: path.write_bytes(others.read_bytes()) if task is tasks[1] else None
    score_or_recall(tasks[:2], 2, tmp_path)
    path.write_bytes(before)
    scored.at = lambda task: None
    scored.names.clear()
    rows = score_or_recall(tasks[:3], 2, tmp_path)
    assert scored.names == ["b", "c"]
    assert rows[1].scores == score_file(tasks[1]).scores != rows[2].scores


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path, tasks: list[Task], scored: Scored):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    os.mkfifo(tmp_path / PER_FILE)
    assert key_of(Task("x", "a", tasks[0].clean, pipe), {}) == ""
    (row,) = score_or_recall([Task("x", "a", tasks[0].clean, pipe)], 1, tmp_path)
    assert row.note == f"{pipe}: not a file"
    assert (tmp_path / PER_FILE).is_file()


def test_a_note_that_somebody_has_changed_is_not_taken(
    tmp_path: Path, tasks: list[Task], scored: Scored
):
    signal, rate = soundfile.read(tasks[0].enhanced)
    soundfile.write(tasks[0].enhanced, signal[:-100], rate, "FLOAT")
    rows = score_or_recall(tasks, 2, tmp_path)
    assert rows[0].note.startswith("-100 samples")
    path = tmp_path / PER_FILE
    path.write_text(path.read_text().replace("-100 samples", "-1 samples"))
    assert score_or_recall(tasks, 2, tmp_path) == rows


def test_a_file_that_is_not_there_has_no_key(tmp_path: Path):
    assert key_of(Task("x", "a", tmp_path / "none", tmp_path / "none"), {}) == ""
    assert key_of(Task("x", "a", None, tmp_path / "none"), {}) == ""
