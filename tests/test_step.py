"""The benchmark of a training step, and what it counts of the networks."""

from __future__ import annotations

import json
from functools import cache, partial
from itertools import groupby
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from benchmarks.counting import PHASES, peak_bytes, saved_bytes
from benchmarks.results import report
from benchmarks.step import FOUR, Candidate, candidates, measure, networks, noise, table
from training import precision
from training.config import override
from training.step import Learner

ABLATIONS = FOUR[1:]
NARROW = {"channels": 12}
# Of the activations of 2 x 0.5 s, losses included, the least share in % that is saved by
# checkpointing, by bf16, and by both. At 6 x 2 s, where the losses weigh less, it is more.
LEAST = {"abl1": (44, 44, 67), "abl2": (48, 45, 70), "abl3": (48, 46, 71)}


@pytest.fixture(autouse=True)
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are the same on a CPU that is slow in bf16."""
    monkeypatch.setattr(precision, "can_do", lambda amp: True)


def narrow() -> Learner:
    return Candidate("abl1", True, "off").learner(networks()["abl1"], "cpu", 2, 0.25, **NARROW)


def marks_of(learner: Learner) -> list[str]:
    """The phases of its second step."""
    marks: list[str] = []
    learner.step(noise(2, 0.25), 0)
    learner.mark = marks.append
    learner.step(noise(2, 0.25), 1)
    return marks


def test_learner_marks_its_phases_in_order() -> None:
    marks = marks_of(narrow())
    order = ["data", "forward", "backward", "discriminator", "labels", "discriminator",
             "optimizer", "labels"]  # fmt: skip
    assert [name for name, _ in groupby(marks)] == order
    assert marks.count("backward") == 2
    assert set(order) == set(PHASES)


def test_learner_marks_every_piece_of_a_batch() -> None:
    learner = narrow()
    learner.config = override(learner.config, {"run.accumulate": 2})
    expected = ["data", *2 * ["forward", "backward"], "backward"]
    assert marks_of(learner)[:6] == expected


def test_marks_change_no_weight() -> None:
    quiet, listened = narrow(), narrow()
    marks_of(listened)
    for number in range(2):
        quiet.step(noise(2, 0.25), number)
    for x, y in zip(quiet.model.parameters(), listened.model.parameters(), strict=True):
        assert torch.equal(x, y)


def test_candidates_cover_checkpointing_precision_labels_and_compilation() -> None:
    found = candidates("abl1", networks()["abl1"], labels=True, compiled=("on",))
    assert [(x.checkpoint, x.amp) for x in found[:4]] == [
        (False, "off"), (False, "bf16"), (True, "off"), (True, "bf16"),
    ]  # fmt: skip
    assert found[4:] == [
        Candidate("abl1", "full", "bf16"),
        Candidate("abl1", True, "bf16", labels=True),
        Candidate("abl1", True, "bf16", compile="on"),
    ]
    assert {x.checkpoint for x in candidates("baseline", networks()["baseline"])} == {None}


def test_step_measures_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    known = networks()
    ways = {
        Candidate("abl1", True, "bf16"): known["abl1"],
        Candidate("abl1", True, "bf16", labels=True): known["abl1"],
        Candidate("baseline", None, "off"): known["baseline"],
    }
    result = measure(ways, torch.device("cpu"), 1, 0.25, 1, **NARROW)
    report(result, table(result), tmp_path / "new" / "step.json")
    assert [x.name for x in (tmp_path / "new").iterdir()] == ["step.json"]
    found = json.loads((tmp_path / "new" / "step.json").read_text())
    assert {"date", "commit", "versions", "device", "threads"} <= found.keys()
    assert (found["batch"], found["crop"], found["rounds"]) == (1, 0.25, 1)
    assert len(found["rows"]) == len(ways)
    for row in found["rows"]:
        assert row["seconds"].keys() == {"step", *PHASES}
        step = row["seconds"]["step"]
        assert 0 < step["min"] <= step["median"] <= step["max"]
        assert row["crops_per_second"] == 1 / step["median"]
        assert row["peak_bytes"] >= row["saved_bytes"] > 0
        assert row["resident_bytes"] > 0
        phases = row["operators"]
        assert phases["step"] == sum(phases[phase] for phase in PHASES) > 100
        assert row["launches"] is None
    shown = capsys.readouterr().out
    assert shown.count("\n| abl1") == 2
    assert "\n| abl1, PESQ labels" in shown
    assert shown.splitlines()[-1].startswith(found["device"])


# What the networks save for the backward pass


def learner_of(name: str, mode: bool | str | None, amp: str) -> Learner:
    learner = Candidate(name, mode, amp).learner(networks()[name], "cpu", 1, 0.25)
    saved(learner, 1, 0.25)  # what is made once and kept
    return learner


def saved(learner: Learner, batch: int, crop: float) -> int:
    sides = noise(batch, crop)
    weights = learner.config.loss
    forward = partial(learner.losses, sides["clean"], sides["noisy"], weights)
    states = [part.state_dict() for part in learner.parts().values()]
    resident = [x for x in tree_leaves(states) if isinstance(x, Tensor)]
    return saved_bytes(lambda: forward()[0], [*sides.values(), *resident])


@cache
def counted(name: str, mode: bool | str | None, amp: str) -> int:
    """Of 2 x 0.5 s; twice, and the same."""
    learner = learner_of(name, mode, amp)
    first, second = (saved(learner, 2, 0.5) for _ in range(2))
    assert first == second
    return first


@pytest.mark.parametrize("name", ABLATIONS)
def test_checkpointing_and_mixed_precision_save_activations(name: str) -> None:
    neither = counted(name, False, "off")
    kept = [(True, "off"), (False, "bf16"), (True, "bf16")]
    shares = [100 * (1 - counted(name, *settings) / neither) for settings in kept]
    assert all(x >= least for x, least in zip(shares, LEAST[name], strict=True)), shares


def test_full_checkpointing_saves_less_than_selective() -> None:
    assert counted("abl1", "full", "bf16") < counted("abl1", True, "bf16")


@pytest.mark.parametrize("name", FOUR)
def test_saved_bytes_grow_linearly_with_batch_and_frames(name: str) -> None:
    """Each length has one chunk of the scan more than the one before, begun by its last frame."""
    learner = learner_of(name, networks()[name].default, "off")
    one, two, three = (saved(learner, batch, 0.25) for batch in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.001)
    assert two > one
    one, two, three = (saved(learner, 1, 128 * frames / 16000) for frames in (64, 128, 192))
    assert three - two == pytest.approx(two - one, rel=0.001)


def test_peak_of_a_step_is_above_what_its_forward_pass_saves() -> None:
    learner = learner_of("abl1", True, "off")
    batch = noise(1, 0.25)
    learner.step(batch, 0)
    peak = peak_bytes(lambda: learner.step(batch, 1))
    kept = saved(learner, 1, 0.25)
    assert kept < peak < 3 * kept
