"""What the phases of a training step take, and how many operators it calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

PHASES = ("data", "forward", "backward", "discriminator", "labels", "optimizer")
_LAUNCH = re.compile(r"cu(da)?(Graph)?Launch\w*")


class Clock:
    """Listens to `Learner.mark`, and knows what each phase has taken.

    On a GPU it puts events among the launches and waits for nothing: a phase is then the time in
    which the card worked on it, or waited for it to be launched.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._device = device
        self._marks: list[tuple[str, Any]] = []
        self._start = 0.0

    def begin(self) -> None:
        """A step begins, with the wait for its batch."""
        self._synchronise()
        self._start = time.perf_counter()
        self._marks = [("", self._now())]

    def __call__(self, phase: str) -> None:
        """A phase ends here."""
        self._marks.append((phase, self._now()))

    def end(self) -> dict[str, float]:
        """Seconds of each of PHASES, and of the whole "step"."""
        self._synchronise()
        seconds = dict.fromkeys(PHASES, 0.0) | {"step": time.perf_counter() - self._start}
        for (_, before), (phase, now) in zip(self._marks, self._marks[1:], strict=False):
            seconds[phase] += before.elapsed_time(now) / 1000 if self._gpu else now - before
        return seconds

    def _now(self) -> Any:
        if not self._gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _synchronise(self) -> None:
        if self._gpu:
            torch.cuda.synchronize(self._device)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return operator(*args, **(kwargs or {}))


def operators(run: Callable[[], Any]) -> int:
    """How many operators a computation calls, PyTorch's and this project's.

    Views count; what an operator calls inside itself does not.
    """
    with _Counter() as counter:
        run()
    return counter.count


def launches(run: Callable[[], Any]) -> int:
    """How many times a computation has a GPU launch something: a kernel, or a graph of some."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    results = profiler.profiler.kineto_results
    return count_launches(event.name() for event in results.events())


def count_launches(names: Iterable[str]) -> int:
    """Those among a profile's events, by their names."""
    return sum(_LAUNCH.fullmatch(name) is not None for name in names)
