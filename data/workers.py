"""Worker processes: how they start, decided here once for loader, PESQ labels and evaluation.

They start by `forkserver` (`spawn` where that is missing), never by `fork`: a forked child that
enters a parallel numba kernel is killed by OpenMP. They do not import the caller's script either.
Python does that by default, so that functions defined in it can be unpickled; here it would load
torch into every PESQ worker, and nothing a worker needs is defined in a script.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import as_completed as futures_as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeVar

from data.signals import INTERRUPTIONS, STOP_SIGNALS

S = TypeVar("S")
T = TypeVar("T")
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_BASE: Any = multiprocessing.get_context(_METHOD)
_BASE.set_forkserver_preload(["data.session"])
_ROOT = str(Path(__file__).resolve().parents[1])
# Where the libraries that numpy may be built with look for their number of threads.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Processes are started by the main thread and by those that wait for PESQ workers.
_starting = threading.Lock()


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Hide the main module's origin while a process starts, so that the child leaves it alone."""
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.get(name) for name in ("__file__", "__spec__")}
    main.__dict__.update(__file__=None, __spec__=None)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None and name == "__file__":
                main.__dict__.pop(name)
            else:
                main.__dict__[name] = value


@contextmanager
def _signals_waiting() -> Iterator[None]:
    """Let signals to stop wait; the server that may be started meanwhile inherits this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(_BASE.Process):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the name is multiprocessing's
        with _starting, _script_hidden(), _signals_waiting():
            return _BASE.Process._Popen(process_obj)


class _Context(type(_BASE)):  # type: ignore[misc]
    Process = _Process


def process_context() -> BaseContext:
    """The multiprocessing context that every worker process of this project is started in."""
    # Python's keeper of semaphores is in this process' group and by itself survives SIGINT and
    # SIGTERM only: started here, it also keeps the other signals blocked.
    # The server imports `data.session` before it is told this process' path, and says nothing where
    # it cannot find it.
    path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
    with _starting, _signals_waiting(), variable("PYTHONPATH", path):
        resource_tracker.ensure_running()
        if _METHOD == "forkserver":
            forkserver.ensure_running()
    return _Context()


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of `workers` processes of one thread, that live as long as their parent."""
    return ProcessPoolExecutor(workers, mp_context=process_context(), initializer=begin_worker)


@contextmanager
def mapped(
    function: Callable[[S], T], items: Sequence[S], workers: int, at_once: int = 1
) -> Iterator[Iterator[T]]:
    """What a function gives for each of many items, in their order, by so many processes.

    With one, or for a handful of items, it is this process. at_once: how many items a process is
    given together; an interruption waits for them.

    Raises:
        BrokenProcessPool: one was killed.
    """
    if workers <= 1 or len(items) <= at_once:
        yield map(function, items)
        return
    pool = process_pool(min(workers, len(items)))
    try:
        yield pool.map(function, items, chunksize=at_once)
    finally:
        pool.shutdown(cancel_futures=True)


def as_finished(
    function: Callable[[S], T], tasks: Sequence[S], workers: int
) -> Iterator[tuple[int, T | None]]:
    """What a function gives for each task, by its number, as soon as it is there.

    From so many processes, of which each takes the next task when it is done. One that dies takes
    the others with it: what they were at is done again, by one process each, and None is given for
    what ends that one too. Interrupted, or not asked any further, all end (`tidied_up`).
    """
    waiting = dict(enumerate(tasks))

    def some(chosen: Mapping[int, S], at_once: int) -> Iterator[tuple[int, T]]:
        pool = process_pool(min(at_once, len(chosen)))
        try:
            futures = {pool.submit(function, task): number for number, task in chosen.items()}
            for future in futures_as_completed(futures):
                result = future.result()
                del waiting[futures[future]]
                yield futures[future], result
        except BrokenProcessPool:
            pass
        except (KeyboardInterrupt, GeneratorExit):
            _interrupt_children()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    while waiting:
        yield from some(dict(waiting), workers)
        # Tasks are taken in order, so that a process that died was at one of the first of these.
        for number in list(waiting)[:workers]:
            yield from some({number: waiting[number]}, 1)
            if number in waiting:
                del waiting[number]
                yield number, None


def usable_cores() -> int:
    """The number of cores this process may run on (a container or `taskset` may grant fewer)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def belong_to_parent(worker: int = 0) -> None:
    """Called in a worker process (also as the `worker_init_fn` of a torch loader).

    Ctrl-C is the parent's matter, who finishes its step with the worker (that no signal to the
    parent's group reaches the worker is seen to by `data.session`). When the parent is gone, in
    whatever way, so is the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def begin_worker() -> None:
    """Do what a worker of a pool does first, before it imports numpy."""
    belong_to_parent()
    # As many threads for matrix products as there are cores, in as many processes, get in each
    # other's way: two processes that score files on two cores took five times as long.
    os.environ |= dict.fromkeys(_THREADS, "1")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _interrupt_children() -> None:
    for child in multiprocessing.active_children():
        child.terminate()


@contextmanager
def tidied_up() -> Iterator[None]:
    """Around what a task does in the main thread of a worker process that may be told to end.

    What is within meets a `KeyboardInterrupt` and can tidy up; then the process ends, whatever else
    waits for it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_children() -> None:
    """End what worker processes there still are, whatever they are doing: this one is about to end.

    Without, it would wait for one that hangs. After one Ctrl-C another is ignored from here on:
    Python gives up its handlers while it ends, and would be killed before it returns its status.
    """
    for each in INTERRUPTIONS:
        if signal.getsignal(each) is _stop_at_once:
            signal.signal(each, signal.SIG_IGN)
    for child in multiprocessing.active_children():
        child.kill()


def stop_by_signals() -> None:
    """Ctrl-C, SIGTERM and a closed terminal interrupt, so that what is done is kept.

    A second one ends all at once.
    """
    for each in INTERRUPTIONS:
        if signal.getsignal(each) is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, _stop)


def _stop(number: int, frame: object) -> None:
    for each in INTERRUPTIONS:
        if signal.getsignal(each) is _stop:
            signal.signal(each, _stop_at_once)
    raise KeyboardInterrupt


def _stop_at_once(number: int, frame: object) -> None:
    end_children()
    os._exit(130)


@contextmanager
def variable(name: str, value: str | None) -> Iterator[None]:
    """Give a variable of the environment a value, or none, and restore it afterwards."""
    before = os.environ.get(name)
    _put(name, value)
    try:
        yield
    finally:
        _put(name, before)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
