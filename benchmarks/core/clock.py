"""Time on a GPU, CUDA graphs of whole calls, and a limit on how long something may take."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.core.race import Sample, timed

GRAPH = "+graph"  # at the end of a name: the call replayed as one CUDA graph
WARM_UPS = 3
_CYCLES = (
    2e9  # a second, of the fastest cards: a shorter sleep elsewhere lets the host less far ahead
)
_LONGEST_START = 0.02  # seconds


class DeviceClock:
    """Times a call twice: between two events on the device, and from an idle device to the result.

    Before the first event the device sleeps for about as long as the host takes to queue the call, so
    that the events enclose the device's work and not its waiting for the host. A call whose host part
    waits for the device cannot be run ahead of, and its waiting counts.
    """

    def __init__(self) -> None:
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def __call__(self, call: Callable[[], object]) -> Sample:
        torch.cuda.synchronize()
        cpu, wall = time.thread_time(), time.perf_counter()
        call()
        host = time.perf_counter() - wall
        torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        torch.cuda._sleep(int(_CYCLES * min(1.2 * host + 2e-5, _LONGEST_START)))
        self._begin.record()
        call()
        self._end.record()
        torch.cuda.synchronize()
        return Sample(wall, cpu, 1e-3 * self._begin.elapsed_time(self._end), host)


def clock_of(device: str) -> Callable[[Callable[[], object]], Sample]:
    """What times calls on a type of device."""
    return DeviceClock() if device == "cuda" else timed


def captured(call: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
    """``call`` as one CUDA graph, to be replayed; its tensors are the same ones every time.

    Raises:
        RuntimeError: there is no GPU, or the call waits for the device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA graphs need a GPU")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> list[Tensor]:
        graph.replay()
        return result

    return replay


@contextlib.contextmanager
def limited(seconds: float, what: str) -> Iterator[None]:
    """Raise ``TimeoutError`` in the ``with`` block after so many seconds (main thread only)."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"{what} took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """float32 products as tf32 where ``precision`` says so, else as IEEE float32."""
    put: Callable[[str], None] = torch.set_float32_matmul_precision
    wanted = "high" if precision == "tf32" else "highest"
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # it was told by the newer switch, and refuses the older one beside that
        before = torch.backends.cuda.matmul.fp32_precision
        put = partial(setattr, torch.backends.cuda.matmul, "fp32_precision")
        wanted = "tf32" if precision == "tf32" else "ieee"
    put(wanted)
    try:
        yield
    finally:
        put(before)
