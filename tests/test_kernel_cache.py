"""Compiled kernels, kept between processes, and their compilation."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType

import numba
import pytest
from conftest import ROOT
from new_process import SCAN, run_in_new_process

from scan import kernel_cache


def test_kernels_are_kept_under_the_content_of_their_sources() -> None:
    """numba alone would look at one file's date, and run old code after a change of another."""
    from scan import conv_kernels, cpu_kernels

    folder = f"scan-{kernel_cache.VERSION}"
    for module in (conv_kernels, cpu_kernels):
        kernels = [x for x in vars(module).values() if hasattr(x, "stats")]
        kept = [k for k in kernels if k.py_func.__name__.endswith(("forward", "backward"))]
        assert len(kept) == 2
        for kernel in kept:
            assert folder in kernel.stats.cache_path
    assert not numba.config.CACHE_DIR.endswith(folder)
    # Every file whose code a kernel can inline.
    needed = {"cpu_kernels", "conv_kernels"}
    for name in ("cpu_kernels", "cpu_states", "conv_kernels", "vector_math", "kernel_cache"):
        lines = (ROOT / "scan" / f"{name}.py").read_text().splitlines()
        needed |= {x.split()[1].split(".")[1] for x in lines if x.startswith("from scan.")}
    assert {path.stem for path in kernel_cache.SOURCES} == needed


@pytest.mark.slow
def test_many_processes_may_start_at_once_without_a_cache(tmp_path: Path) -> None:
    """All compile and write the same files; none may read half of one."""
    half = SCAN.replace("torch.float32", "torch.bfloat16")
    for _ in range(2):  # the second time with what the first has left
        codes = [SCAN, half, SCAN, half]
        started = [run_in_new_process(code, NUMBA_CACHE_DIR=str(tmp_path)) for code in codes]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        assert [process.returncode for process in started] == [0] * 4, outputs
        assert len(set(outputs[::2])) == len(set(outputs[1::2])) == 1
        assert len(list(tmp_path.rglob("*.nbc"))) == 4  # two kernels, two precisions


def test_a_damaged_cache_is_compiled_anew(tmp_path: Path) -> None:
    def scan() -> str:
        process = run_in_new_process(SCAN, NUMBA_CACHE_DIR=str(tmp_path))
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output.splitlines()[-1]

    expected = scan()
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:30])
    assert scan() == expected
    for file in tmp_path.rglob("*.nbi"):
        file.write_bytes(file.read_bytes()[:3])
    assert scan() == expected


def test_a_cache_that_cannot_be_written_is_done_without() -> None:
    process = run_in_new_process(SCAN, NUMBA_CACHE_DIR="/dev/null/nowhere")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def asks_to_stop() -> None:
    """What a kernel calls, whose compilation is when somebody presses Ctrl-C."""


@numba.extending.overload(asks_to_stop)
def compiled_when_asked_to_stop():  # type: ignore[no-untyped-def]
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return lambda: None


def test_an_interruption_waits_for_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the compilation, or was lost in what LLVM calls, which printed a traceback."""
    arrived = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        raise KeyboardInterrupt

    def stopped() -> float:
        asks_to_stop()
        return 1.0

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")  # it compiles in any case
    kernel = kernel_cache.kernel(stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            kernel()
        assert {signal.getsignal(number) for number in before} == {interrupt}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert arrived[0] == signal.SIGINT
    assert kernel.signatures == [()]
    assert kernel() == 1
