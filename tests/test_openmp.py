"""OpenMP's threads sleep while they wait: every command says so before torch loads OpenMP."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# Stops at the first import of torch, and tells the policy that torch would be loaded with.
PROBE = """
import os, runpy, sys

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Stop())
command = sys.argv[1]
sys.argv[1:] = ["--help"]
run = runpy.run_path if command.endswith(".py") else runpy.run_module
run(command, run_name="__main__")
"""
SCRIPTS = ["app.py", "enhance.py", "baseline/train.py"]  # evaluate.py imports no torch for its help
SCRIPTS += [f"abl{number}/train.py" for number in (1, 2, 3)]
MODULES = ["enhancement.export"] + [
    f"{package}.{path.stem}"
    for package in ("benchmarks",)
    for path in sorted(ROOT.joinpath(package).glob("*.py"))
    if '__name__ == "__main__"' in path.read_text("utf-8")
]


def policy(command: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | variables
    return subprocess.run(
        [sys.executable, "-c", PROBE, command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize("command", [*SCRIPTS, *MODULES])
def test_command_sets_the_wait_policy_before_it_imports_torch(command: str) -> None:
    assert policy(command) == "passive"


@pytest.mark.parametrize("command", ["abl3/train.py", "benchmarks.step"])
def test_command_keeps_the_users_wait_policy(command: str) -> None:
    assert policy(command, OMP_WAIT_POLICY="active") == "active"
