"""The CPU kernels: their vectors, their threads and what they read and write."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from numba import njit
from scan_cases import check_every_entry_is_written, make_arguments
from torch import Tensor

from bsbimamba.scan.cpu import vectors

SCAN = """
import torch
from scan_cases import make_arguments, run
torch.set_num_threads(2)
got = run(make_arguments(2, 70, 64, 4), torch.float32, "cpu")
print({k: float(v.detach().double().sum()) for k, v in got.items()})
"""


def run_in_new_process(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/scan'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def over_vectors(function: Any, x: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """A function of one vector, applied to a whole array; bfloat16 as uint16."""

    @njit
    def apply(x, out):  # type: ignore[no-untyped-def]
        for i in range(0, x.size, vectors.LANES):
            vectors.store(out, i, function(vectors.load(x, i)))

    padded = np.zeros(-(-x.size // 16) * 16, x.dtype)
    padded[: x.size] = x
    out = np.empty(padded.size, dtype)
    apply(padded, out)
    return out[: x.size]


@pytest.mark.parametrize(
    ("function", "reference", "bound", "low"),
    [
        (vectors.exp2, np.exp2, 2e-7, -126),
        (vectors.softplus, lambda x: np.logaddexp(0, x), 5e-6, -126),
        (vectors.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 5e-6, -126),
        (vectors.sigmoid_from_softplus, lambda y: -np.expm1(-y), 5e-6, 1e-30),
    ],
)
def test_functions_against_numpy(function: Any, reference: Any, bound: float, low: float) -> None:
    x = np.linspace(low, 127, 100_003, dtype=np.float32)
    expected = reference(x.astype(np.float64))
    normal = expected > 1e-37
    error = np.abs(over_vectors(function, x)[normal] / expected[normal] - 1).max()
    assert error < bound, f"relative error {error:.2e}"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (vectors.exp2, [np.nan, 0, np.inf, 1]),
        (vectors.softplus, [np.nan, 0, np.inf, np.log(2)]),
        (vectors.sigmoid, [np.nan, 0, 1, 0.5]),
        (vectors.sigmoid_from_softplus, [np.nan, -np.inf, 1, 0]),
    ],
)
def test_functions_at_the_edges(function: Any, expected: list[float]) -> None:
    edges = np.array([np.nan, -np.inf, np.inf, 0], np.float32)
    np.testing.assert_allclose(over_vectors(function, edges), expected, rtol=1e-6)
    payloads = np.array([0x7F800001, 0x7FC001FF, 0xFFFFFFFF, 0x7FFFFFFF], np.uint32)
    assert np.isnan(over_vectors(function, payloads.view(np.float32))).all()


def test_bfloat16_is_read_and_written_as_torch_does() -> None:
    def narrowed(x: Tensor) -> Tensor:
        return torch.from_numpy(over_vectors(same, x.numpy(), np.uint16)).view(torch.bfloat16)

    same = njit(lambda x: x)
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 3e38, 1e-40, 1.00390625])
    x = torch.cat([special, torch.randn(4088)])
    expected = x.bfloat16()
    assert narrowed(x)[0].isnan()
    assert torch.equal(narrowed(x)[1:], expected[1:])
    nans = torch.tensor([0x7FFFFFFF, 0x7F800001], dtype=torch.int32).view(torch.float32)
    assert narrowed(nans).isnan().all()
    back = over_vectors(same, expected.view(torch.uint16).numpy())
    assert torch.equal(torch.from_numpy(back)[1:], expected.float()[1:])


@pytest.mark.parametrize("width", [64, 70])
def test_every_entry_is_written(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_every_entry_is_written("cpu", make_arguments(3, 65, width, 5), monkeypatch)


@pytest.mark.slow
def test_many_processes_may_compile_at_once(tmp_path: Path) -> None:
    """All write the same files, of two precisions; none may read half of one, or the other's."""
    half = SCAN.replace("torch.float32", "torch.bfloat16")
    for _ in range(2):  # the second time with what the first has left
        codes = [SCAN, half, SCAN, half]
        started = [run_in_new_process(code, NUMBA_CACHE_DIR=str(tmp_path)) for code in codes]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0] * 4, outputs
        assert len(set(outputs[::2])) == len(set(outputs[1::2])) == 1
        assert len(list(tmp_path.rglob("*.nbc"))) == 4  # two kernels, two precisions


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["*.nbi", "*.nbc"])
def test_a_damaged_cache_is_compiled_anew(damaged: str, tmp_path: Path) -> None:
    outputs = []
    for _ in range(3):
        process = run_in_new_process(SCAN, NUMBA_CACHE_DIR=str(tmp_path))
        outputs.append(process.communicate(timeout=300)[0])
        assert process.returncode == 0, outputs
        for file in tmp_path.rglob(damaged):
            assert file.stat().st_size > 100
            os.truncate(file, 100 if len(outputs) == 1 else 0)
    assert len(set(outputs)) == 1
