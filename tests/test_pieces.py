"""Training by a plan, in pieces, on one machine and on another."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from saved_runs import assert_same_state, metrics
from sources import put_material

from data.errors import DataError
from data.lock import Lock
from tools import pieces
from tools.plan import chosen, read_plan
from tools.state import MIB, carried, progress, step_of
from training.interrupt import STOPPED

PLAN = """
steps = 8
warmup_steps = 2
cooldown_steps = 4
arguments = ["--recipe", "plain", "--batch-size", "4", "--crop", "0.25", "--workers", "0",
    "--set", "model.channels=16", "data.validation_share=0.3", "run.log_every=1"]

[[run]]
name = "abl3-0"
folder = "abl3"
seed = 0

[[run]]
name = "uniform-1"
folder = "abl3"
preset = "uniform31"
seed = 1
share = 0.5
set = ["model.hidden=(4,4,4)"]
"""


LONG = PLAN.replace("steps = 8", "steps = 50000").replace("n_steps = 4", "n_steps = 40000")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_every_run_has_the_plans_steps_schedule_and_arguments(plan: Path) -> None:
    first, second = read_plan(plan)
    assert first.arguments[:2] == second.arguments[:2] == ("--recipe", "plain")
    schedule = ("optim.warmup_steps=2", "optim.cooldown=(4,8)", "optim.decay=1")
    assert first.arguments[-3:] == schedule
    assert second.arguments[-3:] == (
        "optim.cooldown=(2,4)",
        "optim.decay=1",
        "model.hidden=(4,4,4)",
    )
    assert (first.steps, second.steps) == (8, 4)
    assert second.arguments[-9:-5] == ("--preset", "uniform31", "--seed", "1")
    assert chosen([first, second], ["uniform-1"], plan) == [second]
    assert chosen([first, second], [], plan) == [first, second]


@pytest.mark.parametrize("name", ["open_mix.toml", "gpu.toml"])
def test_the_projects_plans_treat_all_networks_alike(name: str) -> None:
    runs = read_plan(ROOT / "plans" / name)
    networks = ("bsrnn", "abl1", "abl2", "abl3", "bsrnn_bi", "lstm_dualpath", "uniform31")
    assert {run.name for run in runs} >= {f"{each}-0" for each in networks} | {"bsrnn-1", "abl3-1"}
    alike = set()
    for run in runs:
        if run.name.startswith("layers"):  # compared at equal time
            continue
        arguments = list(run.arguments)
        for flag in ("--preset", "--seed"):
            if flag in arguments:
                del arguments[arguments.index(flag) : arguments.index(flag) + 2]
        alike.add((run.steps, *arguments))
    assert len(alike) == 1


def test_the_rate_of_the_table_is_among_those_that_were_tried() -> None:
    """With the same optimizer, by both networks that it was chosen for; all else is the same."""
    table, tried = (read_plan(ROOT / "plans" / f"{name}.toml") for name in ("gpu", "rates"))
    rate = next(x for x in table[0].arguments if "learning_rate" in x)
    same = [run for run in tried if run.arguments == (*table[0].arguments, rate)]
    assert {run.folder for run in same} == {"abl3", "baseline"}


def test_a_plan_may_differ_from_another_in_some_things(plan: Path) -> None:
    longer = plan.with_name("longer.toml")
    longer.write_text('like = "plan.toml"\nsteps = 16\n')
    runs = read_plan(longer)
    assert [run.name for run in runs] == ["abl3-0", "uniform-1"]
    assert runs[0].steps == 16
    assert runs[0].arguments[-2] == "optim.cooldown=(12,16)"
    longest = longer.with_name("longest.toml")
    longest.write_text('like = "longer.toml"\nwarmup_steps = 3\n')
    assert [run.steps for run in read_plan(longest)] == [run.steps for run in runs]
    assert "optim.warmup_steps=3" in read_plan(longest)[0].arguments
    longer.write_text('like = "longest.toml"\nsteps = 16\n')
    with pytest.raises(DataError, match=r"longest\.toml: like leads back to longer\.toml"):
        read_plan(longer)
    longer.write_text('like = "none.toml"\nsteps = 16\n')
    with pytest.raises(DataError, match=r"none.toml: No such file"):
        read_plan(longer)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 8", "", "steps is missing"),
        ("steps = 8", "steps = 'x'", "steps is missing or not of type int"),
        ("steps = 8", "steps = ", "is not TOML"),
        ("cooldown_steps = 4", "cooldown_steps = 40", "8 steps and 40 of cooldown, expected"),
        ('folder = "abl3"\nseed', 'folder = "abl9"\nseed', "folder 'abl9' is not baseline"),
        ("uniform-1", "abl3-0", "a name of its own"),
        ("uniform-1", "../out", "a name is of letters, digits"),
        ("uniform-1", "..", "a name is of letters, digits"),
        ("uniform-1", "", "a name is of letters, digits"),
        ("uniform-1", "a\\u0000", "a name is of letters, digits"),
        ("steps = 8", "steps = 0", "steps must be at least 1"),
        ("share = 0.5", "share = 1.5", "a share of at most 1"),
        ("share = 0.5", "share = 0.01", "0 steps and 0 of cooldown"),
        ("steps = 8", "steps = 8\nstep = 8", "step: nothing of a plan is called so"),
        ("steps = 8", "steps = 8\nlike = 3", "like names a plan beside it"),
        ("steps = 8", 'steps = 8\nlike = ""', "like names a plan beside it"),
        ("steps = 8", 'steps = 8\nlike = "../x.toml"', "like names a plan beside it"),
        ("seed = 1", 'seed = "1"', "seed is missing or not of type int"),
        ("seed = 1", "seed = 1\nsteeps = 3", "steeps = 3 is not understood"),
        ('"4", "--crop"', '4, "--crop"', "hold texts, in quotes"),
    ],
)
def test_what_is_no_plan_is_told(old: str, new: str, message: str, plan: Path) -> None:
    assert old in PLAN
    plan.write_text(PLAN.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_plan(plan)


def call(plan: Path, root: Path, *arguments: str) -> int:
    mix = ["--mix", str(plan.parent / "speech"), str(plan.parent / "noise")]
    runs = ["--runs", str(root), "--train=--device cpu"]
    return pieces.main([str(plan), *mix, *runs, *arguments])


def test_pieces_on_two_machines_come_to_what_one_comes_to(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state travels in small files; weights, log and validation are those of one session."""
    # Sums over other numbers of threads are other numbers.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    put_material(tmp_path)
    here, there, whole = tmp_path / "here", tmp_path / "there", tmp_path / "whole"
    state = tmp_path / "state"
    first = ["--only", "abl3-0", "--state", str(state), "--train=--device cpu --max-steps 3"]
    assert call(plan, here, *first) == STOPPED
    assert step_of(here / "abl3-0") == 3
    assert state.is_dir()
    assert all(path.stat().st_size <= 16 * MIB for path in state.iterdir())
    shutil.rmtree(here)  # the machine is gone
    assert call(plan, there, "--only", "abl3-0", "--state", str(state)) == 0
    assert progress(there / "abl3-0").validated
    assert call(plan, whole, "--jobs", "2") == 0  # both runs of the plan, beside each other
    assert step_of(whole / "uniform-1") == 4
    assert_same_state(there / "abl3-0", whole / "abl3-0")
    assert metrics(there / "abl3-0") == metrics(whole / "abl3-0")
    log = [json.loads(line) for line in (there / pieces.LOG).read_text().splitlines()]
    assert [(line["run"], line["from"], line["to"]) for line in log] == [("abl3-0", 3, 8)]
    assert log[0]["crops_per_second"] > 0
    assert 0 < log[0]["share"] < 1
    # All is done: nothing is trained again.
    assert call(plan, whole) == 0
    assert len((whole / pieces.LOG).read_text().splitlines()) == 2


