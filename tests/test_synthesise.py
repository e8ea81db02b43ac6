"""The embedded corpus: rendering, what an interruption leaves, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from data import espeak, synthesise
from data.levels import active_level
from data.plan import Row, from_csv, plan
from data.synthesise import ensure, render
from data.utils import DataError

RATE = 16000
SMALL = {"train": 5, "valid": 5, "test": 20}  # a test of 20 has every noise at every SNR


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure(tmp_path_factory.mktemp("corpus") / "small", **SMALL, workers=1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def pair(folder: Path, row: Row) -> tuple[np.ndarray, np.ndarray]:
    clean, noisy = (
        soundfile.read(folder / row.split / side / f"{row.name}.wav") for side in ("clean", "noisy")
    )
    assert clean[1] == noisy[1] == RATE
    return clean[0], noisy[0]


def test_pairs(corpus: Path):
    rows = from_csv((corpus / "corpus.csv").read_text("utf-8"))
    assert len(files(corpus)) == 2 * len(rows) == 60
    for row in rows:
        info = soundfile.info(corpus / row.split / "noisy" / f"{row.name}.wav")
        assert (info.channels, info.subtype) == (1, "PCM_16")
        clean, noisy = pair(corpus, row)
        assert clean.shape == noisy.shape
        assert 1.2 < len(clean) / RATE < 8
        for side in (clean, noisy):
            assert np.abs(side).max() < 0.96
            assert np.sqrt(np.mean(side**2)) > 10 ** (-45 / 20)
        snr = active_level(clean) - 10 * np.log10(np.mean((noisy - clean) ** 2))
        assert snr == pytest.approx(row.snr_db, abs=0.5)
        assert active_level(clean) < row.level_dbfs + 0.5
        if np.abs(noisy).max() < 0.94:
            assert active_level(clean) == pytest.approx(row.level_dbfs, abs=0.5)
        # The pauses before and after the words are short, and quiet but not digitally silent.
        ends = np.concatenate([clean[: int(0.09 * RATE)], clean[-int(0.05 * RATE) :]])
        level = 10 * np.log10(np.mean(ends**2)) - active_level(clean)
        assert -60 < level < -15
        assert lag(clean, noisy) == 0


def lag(clean: np.ndarray, noisy: np.ndarray) -> int:
    """By how many samples the noisy side is late."""
    length = 2 * len(clean)
    spectrum = np.fft.rfft(noisy, length) * np.conj(np.fft.rfft(clean, length))
    # Sharpened above 500 Hz, where most noises are weak.
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    found = int(np.argmax(np.fft.irfft(spectrum * (frequency > 500))))
    return found if found < len(clean) else found - length


def test_same_rows_same_bytes_in_any_order_and_selection(corpus: Path, tmp_path: Path):
    rows = from_csv((corpus / "corpus.csv").read_text("utf-8"))
    render(rows[::-3], tmp_path, workers=1)
    made, reference = files(tmp_path), files(corpus)
    assert len(made) == 20
    assert all(reference[name] == content for name, content in made.items())


def test_a_seed_changes_the_noise_only_in_the_noisy_side():
    row = replace(plan(0, 1, 0, 1)[-1], noise="car", talkers="", snr_db=2.5, level_dbfs=-30.0)
    other = replace(row, noise_seed=row.noise_seed + 1)
    (clean, noisy), (_, changed) = (synthesise.render_row(each) for each in (row, other))
    assert not np.array_equal(noisy, changed)
    assert len(clean) == len(noisy) == len(changed)


def test_joint_scaling_keeps_the_snr_where_it_would_clip():
    row = replace(plan(0, 0, 0, 1)[0], noise="kitchen", talkers="", snr_db=-20.0, level_dbfs=-10.0)
    clean, noisy = (side / 32768 for side in synthesise.render_row(row))
    assert np.abs(noisy).max() == pytest.approx(0.95, abs=1e-3)
    snr = active_level(clean) - 10 * np.log10(np.mean((noisy - clean) ** 2))
    assert snr == pytest.approx(-20, abs=0.5)


def test_finished_corpus_is_left_alone(corpus: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert ensure(corpus, **SMALL) == corpus
    assert capsys.readouterr().out == f"{corpus}: the corpus is there already\n"
    assert before == {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A corpus of one pair, alone in its folder."""
    return ensure(tmp_path / "tiny", train=0, valid=0, test=1, workers=1)


