"""What checkpointing and mixed precision save: counted bytes, the same in every run."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from functools import cache, partial
from itertools import repeat

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from benchmarks import step
from benchmarks.activations import kept_bytes, peak_bytes, saved_bytes
from benchmarks.candidates import ABLATIONS, Candidate, Mode, networks, noise
from benchmarks.step import Measured, tables
from training import precision
from training.learner import Learner
from training.settings import override

# Of the activations of 2 x 0.5 s, losses included, the least share in % that is saved by
# checkpointing, by bf16, and by both. At 6 x 2 s, where the losses weigh less, it is more.
LEAST = {"abl1": (37, 45, 64), "abl2": (41, 46, 67), "abl3": (41, 47, 68)}
MIB = 2**20


@pytest.fixture(autouse=True)
def _any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are the same on a CPU that is slow in bf16."""
    monkeypatch.setattr(precision, "can_do", lambda amp: True)


def learner_of(name: str, mode: Mode, amp: str) -> Learner:
    learner = Candidate(name, mode, amp).learner(networks()[name], "cpu", 1, 0.25)
    saved(learner, 1, 0.25)  # what is made once and kept
    return learner


def saved(learner: Learner, batch: int, crop: float) -> int:
    sides = noise(batch, crop)
    weights = learner.config.loss
    forward = partial(learner.losses, sides["clean"], sides["noisy"], weights)
    states = [part.state_dict() for part in learner.parts().values()]
    resident = [x for x in tree_leaves(states) if isinstance(x, torch.Tensor)]
    return saved_bytes(lambda: forward()[0], [*sides.values(), *resident])


@cache
def counted(name: str, mode: Mode, amp: str) -> int:
    """Of 2 x 0.5 s; twice, and the same."""
    learner = learner_of(name, mode, amp)
    first, second = (saved(learner, 2, 0.5) for _ in range(2))
    assert first == second
    return first


@pytest.mark.parametrize("name", ABLATIONS)
def test_checkpointing_and_mixed_precision_save_what_they_must(name: str) -> None:
    neither = counted(name, False, "off")
    kept = [(True, "off"), (False, "bf16"), (True, "bf16")]
    shares = [100 * (1 - counted(name, *settings) / neither) for settings in kept]
    assert all(x >= least for x, least in zip(shares, LEAST[name], strict=True)), shares


def test_nothing_kept_is_less_than_products_kept() -> None:
    assert counted("abl1", "full", "bf16") < counted("abl1", True, "bf16")


@pytest.mark.parametrize("mode", [False, True, "full"])
def test_the_hooks_see_all_that_stays_in_use(mode: Mode) -> None:
    learner = learner_of("abl3", mode, "bf16")
    sides = noise(2, 0.5)
    weights = learner.config.loss
    kept = kept_bytes(lambda: learner.losses(sides["clean"], sides["noisy"], weights)[0])
    # The hooks count whole storages, of which only a view may be kept, and the gates of the losses.
    assert saved(learner, 2, 0.5) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("name", ABLATIONS)
def test_activations_grow_by_the_same_with_every_recording(name: str) -> None:
    learner = learner_of(name, True, "off")
    one, two, three = (saved(learner, batch, 0.25) for batch in (1, 2, 3))
    assert three - two == two - one > 0


def test_a_step_takes_more_than_its_forward_pass_keeps() -> None:
    learner = learner_of("abl1", True, "off")
    batch = noise(1, 0.25)
    learner.step(batch, 0)
    peak = peak_bytes(lambda: learner.step(batch, 1))
    kept = saved(learner, 1, 0.25)
    assert kept < peak < 3 * kept


