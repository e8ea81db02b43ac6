"""Errors of collective operations: only a process that is gone is reported as one."""

from __future__ import annotations

import re
import sys

import pytest
from conftest import ROOT
from processes import by_hand

# One collective operation of two processes that goes well, and one with a fault.
CODE = """
import os, sys
sys.path.insert(0, sys.argv[2])
import torch
import torch.distributed as dist
from training.distributed import LostError, join, leave

fault = sys.argv[1]
try:
    with join() as world:
        world.add_up([torch.ones(3)])
        values = torch.ones(3)
        if fault == "killed" and world.rank:
            os.kill(os.getpid(), 9)
        if fault == "a bug":  # gloo cannot add these, and says so by a plain RuntimeError
            values = values.to(torch.float8_e4m3fn)
        if fault == "memory":
            def all_reduce(flat):
                raise torch.OutOfMemoryError("no memory for the buffer")
            dist.all_reduce = all_reduce
        world.add_up([values])
except Exception as error:
    leave(1, error)
"""


@pytest.mark.parametrize(
    ("port", "fault", "message"),
    [
        (
            29541,
            "killed",
            "LostError: another process of this run is gone; .*rank 1 has given no sign",
        ),
        (29542, "a bug", "RuntimeError: Invalid scalar type"),
        (29543, "memory", "OutOfMemoryError: no memory for the buffer"),
    ],
)
def test_collective_error_is_a_lost_process_only_if_one_is_gone(
    port: int, fault: str, message: str
) -> None:
    launched = [sys.executable, "-c", CODE, fault, str(ROOT)]
    processes = [by_hand(launched, rank, 2, port) for rank in range(2)]
    try:
        said = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 1, said
    assert re.search(message, said[0]), said[0]
    assert ("another process" in said[0]) is (fault == "killed")
