"""Several processes: what they learn is what one learns, and none waits for one that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from recordings import put_pairs
from saved_runs import load
from torch import Tensor

from data.audio import read, write

# Four files to a batch: three processes take 1, 1 and 2 of them. Eight training files, so that the
# epoch's end and its validation come after two steps.
OPTIONS = [
    *("--batch-size", "4", "--crop", "0.5", "--workers", "0", "--seed", "3"),
    *("--set", "model.channels=16", "run.log_every=1", "data.validation_files=5"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of four training speakers and two that are held out.

    Of three training files most crops are silent, and so have no label.
    """
    root = tmp_path_factory.mktemp("pairs")
    names = [f"s{speaker}_{i}.wav" for speaker in range(4) for i in (1, 2)]
    put_pairs(root / "train", names, 1.0)
    for name in names[::3]:
        path = root / "train" / "clean" / name
        x = read(path)
        x[:13000] = 0
        write(path, x, "FLOAT")
    put_pairs(root / "valid", [f"v{speaker}_{i}.wav" for speaker in (1, 2) for i in (1, 2)], 1.0)
    return root


def command(corpus: Path, run: Path, processes: int, *options: str) -> list[str]:
    """Of a narrow abl1, started by torchrun if there is more than one process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    script = str(ROOT / "abl1" / "train.py")
    return [*launcher, script, "--data", str(corpus), "--run-folder", str(run), *OPTIONS, *options]


def train(corpus: Path, run: Path, processes: int, *options: str) -> str:
    result = subprocess.run(
        command(corpus, run, processes, *options), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def tensors(state: Any, name: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {name: state}
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in items for k, v in tensors(value, f"{name}/{key}").items()}
    return {}


def assert_same_state(one: Path, other: Path) -> None:
    assert_same_tensors(*(load(run / "last.pt") for run in (one, other)))


def assert_same_tensors(one: Any, other: Any) -> None:
    """All of two states are the same, to the bit; labels that are missing in both are."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    assert len(a) > 100
    for name, value in a.items():
        np.testing.assert_array_equal(value.numpy(), b[name].numpy(), err_msg=name)


def valid_scores(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["valid"] for line in lines if "valid" in line]


def labelled(run: Path) -> list[float]:
    """How many items of each step's lesson had a label."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train"]["labelled"] for line in lines if "labelled" in line.get("train", {})]


def relative_difference(one: Path, other: Path, part: str) -> float:
    """The largest difference of a part's tensors, each relative to its own norm."""
    a, b = (tensors(load(run / "last.pt")[part]) for run in (one, other))
    assert a.keys() == b.keys()
    assert len(a) > 20
    return max(
        float((x.double() - b[name].double()).norm() / x.double().norm().clamp_min(1e-12))
        for name, x in a.items()
        if x.is_floating_point()
    )


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps of one process."""
    run = tmp_path_factory.mktemp("alone")
    train(corpus, run, 1, "--max-steps", "5")
    return run


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_learn_what_one_learns(
    processes: int, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    """Adversary, masked labels and validation included."""
    errors = train(corpus, tmp_path, processes, "--max-steps", "5")
    assert errors.count("parameters, ") == 1  # one process speaks
    assert f"shared by {processes} processes" in errors
    for part in ("model", "ema", "adversary"):
        assert relative_difference(alone, tmp_path, part) < 1e-5
    assert labelled(tmp_path) == labelled(alone)
    assert max(labelled(alone)) < 4
    assert len(set(labelled(alone))) > 1
    assert valid_scores(tmp_path) == [pytest.approx(s, rel=1e-4) for s in valid_scores(alone)]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_resume_to_the_bit(processes: int, corpus: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(corpus, whole, processes, "--max-steps", "5")
    for step in ("1", "3", "5"):
        train(corpus, parts, processes, "--max-steps", step)
    assert_same_state(whole, parts)


@pytest.mark.parametrize("pieces", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 9))])
def test_accumulated_pieces_are_the_batch(
    pieces: int, corpus: Path, alone: Path, tmp_path: Path
) -> None:
    train(corpus, tmp_path, 1, "--max-steps", "5", "--accumulate", str(pieces))
    for part in ("model", "ema"):
        assert relative_difference(alone, tmp_path, part) < 1e-5


@pytest.mark.slow
def test_a_run_may_go_on_with_another_number_of_processes(
    corpus: Path, alone: Path, tmp_path: Path
) -> None:
    for step, processes in (("1", 2), ("3", 1), ("5", 2)):
        train(corpus, tmp_path, processes, "--max-steps", step)
    assert relative_difference(alone, tmp_path, "model") < 1e-5
    sessions = json.loads((tmp_path / "config.json").read_text())["sessions"]
    assert [s["processes"] for s in sessions] == [2, 1, 2]
    assert [s["first_step"] for s in sessions] == [0, 1, 3]
    assert [s["last_step"] for s in sessions] == [1, 3, 5]


def test_more_processes_than_crops_are_refused(corpus: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        command(corpus, tmp_path / "run", 2, "--batch-size", "1", "--max-steps", "1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "a batch of 1 cannot be shared by 2 processes" in result.stderr
    assert not (tmp_path / "run").exists()


def by_hand(launched: list[str], rank: int, size: int, port: int) -> subprocess.Popen[str]:
    """One of several processes, started without torchrun, whose agent would help where it is."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    there = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    # As torchrun does; another number of threads rounds in another way.
    variables = {**here, **there, "OMP_NUM_THREADS": 1}
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(launched, env=environment, stderr=subprocess.PIPE, text=True)


