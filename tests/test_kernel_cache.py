"""Compiled kernels, kept between processes, and their compilation."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

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
    """What a kernel calls, whose compilation is when somebody presses Ctrl-C, and then ends it."""


def cannot_be_compiled() -> None:
    """The same, and then its type is not known."""


@numba.extending.overload(asks_to_stop)
def compiled_when_asked_to_stop():  # type: ignore[no-untyped-def]
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return lambda: None


@numba.extending.overload(cannot_be_compiled)
def asked_to_stop_without_a_type():  # type: ignore[no-untyped-def]
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that have been handled, each of which raises KeyboardInterrupt.

    In the end they still are.
    """
    found: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        found.append(number)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/dev/null/nowhere")  # it compiles in any case
    try:
        yield found
        found.clear()
        for number in before:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert found == list(before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_signals_wait_for_the_compiler(arrived: list[int]) -> None:
    """They ended the compilation, or were lost in what LLVM calls, which printed a traceback."""

    def stopped() -> float:
        asks_to_stop()
        return 1.0

    kernel = kernel_cache.kernel(stopped)
    with pytest.raises(KeyboardInterrupt):
        kernel()
    assert arrived == [signal.SIGINT, signal.SIGTERM]
    assert kernel.signatures == [()]
    assert kernel() == 1


def test_signals_come_when_the_compilation_fails(arrived: list[int]) -> None:
    def broken() -> None:
        cannot_be_compiled()

    kernel = kernel_cache.kernel(broken)
    with pytest.raises(KeyboardInterrupt):
        kernel()
    assert set(arrived) == {signal.SIGTERM}
    assert not kernel.signatures


def test_a_signal_at_the_end_of_the_compilation(
    arrived: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While handlers are put back: what may stay in the place of one calls it."""
    put = signal.signal
    sent: list[int] = []

    def put_late(number: int, handler: Any) -> Any:
        if not sent and number == signal.SIGINT and "later" not in repr(handler):
            sent.append(number)
            os.kill(os.getpid(), number)
        return put(number, handler)

    def kernel_of_one() -> float:
        return 1.0

    monkeypatch.setattr(signal, "signal", put_late)
    kernel = kernel_cache.kernel(kernel_of_one)
    with pytest.raises(KeyboardInterrupt):
        kernel()
    assert arrived == sent == [signal.SIGINT]
    assert kernel() == 1


def test_another_thread_compiles_without_handlers(arrived: list[int]) -> None:
    """Python knows them in its main thread only, where they go on working."""

    def elsewhere() -> float:
        return 1.0

    kernel = kernel_cache.kernel(elsewhere)
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(kernel()))
    thread.start()
    thread.join()
    assert found == [1]
    assert not arrived


def test_a_lock_that_stays_held_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that somebody has suspended while it saved."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_PATIENCE", 0.1)

    def kept() -> float:
        return 1.0

    (tmp_path / f"scan-{kernel_cache.VERSION}").mkdir()
    with kernel_cache._lock(tmp_path / f"scan-{kernel_cache.VERSION}" / "lock") as held:
        assert held
        assert kernel_cache.kernel(kept)() == 1
        assert not list(tmp_path.rglob("*.nb?"))
    assert kernel_cache.kernel(kept)() == 1
    assert list(tmp_path.rglob("*.nb?"))
