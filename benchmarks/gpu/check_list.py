"""The checks of :mod:`benchmarks.gpu.checks`, in their order."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases.equality import YARDSTICKS, check, relative_errors
from benchmarks.cases.gpu import MAIN
from benchmarks.cases.op import Case
from benchmarks.core.clock import captured, products
from benchmarks.core.process import run_here
from lares_kernels import (
    BackendError,
    CoreConfig,
    RecurrentCore,
    available_backends,
    explain,
    use_backend,
    warmup,
)

_REPEATS, _THREAD_CALLS, _TIMED_CALLS = 60, 1500, 10
_LONGEST_PROCESS = 90.0  # seconds
# Widths, heads, inner widths and layers, each of another kernel.
_SHAPES = (
    *((32, 1, 64, 8), (32, 2, 40, 1), (64, 1, 70, 1), (64, 2, 256, 3)),
    *((64, 4, 33, 3), (64, 8, 96, 2), (128, 2, 512, 2), (128, 8, 64, 1)),
)
_STREAMED = ((64, 2, 256, 3), (64, 1, 64, 1), (128, 4, 512, 1))
_BEYOND_IDS = 2**24  # sequences are numbered below that


class Place(NamedTuple):
    """Where checks run."""

    device: str

    @property
    def has_card(self) -> bool:
        return self.device == "cuda"

    @property
    def backends(self) -> list[str]:
        """The kernels there are, by name."""
        names = ("triton", "cuda") if self.has_card else ("cpu",)
        return [name for name in names if available_backends()[name] == "usable"]

    def case(self, **changes: Any) -> Case:
        """The main case, or what of it a CPU does in a blink."""
        small = {} if self.has_card else {"batch": 6, "d_model": 16, "d_ff": 32}
        return replace(MAIN, device=self.device, **(small | changes))

    @property
    def many(self) -> int:
        """Sequences that are more than a card's multiprocessors, which share a plan for few."""
        return 300 if self.has_card else 5

    @property
    def lengths(self) -> list[int]:
        """Of as many sequences."""
        return [(7 * i) % 20 + 1 for i in range(self.many)]

    def depths(self, sequences: int, most: int) -> Tensor:
        """Of so many sequences, each its own."""
        return torch.arange(sequences, device=self.device) % most + 1


class Check(NamedTuple):
    """What to run, the seconds that it may take, and the ``card`` or backend that it needs."""

    seconds: float
    body: Callable[[Place], None]
    needs: str = ""

    def run(self, place: Place) -> None:
        """Raise where something is wrong; say so where there is not what it needs."""
        there = place.has_card if self.needs == "card" else self.needs in ("", *place.backends)
        if there:
            self.body(place)
        else:
            print(f"there is no {self.needs} here")


class Inputs(NamedTuple):
    """A core and what it is called with."""

    core: RecurrentCore
    hidden: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, place: Place, config: CoreConfig, lengths: list[int]) -> Inputs:
        torch.manual_seed(0)
        core = RecurrentCore(config).to(place.device)
        core.reset_parameters(std=config.d_model**-0.5)
        hidden = torch.randn(len(lengths), max(lengths), config.d_model).to(place.device)
        return cls(core, hidden.requires_grad_(), torch.tensor(lengths, device=place.device))

    def step(self, backend: str, training: bool = True, **options: Any) -> list[Tensor]:
        """``last``, and in training the gradients of its sum with random weights."""
        options = {"num_steps": 4, "seed": 3, "precision": "bf16", **options}
        self.core.train(training)
        with use_backend(backend), torch.set_grad_enabled(training):
            last = self.core(self.hidden, self.lengths, **options).last
            if not training:
                return [last]
            weights = torch.arange(last.numel(), device=last.device).reshape(last.shape).sin()
            wanted = [self.hidden, *self.core.parameters()]
            return [last.detach(), *torch.autograd.grad((last * weights).sum(), wanted)]


def _hold(inputs: Inputs, backend: str, what: str, **options: Any) -> None:
    """Hold a step to twice what plain PyTorch in its precision differs from float32 by."""
    exact = inputs.step("reference", **{**options, "precision": "fp32"})
    plain = relative_errors(inputs.step("reference", **options), exact)
    found = relative_errors(inputs.step(backend, **options), exact)
    print(f"{what}, {backend}: {found.forward:.2e} and {found.gradient:.2e}, plain {plain}")
    assert found.forward <= YARDSTICKS * plain.forward, (what, backend, found, plain)
    assert found.gradient <= YARDSTICKS * plain.gradient, (what, backend, found, plain)