def test_another_corpus_is_kept_unless_forced(tiny: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--out", str(tiny), "--train=0", "--valid=0", "--test=1", "--workers=1"]
    before = files(tiny)
    capsys.readouterr()
    assert synthesise.main([*options, "--seed=1"]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("synthesise: ")
    assert "holds another corpus (line 2 of its corpus.csv differs): python -m" in output.err
    assert output.err.endswith("--force makes it anew\n")
    assert output.err.count("\n") == 1
    assert synthesise.main([*options, "--test=2"]) == 2
    assert "1 pairs instead of 2" in capsys.readouterr().err
    assert files(tiny) == before

    assert synthesise.main([*options, "--seed=1", "--force"]) == 0
    assert files(tiny) != before
    assert os.listdir(tiny.parent) == ["tiny"]


def test_missing_files_are_noticed(tiny: Path):
    next(tiny.rglob("noisy/*.wav")).unlink()
    with pytest.raises(DataError, match="1 files are missing"):
        ensure(tiny, train=0, valid=0, test=1)
    ensure(tiny, train=0, valid=0, test=1, workers=1, force=True)
    assert len(files(tiny)) == 2


@pytest.mark.parametrize("name", ["train/mine.txt", "test/clean/mine.flac", "train/clean/a/b.wav"])
def test_other_people_s_files_within_it_are_never_touched(tiny: Path, name: str):
    (tiny / name).parent.mkdir(parents=True, exist_ok=True)
    (tiny / name).write_text("mine")
    with pytest.raises(DataError, match=f"also holds {name}"):
        ensure(tiny, train=0, valid=0, test=2, force=True)
    assert (tiny / name).read_text() == "mine"


def test_another_program_s_corpus_is_never_replaced(tiny: Path):
    (tiny / "corpus.csv").write_text("file,speaker\na.wav,b\n")
    before = files(tiny)
    with pytest.raises(DataError, match=r"also holds another corpus\.csv"):
        ensure(tiny, train=0, valid=0, test=2, force=True)
    assert files(tiny) == before


def test_other_people_s_files_are_never_touched(tiny: Path):
    (tiny / "thesis.txt").write_text("mine")
    ensure(tiny, train=0, valid=0, test=1)
    with pytest.raises(DataError, match=r"also holds thesis\.txt"):
        ensure(tiny, train=0, valid=0, test=2, force=True)
    with pytest.raises(DataError, match="something other than a corpus"):
        ensure(tiny / "test", train=0, valid=0, test=1, force=True)
    assert (tiny / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_rendering_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
):
    write = synthesise._write_row
    done: list[str] = []

    def failing(folder: Path, row: Row) -> None:
        if done:
            raise error
        write(folder, row)
        done.append(row.name)
        assert not (tmp_path / "new").exists()

    monkeypatch.setattr(synthesise, "_write_row", failing)
    options = ["--train=0", "--valid=0", "--test=2", "--workers=1", "--out", str(tmp_path / "new")]
    status = synthesise.main(options)
    assert status == (130 if isinstance(error, KeyboardInterrupt) else 2)
    message = capsys.readouterr().err
    assert ("interrupted" if status == 130 else "No space left on device") in message
    assert len(done) == 1
    assert not list(tmp_path.iterdir())


def test_failing_replacement_keeps_the_old_corpus(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    before = files(tiny)
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(DataError, match=r"cannot write the corpus to .*: Permission denied"):
        ensure(tiny, train=0, valid=0, test=2, workers=1, force=True)
    assert files(tiny) == before
    assert os.listdir(tiny.parent) == ["tiny"]


def test_two_at_once_agree(tiny: Path, monkeypatch: pytest.MonkeyPatch):
    """The corpus appears while this process is still rendering it."""
    out = tiny.parent / "second"
    made = synthesise.render

    def slow(rows: list[Row], folder: Path, workers: int) -> None:
        made(rows, folder, workers)
        monkeypatch.setattr(synthesise, "render", made)
        ensure(out, train=0, valid=0, test=1, workers=1)

    monkeypatch.setattr(synthesise, "render", slow)
    ensure(out, train=0, valid=0, test=1, workers=1)
    assert files(out) == files(tiny)
    assert sorted(os.listdir(tiny.parent)) == ["second", "tiny"]


# The command line


def test_out_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert synthesise.main(["--out", str(tmp_path / "file" / "corpus"), "--test=1"]) == 2
    assert "cannot write the corpus to" in capsys.readouterr().err


def test_missing_espeak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._paths.cache_clear()
    try:
        assert synthesise.main(["--out", str(tmp_path / "new"), "--workers=1"]) == 2
    finally:
        espeak._paths.cache_clear()
    assert capsys.readouterr().err.endswith(
        "espeakng-loader is not installed: pip install -r requirements.txt\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [["--train=-1"], ["--train=0", "--valid=0", "--test=0"]])
def test_wrong_sizes_on_the_command_line(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert synthesise.main(["--out", str(tmp_path / "new"), *wrong]) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_command_with_worker_processes(tmp_path: Path, corpus: Path):
    command = [sys.executable, "-m", "data.synthesise", "--out", str(tmp_path / "made")]
    command += ["--train=0", "--valid=5", "--test=0", "--workers=2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("made: 0 training, 5 validation and 0 test pairs\n")
    # The same bytes as those that the fixture made in one process.
    made, reference = files(tmp_path / "made"), files(corpus)
    assert len(made) == 10
    assert all(reference[name] == content for name, content in made.items())


def test_default_folder_is_in_the_repository():
    assert ROOT / "data" / "synthetic" == synthesise.FOLDER


def test_nothing_here_imports_torch():
    code = "import sys, data.synthesise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
