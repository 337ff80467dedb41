"""What the card is and what it can do: copy bandwidth, matrix rate, the time of a launch."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.cases.flops import case_flops
from benchmarks.cases.op import Case
from benchmarks.core.clock import clock_of, products
from benchmarks.core.machine import machine_name
from benchmarks.core.race import Sample
from lares_kernels.spec.call import PRECISIONS as TYPES

PRECISIONS = ("bf16", "tf32", "fp32")
_FLOAT = 4  # bytes


def card_name(device: str) -> str:
    """Name, multiprocessors and memory of the card; the processor where there is none."""
    if device == "cpu":
        return f"{machine_name()}, no GPU"
    found = torch.cuda.get_device_properties(0)
    gibibytes = found.total_memory / 2**30
    return f"{found.name} ({found.multi_processor_count} multiprocessors, {gibibytes:.0f} GiB)"


class Card(NamedTuple):
    """Measured speeds.

    Attributes:
        bandwidth: bytes a second, of a copy from and to memory (both counted).
        rates: operations a second of a large matrix product, by precision.
        launch: an operation on one number: wall and host seconds from an idle device.
    """

    bandwidth: float
    rates: dict[str, float]
    launch: Sample

    def floor_us(self, case: Case, lengths: list[int]) -> float:
        """Microseconds that no program can go below on this card, by its products or its bytes.

        Bytes are those that must pass through memory: input, parameters and result; with backward also
        one state a step written and read, the input and parameters again, and their gradients.
        """
        flops = case_flops(case, lengths)
        rows = sum(lengths) * case.d_model
        weights = case.n_layers * case.d_model * (4 * case.d_model + 2 * case.d_ff)
        numbers = rows + weights + len(lengths) * case.d_model
        if case.backward:
            numbers += 2 * case.steps * rows + 2 * rows + 2 * weights
        return 1e6 * max(flops / self.rates[case.precision], numbers * _FLOAT / self.bandwidth)


def measure_card(device: str, quick: bool) -> Card:
    """Some seconds of copies and products."""
    clock = clock_of(device)
    size, side, rounds = (2**18, 256, 3) if quick else (2**28, 8192, 10)
    source, target = (torch.zeros(size, device=device) for _ in range(2))
    bandwidth = 2 * _FLOAT * size / _median(clock, lambda: target.copy_(source), rounds)
    rates = {}
    for precision in PRECISIONS:
        a, b = (
            torch.randn(side, side, device=device, dtype=TYPES.get(precision, torch.float32))
            for _ in range(2)
        )
        with products(precision):
            rates[precision] = 2 * side**3 / _median(clock, lambda a=a, b=b: a @ b, rounds)
    one = torch.zeros(1, device=device)
    one.add_(1)
    samples = [clock(lambda: one.add_(1)) for _ in range(20)]
    launch = sorted(samples, key=lambda sample: sample.wall)[len(samples) // 2]
    return Card(bandwidth, rates, launch)


def _median(
    clock: Callable[[Callable[[], object]], Sample], call: Callable[[], object], rounds: int
) -> float:
    call()
    return statistics.median(clock(call).seconds for _ in range(rounds))
