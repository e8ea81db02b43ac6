"""Several processes learn what one learns, resume, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import command, put_corpus, relative_difference, start_rank, train
from saved_runs import assert_same_state, load, metrics


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_corpus(tmp_path_factory.mktemp("pairs"))


def valid_scores(run: Path) -> list[dict[str, float]]:
    return [line["valid"] for line in metrics(run) if "valid" in line]


def labelled(run: Path) -> list[float]:
    """How many items had a label, in each step of the discriminator."""
    found = [line["train"] for line in metrics(run) if "train" in line]
    return [values["labelled"] for values in found if "labelled" in values]


# Five steps of a generator that does not listen to its discriminator: the dropout of the latter
# draws other random numbers in each process.
FIVE = ["--steps", "5", "--optim.fall=0", "--loss.metric=0.05", "--loss.metric_from=1.0"]


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps of one process."""
    run = tmp_path_factory.mktemp("alone")
    train(corpus, run, 1, *FIVE)
    return run


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_learn_what_one_learns(
    processes: int, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    """Labels and validation included; what the discriminator learns has a test of its own."""
    errors = train(corpus, tmp_path, processes, *FIVE)
    assert errors.count("parameters, ") == 1  # one process speaks
    assert f"by {processes} processes" in errors
    for part in ("model", "ema"):
        assert relative_difference(alone, tmp_path, part) < 1e-5
    assert labelled(tmp_path) == labelled(alone)
    assert max(labelled(alone)) < 4
    assert len(set(labelled(alone))) > 1
    assert valid_scores(tmp_path) == [pytest.approx(s, rel=1e-4) for s in valid_scores(alone)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_resume_bit_for_bit(processes: int, corpus: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--run.validate_every=1", "--optim.fall=0"]
    train(corpus, whole, processes, *options, "--steps", "5")
    for step in ("1", "3", "5"):
        train(corpus, parts, processes, *options, "--steps", step)
    assert_same_state(whole, parts)


@pytest.mark.parametrize("pieces", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 9))])
def test_accumulated_pieces_equal_the_batch(pieces: int, corpus: Path, tmp_path: Path) -> None:
    """With the discriminator, which takes the batch at once."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    adamw = ["--steps", "5", "--optim.algorithm=adamw", "--optim.learning_rate=5e-4"]
    train(corpus, whole, 1, *adamw)
    train(corpus, parts, 1, *adamw, "--accumulate", str(pieces))
    # Rounding, which Adam's first steps enlarge where a gradient is nearly 0, and the maximum over
    # all frames in the discriminator where another frame wins. A wrong weight of a piece makes 0.2.
    for part, tolerance in {"model": 3e-4, "ema": 3e-4, "discriminator": 0.03}.items():
        assert relative_difference(whole, parts, part) < tolerance


@pytest.mark.slow
def test_run_may_go_on_with_another_number_of_processes(
    corpus: Path, alone: Path, tmp_path: Path
) -> None:
    for step, processes in (("1", 2), ("3", 1), ("5", 2)):
        train(corpus, tmp_path, processes, *FIVE, "--steps", step)
    assert relative_difference(alone, tmp_path, "model") < 3e-5
    sessions = json.loads((tmp_path / "config.json").read_text())["sessions"]
    assert [s["processes"] for s in sessions] == [2, 1, 2]
    assert [s["first_step"] for s in sessions] == [0, 1, 3]
    assert [s["last_step"] for s in sessions] == [1, 3, 5]


@pytest.mark.parametrize(
    ("batch", "advice"),
    [("1", "use --batch-size 2."), ("5", "use --batch-size 4 or 6.")],
)
def test_batch_that_cannot_be_shared_equally_is_refused(
    batch: str, advice: str, corpus: Path, tmp_path: Path
) -> None:
    words = command(corpus, tmp_path / "run", 2, "--batch-size", batch, "--steps", "1")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert f"a batch of {batch} cannot be shared equally by 2 processes; {advice}" in result.stderr
    assert not (tmp_path / "run").exists()


def test_processes_that_differ_are_refused(corpus: Path, tmp_path: Path) -> None:
    """They would wait for each other for ever, or learn from batches that are none."""
    processes = [
        start_rank(command(corpus, tmp_path / "run", 1, "--seed", str(rank)), rank, 2, 29512)
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 2
        assert "rank 1 differs from rank 0 in seed" in errors
    assert not (tmp_path / "run").exists()


# Processes that are lost


def ranks_of(launcher: int) -> dict[int, int]:
    """The training processes that a launcher has started, by rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(entry.joinpath("stat").read_text().rpartition(") ")[2].split()[1])
            environment = entry.joinpath("environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [int(v[5:]) for v in environment if v.startswith(b"RANK=")]
        if parent == launcher and ranks:
            found[ranks[0]] = int(entry.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1, None])
def test_lost_rank_or_signal_ends_the_job_and_the_run_goes_on(
    lost: int | None, corpus: Path, tmp_path: Path
) -> None:
    """A rank that is killed, or SIGTERM to torchrun, which passes it on: then the step is saved."""
    # Without a fall of the rate, a run takes the same steps whatever its length.
    long = ["--run.save_minutes=0", "--optim.epochs=60", "--optim.fall=0"]
    run, whole, log = tmp_path / "run", tmp_path / "whole", tmp_path / "run" / "metrics.jsonl"
    words = command(corpus, run, 2, *long)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as launcher:
        deadline = time.monotonic() + 240
        while not (log.is_file() and log.read_text().count('"train"') >= 3):
            assert launcher.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if lost is None:
            launcher.send_signal(signal.SIGTERM)
        else:
            os.kill(ranks_of(launcher.pid)[lost], signal.SIGKILL)
        errors = launcher.communicate(timeout=120)[1]
    assert launcher.returncode != 0
    assert lost is not None or "stopping after this step" in errors
    step = load(run / "last.pt")["values"]["step"]
    for folder in (run, whole):
        train(corpus, folder, 2, *long, "--steps", str(step + 2))
    assert_same_state(whole, run)
