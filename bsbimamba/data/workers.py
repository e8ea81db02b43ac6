"""Worker processes for loader, labels and scores, threads for files; how commands are stopped.

Worker processes start by `forkserver` (`spawn` where that is missing), never by `fork`: a forked
child cannot use CUDA, and waits for ever for a lock that another thread of its parent held.
"""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from tqdm.contrib.concurrent import thread_map

from bsbimamba.openmp import usable_cores

if TYPE_CHECKING:
    from pebble import ProcessPool

S = TypeVar("S")
T = TypeVar("T")
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")  # some systems lack the last two
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
# Processes that share the cores are much slower where each starts as many threads as there are.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def process_context() -> BaseContext:
    """Return the multiprocessing context that worker processes are started in."""
    context = multiprocessing.get_context(_METHOD)
    atexit.register(end_children)  # multiprocessing would wait for ever: they ignore its SIGTERM
    if _METHOD == "forkserver":
        # Workers import the main script. Where that needs torch, the server loads it once for all.
        context.set_forkserver_preload(["torch"] if "torch" in sys.modules else [])
        # The server and so its children inherit both. A terminal or a scheduler signals the whole
        # group, and it is the parent that decides what to do.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            resource_tracker.ensure_running()  # in Python 3.11 its start unblocks two of them
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            with patch.dict(os.environ, _ONE_THREAD):
                forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def begin_worker(worker: int = 0) -> None:
    """Make this worker process end with its parent, and leave signals to stop to that.

    For a pool's `initializer`, or the `worker_init_fn` of a torch loader, which gives a number.
    """
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def worker_pool(workers: int) -> "ProcessPool":
    """Return a pool of worker processes (at least 1), which start with the first task."""
    from pebble import ProcessPool  # here, as enhancing does without it

    return ProcessPool(workers, initializer=begin_worker, context=process_context())


def result_of(pool: "ProcessPool", task: "Future[Any]") -> Any:
    """Wait for a task of a pool, and return its result.

    Raises:
        TimeoutError: it took too long. ProcessExpired: its process died.
        BrokenProcessPool: a process died with nothing to do, which ends the pool.
    """
    while not wait([task], timeout=1).done:
        if not pool.active:  # pebble forgets what waits for a process then
            raise BrokenProcessPool("a worker died while it had nothing to do")
    return task.result()


def in_threads(function: Callable[[S], T], items: Sequence[S], what: str) -> list[T]:
    """Return what a function returns for each item, in their order; show the progress.

    For work that lets other threads run: decoding, resampling, reading and writing files.

    what: label of the progress bar.
    """
    return thread_map(
        function, items, max_workers=usable_cores(), desc=what, unit="file",
        leave=False, disable=None if items else True,  # None: where there is no terminal
    )  # fmt: skip


def end_children() -> None:
    """Kill the worker processes that are left, which this process would wait for when it ends."""
    for child in multiprocessing.active_children():
        child.kill()


def stop_by_signals() -> None:
    """Let SIGTERM and a closed terminal interrupt, as Ctrl-C does, so that what is done is kept."""
    for each in STOP_SIGNALS:
        if each.name != "SIGUSR1" and signal.getsignal(each) is not signal.SIG_IGN:  # under nohup
            signal.signal(each, signal.default_int_handler)