def _dropping(*shape: int, rate: float = 0.5, **others: Any) -> CoreConfig:
    return CoreConfig(*shape, dropout=rate, attn_dropout=rate, **others)


def machine(place: Place) -> None:
    """What the kernels stand on; Triton builds a launcher with a C compiler at its first launch."""
    compilers = [os.environ.get("CC"), *map(shutil.which, ("gcc", "cc", "clang"))]
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    print(f"torch {torch.__version__}, C compiler {next(filter(None, compilers), None)}")
    print(f"Python.h {'there' if header.exists() else 'missing'}: {header}")
    for name, state in available_backends().items():
        print(f"{name}: {state}")
    if place.has_card and shutil.which("nvidia-smi"):
        asked = ["--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
        print(run_here(["nvidia-smi", *asked], _LONGEST_PROCESS).text)
    assert place.backends, "no kernels are usable"


def first_call(place: Place) -> None:
    """A training call in bf16, compiled and held to float64; depths of sequences' own, too."""
    for backend in place.backends:
        began = time.monotonic()
        case = place.case(backward=True)
        check(f"op:{backend}", case)
        print(f"{backend}: {time.monotonic() - began:.1f} s with compiling")
        inputs = Inputs.of(place, case.config, place.lengths)
        _hold(inputs, backend, "depths", num_steps=place.depths(place.many, 8))


def same_bits(place: Place) -> None:
    """Repeated calls beside a busy stream: a race between warps, or a stale read, would show."""
    lengths = [(11 * i) % 64 + 1 for i in range(5 * place.many)]
    inputs = Inputs.of(place, place.case(dropped=True).config, lengths)
    depths = place.depths(len(lengths), 4)
    for backend in place.backends:
        first = inputs.step(backend, num_steps=depths)
        assert all(bool(found.isfinite().all()) for found in first), f"{backend}: not finite"
        with _busy(place) as make_busy:
            for number in range(_REPEATS if place.has_card else 2):
                make_busy()
                again = inputs.step(backend, num_steps=depths)
                same = all(map(torch.equal, first, again))
                assert same, f"{backend}: call {number} differs from the first"


@contextmanager
def _busy(place: Place) -> Iterator[Callable[[], None]]:
    """Give what queues a large product on a stream of its own."""
    if not place.has_card:
        yield lambda: None
        return
    noise, stream = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()

    def make_busy() -> None:
        with torch.cuda.stream(stream):
            torch.mm(noise, noise)

    yield make_busy
    torch.cuda.synchronize()


def primitives(place: Place) -> None:
    """The operations that the CUDA kernels are made of, one by one."""
    from lares_kernels.cuda.probe import LINES, differences

    wrong = differences(torch.device(place.device))
    print(f"{LINES} lines")
    assert not wrong, f"{len(wrong)} of {LINES} lines differ, such as {wrong[0]}"


def longer_sequences(place: Place) -> None:
    """Sequences beyond 64 tokens that begin anywhere in a tile."""
    for lengths in ([30, 70], [1, 65], [40, 88]):
        for rate in (0.0, 0.5):
            config = CoreConfig(32, 1, 32, 1, dropout=rate)
            inputs = Inputs.of(place, config, lengths)
            for backend in place.backends:
                _hold(inputs, backend, f"{lengths} at rate {rate}", num_steps=2)


def tiles(place: Place) -> None:
    """Every shape with more sequences than a card has multiprocessors, with and without dropout."""
    for backend in place.backends:
        for shape in _SHAPES if place.has_card else _SHAPES[:1]:
            inputs = Inputs.of(place, CoreConfig(*shape), place.lengths)
            for precision in ("bf16", "fp16") if place.has_card else ("bf16",):
                if backend == "cuda":
                    _require_plan("fused", inputs, precision)
                _hold(inputs, backend, f"{shape} in {precision}", precision=precision)
        for shape in _STREAMED if place.has_card else _STREAMED[:1]:
            inputs = Inputs.of(place, _dropping(*shape), place.lengths)
            depths = place.depths(place.many, 4)
            _hold(inputs, backend, f"{shape} with dropout", num_steps=depths)


def _require_plan(word: str, inputs: Inputs, precision: str) -> None:
    with use_backend("cuda"):
        plan = explain(inputs.core.config, inputs.lengths, 4, "cuda", precision=precision).plan
    assert word in plan, f"another plan than was meant to be checked: {plan}"


def tf32(place: Place) -> None:
    """Whether this card rounds the operands of tf32 products, alone and in a core."""
    left, right = torch.randn(2048, 64, device="cuda"), torch.randn(64, 256, device="cuda")
    exact = left.double() @ right.double()

    def error(found: Tensor) -> float:
        return float((found.double() - exact).norm() / exact.norm())

    def cut(numbers: Tensor, half: int) -> Tensor:
        return ((numbers.view(torch.int32) + half) & ~0x1FFF).view(torch.float32).double()

    with products("tf32"):
        found = error(left @ right)
    truncated, rounded = (error(cut(left, half) @ cut(right, half)) for half in (0, 0x1000))
    print(f"a product: {found:.2e}; operands cut {truncated:.2e}, rounded {rounded:.2e}")
    for backend in place.backends:
        if backend != "cuda":  # which has no float32 products
            case = place.case(backward=True, precision="tf32")
            with products("tf32"):
                check(f"op:{backend}", case)


def other_products_switch(place: Place) -> None:
    """The switch for tf32 that newer versions of torch recommend."""
    switch = torch.backends.cuda.matmul
    if not hasattr(switch, "fp32_precision"):
        print("this torch has none")
        return
    switch.fp32_precision = "tf32"
    inputs = Inputs.of(place, _dropping(), [5, 20, 1])
    for backend in place.backends:
        if backend != "cuda":
            inputs.step(backend, precision="fp32")


def threads(place: Place) -> None:
    """Threads whose calls want different amounts of shared memory of one kernel."""

    def work(backend: str, longest: int) -> None:
        inputs = Inputs.of(place, CoreConfig(n_layers=1), [longest] * 4)
        wanted = inputs.step(backend, False)[0]
        for _ in range(_THREAD_CALLS if place.has_card else 2):
            assert torch.equal(inputs.step(backend, False)[0], wanted), "another result"

    for backend in place.backends:
        with ThreadPoolExecutor() as pool:
            ended = {longest: pool.submit(work, backend, longest) for longest in (8, 20, 40, 64)}
        for longest, each in ended.items():
            error = each.exception()
            assert error is None, f"{backend}, {longest} tokens: {error}"


def refused(place: Place) -> None:
    """A launch that the card refuses is told of that call, and not of the next."""
    from lares_kernels.cuda import backend as cuda

    inputs = Inputs.of(place, CoreConfig(), [20, 3, 7, 11])
    wanted = inputs.step("cuda", False)[0]
    right = cuda.plan_of
    cuda.plan_of = lambda *given, **named: replace(right(*given, **named), shared_bytes=10**6)
    try:
        inputs.step("cuda", False)
    except BackendError as error:
        print(f"refused: {error}")
    else:
        raise AssertionError("a megabyte of shared memory was granted")
    finally:
        cuda.plan_of = right
    assert torch.equal(inputs.step("cuda", False)[0], wanted)


def odd_inputs(place: Place) -> None:
    """Views at odd addresses, other strides, another stream; ids and depths that nobody looked at."""
    inputs = Inputs.of(place, CoreConfig(), [20] * 8)
    flat = torch.randn(8 * 20 * 64 + 1, device=place.device)
    shifted = flat[1:].view(8, 20, 64)
    wide = torch.zeros(8, 20, 128, device=place.device)
    wide[..., 32:96] = shifted
    ids = torch.arange(8, device=place.device)
    beyond = ids.clone()
    beyond[2] = _BEYOND_IDS + 2
    for backend in place.backends:
        wanted = inputs._replace(hidden=shifted.clone()).step(backend, False)[0]
        for hidden in (shifted, wide[..., 32:96]):
            assert torch.equal(inputs._replace(hidden=hidden).step(backend, False)[0], wanted)
        if not place.has_card:
            continue  # where ids are looked at
        with torch.cuda.stream(torch.cuda.Stream()):
            assert torch.equal(inputs._replace(hidden=shifted).step(backend, False)[0], wanted)
        torch.cuda.synchronize()
        right = inputs.step(backend, sequence_ids=ids)
        found = inputs.step(backend, sequence_ids=beyond)
        others = ids != 2
        assert torch.equal(found[1][others], right[1][others]), f"{backend}: an id reaches others"
        depths = torch.ones_like(ids)
        depths[3] = 0
        last = inputs.step(backend, False, num_steps=depths)[0]
        assert last[depths > 0].isfinite().all()


def graphs(place: Place) -> None:
    """A warmed-up process may begin by capturing; a replay gives what a call gives."""
    program = f"from {__name__} import capture_at_once; capture_at_once({{!r}})"
    for backend in place.backends:
        done = run_here([sys.executable, "-c", program.format(backend)], _LONGEST_PROCESS)
        assert not done.wrong, f"{backend}: {done.text[-300:]}"
        inputs = Inputs.of(place, _dropping(), place.lengths)
        replay = captured(partial(inputs.step, backend))
        found = [tensor.clone() for tensor in replay()]
        assert all(map(torch.equal, found, inputs.step(backend))), f"{backend}: training differs"


def capture_at_once(backend: str) -> None:
    """Warm up, then capture the first real call of the process."""
    place = Place("cuda")
    inputs = Inputs.of(place, CoreConfig(), [20] * (3 * place.many))
    with use_backend(backend):
        warmup(inputs.core.config, 20, training=False, precision="bf16")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = inputs.step(backend, False)[0]
    graph.replay()
    assert torch.equal(found, inputs.step(backend, False)[0])


def waits(place: Place) -> None:
    """How often calls wait for the card: padded ones never."""
    inputs = Inputs.of(place, _dropping(), place.lengths)
    on_host = inputs._replace(lengths=inputs.lengths.cpu())
    calls: dict[str, Callable[[str], object]] = {
        "padded": inputs.step,
        "depths on the card": partial(inputs.step, num_steps=place.depths(place.many, 4)),
        "lengths on the host": on_host.step,
    }
    for backend in place.backends:
        for what, call in calls.items():
            call(backend)
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                try:
                    call(backend)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
            number = sum("synchroniz" in str(warning.message) for warning in seen)
            print(f"{backend}, {what}: {number} waits")
            assert number == 0 or what != "padded", f"{backend}: a padded call waits {number} times"


def kernel_times(place: Place) -> None:
    """Time by kernel of the main case and of larger batches, and what a host spends on a call."""
    sizes = (1024, 4096, 32768) if place.has_card else (6,)
    for batch in sizes:
        lengths = [(7 * i) % 20 + 1 for i in range(batch)]
        inputs = Inputs.of(place, place.case(dropped=True).config, lengths)
        for backend in place.backends:
            for training in (False, True):
                kind = "training" if training else "evaluation"
                what = f"{backend}, {batch} sequences, {kind}"
                _show(place, what, partial(inputs.step, backend, training))


def _show(place: Place, what: str, call: Callable[[], object]) -> None:
    """Print the time a call takes on the device by kernel, its launches, and the host's time."""

    def several(number: int) -> tuple[float, float]:
        """Microseconds of the host for each of so many calls, and on the clock until all are done."""
        began = time.perf_counter()
        for _ in range(number):
            call()
        host = time.perf_counter() - began
        if place.has_card:
            torch.cuda.synchronize()
        return 1e6 * host / number, 1e6 * (time.perf_counter() - began) / number

    several(3)
    host, wall = several(_TIMED_CALLS)
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if place.has_card else kinds.CPU]) as seen:
        several(_TIMED_CALLS)
    rows = sorted(seen.key_averages(), key=lambda row: row.self_device_time_total, reverse=True)
    device = sum(row.self_device_time_total for row in rows) / _TIMED_CALLS
    launches = sum(row.count for row in rows) / _TIMED_CALLS
    print(
        f"{what}: device {device:.0f} us in {launches:.0f} launches, host {host:.0f}, wall {wall:.0f}"
    )
    for row in rows[:6]:
        each = row.self_device_time_total / _TIMED_CALLS
        print(f"    {each:8.1f} us x{row.count / _TIMED_CALLS:4.1f} {row.key[:60]}")