def test_cuda_graphs_are_not_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here not compiled at all: only the row is that of graphs."""
    candidate = Candidate("abl1", True, "off", "graphs")
    run = Measured(replace(candidate, compile="off").learner(networks()["abl1"], "cpu", 1, 0.25))
    run.learner.config = override(run.learner.config, {"run.compile": "graphs"})
    for name in ("saved_bytes", "peak_bytes"):
        monkeypatch.setattr(step, name, None)
    run.count(repeat(noise(1, 0.25)))
    run.time(repeat(noise(1, 0.25)))
    row = json.loads(json.dumps(run.row(candidate, 1)))
    assert row["saved_bytes"] is row["peak_bytes"] is None
    assert row["resident_bytes"] > 0
    line = tables(
        {
            "crop": 1,
            "networks": {"abl1": {"parameters": 1, "macs": 1}},
            "cuda": True,
            "rows": [row],
            "findings": [],
        }
    ).splitlines()[-2]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == "abl1, CUDA graphs"
    assert cells[-3:] == ["", "", f"{row['operators']:,}"]


# Hand-made


def test_parameters_and_arguments_are_not_counted() -> None:
    linear, x = nn.Linear(100, 200), torch.randn(50, 100)
    assert saved_bytes(lambda: linear(x), [x]) == 0
    assert saved_bytes(lambda: linear(x).tanh(), [x]) == 4 * 50 * 200
    assert saved_bytes(lambda: linear(x)) == 4 * 50 * 100


def test_views_of_parameters_are_not_counted() -> None:
    linear, x = nn.Linear(100, 200), torch.randn(50, 100, requires_grad=True)
    assert saved_bytes(lambda: x @ linear.weight.mT, [x]) == 0
    assert saved_bytes(lambda: x @ linear.weight[:100].mT[:, 7:], [x]) == 0
    weight = linear.weight.detach()
    assert saved_bytes(lambda: x @ weight.mT, [x]) == 4 * 200 * 100  # not known for one
    assert saved_bytes(lambda: x @ weight.mT, [x, *linear.parameters()]) == 0


def test_a_tensor_that_two_nodes_keep_counts_once() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x.sin()
        return (y.square() + y.exp().neg()).sum()

    # y itself; exp keeps its result, neg and the sums keep nothing.
    assert saved_bytes(forward, [x]) == kept_bytes(forward) == 2 * 4000


def test_views_of_one_storage_count_once() -> None:
    x = torch.randn(1000, requires_grad=True)

    def forward() -> torch.Tensor:
        y = x.sin()
        return (y[:600] * y[400:]).sum()

    assert saved_bytes(forward, [x]) == kept_bytes(forward) == 4000


def test_without_gradients_nothing_is_kept() -> None:
    x = torch.randn(1000)
    assert saved_bytes(lambda: (x.sin() * x.exp()).sum()) == 0


def test_what_a_checkpoint_keeps_aside_counts() -> None:
    """To the allocator; hooks for saved tensors do not hear of it."""
    linear, x = nn.Linear(100, 200, bias=False), torch.randn(50, 100)

    def forward() -> torch.Tensor:
        return checkpoint(
            lambda y: linear(y).tanh().exp(),
            x,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: create_selective_checkpoint_contexts([torch.ops.aten.mm.default]),
        )

    assert kept_bytes(forward) == 4 * 50 * 200
    assert saved_bytes(forward, [x]) == 0


def test_the_peak_is_the_most_at_once() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(3 * MIB // 4)
        second = torch.zeros(2 * MIB // 4)
        total = first.sum() + second.sum()
        del first
        return total + torch.zeros(MIB // 4).sum()

    assert 5 * MIB <= peak_bytes(run) <= 5 * MIB + 1000
    assert peak_bytes(lambda: None) == 0


def test_counting_leaves_nothing_behind() -> None:
    x = torch.randn(1000, requires_grad=True)
    alive = weakref.WeakSet()

    def forward() -> torch.Tensor:
        y = x.exp()  # keeps its own output
        alive.add(y)
        return y.sum()

    assert saved_bytes(forward, [x]) == 4000
    gc.collect()
    assert not alive
