"""Enhancing once more: what is done is skipped, and nobody's file is replaced."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile as sf
from enhance_command import RATE, carried_out, files, put
from saved_runs import save_run

from enhancement import batch
from enhancement.journal import Journal
from enhancement.targets import JOURNAL as NAME
from enhancement.targets import Job
from enhancement.windows import Windows


def test_what_is_done_is_not_done_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "in" / name)
    carried_out(capsys, run, out, tmp_path / "in")

    def stamps() -> list[int]:
        return [(out / name).stat().st_ino for name in ("a.wav", "b.wav")]

    first = stamps()
    _, message = carried_out(capsys, run, out, tmp_path / "in")
    assert message == f"0 of 2 files enhanced into {out}, 2 were done before\n"
    assert stamps() == first
    # A recording that has changed, or a file that is gone, is.
    put(tmp_path / "in" / "a.wav", rate=8_000)
    (out / "b.wav").unlink()
    _, message = carried_out(capsys, run, out, tmp_path / "in")
    assert message == f"2 of 2 files enhanced into {out}\n"
    assert sf.info(out / "a.wav").samplerate == 8_000
    # So are all, by another model.
    other = save_run(tmp_path / "other", seed=1)
    _, message = carried_out(capsys, other, out, tmp_path / "in")
    assert message == f"2 of 2 files enhanced into {out}\n"
    # And by another version of the networks' code.
    monkeypatch.setattr(batch, "code_digest", lambda: "another version")
    _, message = carried_out(capsys, other, out, tmp_path / "in")
    assert message == f"2 of 2 files enhanced into {out}\n"
    # So are they by other windows.
    monkeypatch.setattr("enhancement.model.Windows", lambda: Windows(20, 4, 0.1))
    _, message = carried_out(capsys, other, out, tmp_path / "in")
    assert message == f"2 of 2 files enhanced into {out}\n"


def test_a_damaged_journal_costs_its_damaged_lines_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "in" / name)
        carried_out(capsys, run, out, tmp_path / "in" / name)
    lines = (out / NAME).read_bytes()
    (out / NAME).write_bytes(lines[:-9])
    (out / "b.wav").unlink()
    put(tmp_path / "in" / "c.wav")
    assert carried_out(capsys, run, out, tmp_path / "in")[0] == 0
    with (out / NAME).open("ab") as file:
        file.write(b'{}\n{"file": [], "source": "", "stamp": [], "by": "", "made": []}\n\xff[[\n7')
    assert carried_out(capsys, run, out, tmp_path / "in") == (
        0,
        f"0 of 3 files enhanced into {out}, 3 were done before\n",
    )


def test_a_line_of_a_file_that_never_came_hides_no_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As an interruption just before the file takes its place leaves it."""
    out, job = tmp_path / "out", Job(put(tmp_path / "a.wav"), tmp_path / "out" / "a.wav")
    carried_out(capsys, run, out, job.source)
    journal = Journal(out)
    journal.note(replace(journal.entry(job, "another", job.target), made=[1, 2]))
    put(job.source, rate=8_000)
    assert carried_out(capsys, run, out, job.source)[0] == 0
    assert sf.info(job.target).samplerate == 8_000


def test_what_another_process_has_made_meanwhile_is_known(tmp_path: Path) -> None:
    """Two commands into one folder: neither takes the other's file for a stranger's."""
    job = Job(put(tmp_path / "in.wav"), put(tmp_path / "out.wav"))
    one, other = Journal(tmp_path), Journal(tmp_path)
    assert not one.is_own(job)
    other.note(other.entry(job, "a model", job.target))
    assert one.is_own(job)


def test_nobodys_file_is_replaced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    put(tmp_path / "in" / "a.wav")
    put(tmp_path / "in" / "b.wav")
    put(tmp_path / "out" / "a.wav", rate=8_000)
    theirs = (tmp_path / "out" / "a.wav").read_bytes()
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert status == 1
    assert message.startswith(f"{tmp_path}/in/a.wav: {tmp_path}/out/a.wav is in the way")
    assert (tmp_path / "out" / "a.wav").read_bytes() == theirs
    assert files(tmp_path / "out") == ["a.wav", "b.wav"]
    # Nor is one that was made here and changed by hand since.
    put(tmp_path / "out" / "b.wav", rate=8_000)
    status, message = carried_out(capsys, run, tmp_path / "out", tmp_path / "in")
    assert (status, message.count("in the way")) == (1, 2)
    status, _ = carried_out(capsys, run, tmp_path / "out", tmp_path / "in", "--overwrite")
    assert status == 0
    assert sf.info(tmp_path / "out" / "a.wav").samplerate == RATE


def test_what_was_left_half_written_goes_and_others_files_stay(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    put(tmp_path / "in" / "sub" / "a.wav")
    left = tmp_path / "out" / "sub" / f".{uuid.uuid4().hex}.partial"
    theirs = left.with_name(".mine.partial")
    left.parent.mkdir(parents=True)
    for path in (left, theirs):
        path.touch()
        os.utime(path, (1, 1))
    assert carried_out(capsys, run, tmp_path / "out", tmp_path / "in")[0] == 0
    assert files(tmp_path / "out") == ["sub/.mine.partial", "sub/a.wav"]
