"""Several processes learn what one learns, resume, and end together."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from processes import command, put_corpus, relative_difference, train
from saved_runs import assert_same_state, load, metrics

from bsbimamba.training.config import ConfigError
from bsbimamba.training.distributed import World


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_corpus(tmp_path_factory.mktemp("pairs"))


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
    for part in ("model", "ema"):
        assert relative_difference(alone, tmp_path, part) < 1e-5
    labelled = set()  # of the four crops of a step; of some there is no label
    for one, several in zip(metrics(alone), metrics(tmp_path), strict=True):
        counts = [line.get("train", {}).get("labelled") for line in (one, several)]
        assert counts[0] == counts[1]
        labelled.add(counts[0])
        assert one.get("valid", {}) == pytest.approx(several.get("valid", {}), rel=1e-4)
    assert len(labelled - {None, 4}) > 1


@pytest.mark.slow
def test_run_may_go_on_with_another_number_of_processes(
    corpus: Path, alone: Path, tmp_path: Path
) -> None:
    for step, processes in (("1", 2), ("3", 1), ("5", 2)):
        train(corpus, tmp_path, processes, *FIVE, "--steps", step)
    assert relative_difference(alone, tmp_path, "model") < 3e-5
    sessions = json.loads((tmp_path / "config.json").read_text())["sessions"]
    found = [(s["processes"], s["first_step"], s["last_step"]) for s in sessions]
    assert found == [(2, 0, 1), (1, 1, 3), (2, 3, 5)]


@pytest.mark.parametrize("pieces", [3, pytest.param(9, marks=pytest.mark.slow)])
def test_accumulated_pieces_equal_the_batch(pieces: int, corpus: Path, tmp_path: Path) -> None:
    """With the discriminator, which takes the batch at once."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    adamw = ["--steps", "5", "--optim.algorithm=adamw", "--optim.learning_rate=5e-4"]
    train(corpus, whole, 1, *adamw)
    train(corpus, parts, 1, *adamw, "--accumulate", str(pieces))
    # Rounding, which Adam's first steps enlarge where a gradient is nearly 0, and the maximum over
    # all frames in the discriminator where another frame wins. A wrong weight of a piece makes 0.2.
    for part, tolerance in {"model": 1e-3, "ema": 1e-3, "discriminator": 0.03}.items():
        assert relative_difference(whole, parts, part) < tolerance


@pytest.mark.parametrize(("batch", "advice"), [(1, "--batch-size 2"), (5, "--batch-size 4 or 6")])
def test_batch_that_cannot_be_shared_equally_is_refused(batch: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        World(0, 2).shard(batch)


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
            ranks = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
            os.kill(int(ranks[lost]), signal.SIGKILL)
        errors = launcher.communicate(timeout=120)[1]
    assert launcher.returncode != 0
    assert lost is not None or "stopping after this step" in errors
    step = load(run / "last.pt")["values"]["step"]
    for folder in (run, whole):
        train(corpus, folder, 2, *long, "--steps", str(step + 2))
    assert_same_state(whole, run)