def test_an_interrupted_plan_saves_and_carries_its_state(plan: Path, tmp_path: Path) -> None:
    """Told to stop, it waits for what it has started, and nothing of it is left running."""
    put_material(tmp_path)
    plan.write_text(LONG)
    runs, state = tmp_path / "runs", tmp_path / "state"
    command = [sys.executable, "-m", "tools.pieces", str(plan), "--only", "abl3-0"]
    command += ["--mix", str(tmp_path / "speech"), str(tmp_path / "noise"), "--runs", str(runs)]
    command += ["--state", str(state), "--train=--device cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log = runs / "abl3-0" / "metrics.jsonl"
    while not (log.is_file() and len(log.read_text().splitlines()) > 3):
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "pieces: interrupted. The same command goes on." in errors
    done = step_of(runs / "abl3-0")
    assert done >= 3
    assert carried(state, "abl3-0") == (done, False)
    line = json.loads((runs / pieces.LOG).read_text())
    assert (line["from"], line["to"], line["of"]) == (0, done, 50000)
    Lock(runs / "abl3-0", "").release()  # nobody holds it any more


@pytest.mark.slow
def test_a_piece_ends_when_its_time_is_over(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_material(tmp_path)
    plan.write_text(LONG)
    monkeypatch.setattr(pieces, "_MARGIN", 0.25)  # so that 45 s are left, most of them to start
    assert call(plan, tmp_path / "runs", "--only", "abl3-0", "--minutes", "1") == STOPPED
    done = step_of(tmp_path / "runs" / "abl3-0")
    assert 0 < done < 50000


def test_runs_of_another_plan_are_left_alone(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same names, in the same folder, or in a state that was carried there."""
    put_material(tmp_path)
    one = ["--only", "uniform-1", "--state", str(tmp_path / "state")]
    assert call(plan, tmp_path / "runs", *one) == 0
    longer = plan.with_name("longer.toml")
    longer.write_text(PLAN.replace("share = 0.5", "share = 0.75"))
    assert call(longer, tmp_path / "runs", "--only", "uniform-1") == 2
    assert "is of another plan, of 4 steps and not 6" in capsys.readouterr().err
    other = ["--only", "uniform-1", "--train=--device cpu --max-steps 2"]
    assert call(longer, tmp_path / "other", *other) == STOPPED
    assert call(longer, tmp_path / "other", *one) == 2
    assert "is of another run than" in capsys.readouterr().err
    assert step_of(tmp_path / "other" / "uniform-1") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "abl4-0"], "has no run 'abl4-0'; it has abl3-0, uniform-1"),
        (["--minutes", "0.9"], "--minutes must be at least 1"),
        (["--mix", "nowhere", "nowhere"], "nowhere is no folder"),
        (["--jobs", "0"], "--jobs at least 1"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: list[str], message: str, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(plan, plan.parent / "runs", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list((plan.parent).glob("runs/*"))


def test_the_status_is_a_table(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pieces.main([str(plan), "--runs", str(tmp_path), "--status"]) == 0
    assert "| uniform-1 | 0 | 4 | 4 |" in capsys.readouterr().out


def test_a_run_that_fails_is_named(
    plan: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    put_material(tmp_path)
    plan.write_text(PLAN.replace("model.channels=16", "model.channels=-1"))
    assert call(plan, tmp_path / "runs", "--only", "abl3-0") == 2
    assert "abl3-0: train.py ended with status 2" in capfd.readouterr().err
