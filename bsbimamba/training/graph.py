"""A computation on static buffers, replayed as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("training")

_WARM_UP = 3  # calls without a graph: they compile kernels, make plans and fill caches


class Replayed:
    """Call a function, from the fourth time on as one launch: a CUDA graph.

    The function must read nothing on the host, and must leave its state at the same addresses. Of
    its arguments, tensors are copied to buffers of its own. What it returns is overwritten by the
    next call. Each call computes what a plain one would, the first three included.

    The graph is captured anew where shapes or other arguments change. Where it cannot be captured,
    all calls are plain ones, after a warning that gives the reason. On a CPU there is no graph,
    only buffers.

    Attributes:
        reason: why it cannot be captured; None if it was, or has not been tried.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._key: Any = None
        self._arguments: list[Any] = []
        self._calls = 0
        self.reason: str | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Any = None
        self._stream: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Return function(*arguments), the first of which is a tensor."""
        key = [x.shape if isinstance(x, Tensor) else x for x in arguments]
        if key != self._key:
            self._key, self._calls, self._graph, self._outputs = key, 0, None, None
            self._arguments = [
                torch.empty_like(x) if isinstance(x, Tensor) else x for x in arguments
            ]
        for mine, given in zip(self._arguments, arguments, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(given)
        self._calls += 1
        device = arguments[0].device
        if device.type != "cuda" or self.reason:
            return self._function(*self._arguments)
        if self._graph is None:
            self._stream = self._stream or torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))
            if self._calls <= _WARM_UP:
                with torch.cuda.stream(self._stream):
                    outputs = self._function(*self._arguments)
                torch.cuda.current_stream(device).wait_stream(self._stream)
                return outputs
            self._graph = self._captured()
        if self._graph is None:
            return self._function(*self._arguments)
        self._graph.replay()
        return self._outputs

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """Return the graph, which has computed nothing yet, or None where there can be none."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context goes back to the present stream where the inner one fails to. Other
            # threads, as the loader's, may go on allocating.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._outputs = self._function(*self._arguments)
        except RuntimeError as error:  # of CUDA or cuDNN; where the capture ends, another one
            cause: BaseException = error
            while cause.__context__ is not None and not isinstance(cause, torch.OutOfMemoryError):
                cause = cause.__context__
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            self.reason = str(cause).strip().splitlines()[0]
            log.warning(f"steps are computed without a CUDA graph, and slower: {self.reason}")
            return None
        return graph