def plans(place: Place) -> None:
    """Where Triton's plan was chosen by counting: fused and layered, beside the reference."""
    from lares_kernels.triton.launch.settings import family_of, settings, use_rules

    family = family_of(torch.device(place.device))
    rules = {"as chosen": settings(family), "layered": ()}
    for longest, precision in ((20, "fp32"), (50, "bf16")):
        inputs = Inputs.of(place, place.case(dropped=True).config, [longest] * (3 * place.many))
        for name, training in itertools.product(rules, (False, True)):
            what = f"{longest} tokens in {precision}, {name}, training {training}"
            with use_rules(family, rules[name]):
                _show(place, what, partial(inputs.step, "triton", training, precision=precision))


CHECKS = {
    "machine": Check(30, machine),
    "first-call": Check(110, first_call),
    "primitives": Check(30, primitives, needs="cuda"),
    "longer-sequences": Check(60, longer_sequences),
    "same-bits": Check(60, same_bits),
    "tiles": Check(120, tiles),
    "tf32": Check(60, tf32, needs="card"),
    "odd-inputs": Check(40, odd_inputs),
    "graphs": Check(120, graphs, needs="card"),
    "waits": Check(40, waits, needs="card"),
    "threads": Check(40, threads),
    "refused": Check(20, refused, needs="cuda"),
    "other-products-switch": Check(40, other_products_switch),
    "kernel-times": Check(60, kernel_times),
    "plans": Check(60, plans, needs="triton"),
}