def test_processes_that_differ_are_refused(corpus: Path, tmp_path: Path) -> None:
    """They would wait for each other for ever, or learn from batches that are none."""
    processes = [
        by_hand(command(corpus, tmp_path / "run", 1, "--seed", str(rank)), rank, 2, 29512)
        for rank in range(2)
    ]
    for process in processes:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 2
        assert "rank 1 differs from rank 0 in seed" in errors
    assert not (tmp_path / "run").exists()


# One of them goes


def workers_of(launcher: int) -> dict[int, int]:
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


def wait_for_steps(process: subprocess.Popen, run: Path, steps: int) -> None:
    log = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_text().count('"train"') >= steps):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_when_one_process_is_gone_all_stop_within_a_minute(
    rank: int, fault: int, corpus: Path, tmp_path: Path
) -> None:
    """Killed or hung."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = ["--epochs", "60", "--set", "run.save_minutes=0"]
    launched = command(corpus, run, 1, *options)
    processes = [by_hand(launched, r, 3, 29500 + rank) for r in range(3)]
    try:
        wait_for_steps(processes[0], run, 3)
        began = time.monotonic()
        processes[rank].send_signal(fault)
        for r in {0, 1, 2} - {rank}:
            errors = processes[r].communicate(timeout=60)[1]
            assert processes[r].returncode == 1, errors
            assert "The same command" in errors
            assert "Traceback" not in errors
        assert time.monotonic() - began < 60
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    step = load(run / "last.pt")["values"]["step"]
    train(corpus, run, 3, "--epochs", "60", "--max-steps", str(step + 2))
    train(corpus, whole, 3, "--epochs", "60", "--max-steps", str(step + 2))
    assert_same_state(whole, run)


@pytest.mark.slow
def test_a_killed_rank_under_torchrun(corpus: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    launcher = subprocess.Popen(
        command(corpus, run, 2, "--epochs", "60", "--set", "run.save_minutes=0"),
        stderr=subprocess.PIPE,
        text=True,
    )
    with launcher:
        wait_for_steps(launcher, run, 3)
        began = time.monotonic()
        os.kill(workers_of(launcher.pid)[1], signal.SIGKILL)
        launcher.communicate(timeout=60)
        assert time.monotonic() - began < 60
    assert launcher.returncode != 0
    step = load(run / "last.pt")["values"]["step"]
    for folder in (run, whole):
        train(corpus, folder, 2, "--epochs", "60", "--max-steps", str(step + 2))
    assert_same_state(whole, run)


@pytest.mark.slow
def test_a_signal_to_torchrun_saves(corpus: Path, tmp_path: Path) -> None:
    launcher = subprocess.Popen(
        command(corpus, tmp_path, 2, "--epochs", "60"), stderr=subprocess.PIPE, text=True
    )
    with launcher:
        wait_for_steps(launcher, tmp_path, 3)
        launcher.send_signal(signal.SIGTERM)
        errors = launcher.communicate(timeout=60)[1]
    assert "stopping after this step" in errors
    assert load(tmp_path / "last.pt")["values"]["step"] >= 3


@pytest.mark.slow
def test_two_machines(corpus: Path, alone: Path, tmp_path: Path) -> None:
    """Two agents, as on two machines, meet at an address; only the first one's process writes."""
    agents = []
    for machine in range(2):
        launched = command(corpus, tmp_path, 2, "--max-steps", "5")
        where = ["--nnodes=2", f"--node_rank={machine}", "--nproc_per_node=1",
                 "--master_addr=127.0.0.1", "--master_port=29511"]  # fmt: skip
        begin = launched.index("--standalone")
        launched[begin : begin + 2] = where
        agents.append(subprocess.Popen(launched, stderr=subprocess.PIPE, text=True))
    errors = [agent.communicate(timeout=200)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    assert relative_difference(alone, tmp_path, "model") < 1e-5
