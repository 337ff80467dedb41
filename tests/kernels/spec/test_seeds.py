"""Where a call's seed comes from, and that a forward that runs again draws the same."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from lares_kernels import RecurrentCore, from_torch, refine_states, use_backend
from lares_kernels.binding.cpu_library import load
from lares_kernels.operators.refine import make_call
from lares_kernels.spec import seeds
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.seeds import DrawSeeds, drawn_seed, seed_for, seed_memory, seed_tensor
from tests.kernels.problems import SMALL, make_core

NOISY = replace(SMALL, dropout=0.5, attn_dropout=0.25, inner_dropout=0.25)
BACKENDS = ["reference", "equations"] + ([] if isinstance(load(), str) else ["cpu"])
backends = pytest.mark.parametrize("backend", BACKENDS)
LENGTHS = torch.tensor([3, 1, 4])
CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


def noisy_core() -> RecurrentCore:
    core = RecurrentCore(NOISY)
    core.load_state_dict(make_core(NOISY).state_dict())
    return core


def hidden_rows() -> Tensor:
    return torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(4))


def encoder(seed: int | None = None) -> nn.Module:
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.5, batch_first=True)
    return from_torch(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), seed=seed)


@backends
def test_a_seed_is_drawn_in_training_and_zero_in_evaluation(backend: str) -> None:
    core, hidden = noisy_core(), hidden_rows()
    with use_backend(backend):
        torch.manual_seed(5)
        first, second = (core(hidden, LENGTHS, num_steps=2).last for _ in range(2))
        assert not torch.equal(first, second)
        torch.manual_seed(5)
        assert torch.equal(core(hidden, LENGTHS, num_steps=2).last, first)
        assert torch.equal(core(hidden, LENGTHS, num_steps=2).last, second)
        core.eval()
        state = torch.get_rng_state()
        for given in (None, 0):
            found = core(hidden, LENGTHS, num_steps=2, seed=given).last
            assert torch.equal(found, core(hidden, LENGTHS, num_steps=2).last)
        assert torch.equal(torch.get_rng_state(), state)


@backends
@pytest.mark.parametrize("training", [True, False])
def test_numbers_and_tensors_are_the_same_seed(backend: str, training: bool) -> None:
    core, hidden = noisy_core().train(training), hidden_rows()

    def run(seed: Any) -> Tensor:
        with torch.no_grad():
            return core(hidden, LENGTHS, num_steps=2, seed=seed).last

    with use_backend(backend):
        for seed in (7, (1 << 63) + 11, -(1 << 63)):
            wanted = run(seed)
            signed = seed - (1 << 64) if seed >= 1 << 63 else seed
            same = [torch.tensor(signed), torch.tensor([[signed]]), np.int64(signed)]
            if seed >= 0:
                same += [torch.tensor(seed, dtype=torch.uint64), np.uint64(seed)]
            if 0 <= seed < 128:
                same += [torch.tensor(seed, dtype=torch.int8)]
            for other in same:
                assert torch.equal(run(other), wanted), repr(other)
        assert not torch.equal(run(7), run((1 << 63) + 7))


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (1 << 64, ValueError, "seed is 18446744073709551616; it must be a number of 64 bits"),
        (-(1 << 63) - 1, ValueError, "it must be a number of 64 bits"),
        (1.0, TypeError, "seed is 1.0; it must be a whole number"),
        (True, TypeError, "seed is True"),
        ("1", TypeError, "seed is '1'"),
        (torch.tensor(1.0), ValueError, r"seed has shape \(\) of torch.float32"),
        (torch.tensor([1, 2]), ValueError, r"seed has shape \(2,\)"),
        (torch.tensor(True), ValueError, "of torch.bool"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_what_is_no_seed(seed: Any, error: type, message: str, training: bool) -> None:
    core = noisy_core().train(training)
    with pytest.raises(error, match=message):
        core(hidden_rows(), seed=seed)


def test_all_parts_of_a_run_draw_by_one_seed() -> None:
    core, hidden = noisy_core(), hidden_rows()[0]
    offsets = torch.tensor([0, 3, 4])
    torch.manual_seed(3)
    cut = refine_states(core, hidden, offsets, [1, 3])
    torch.manual_seed(3)
    whole = core(hidden, cu_seqlens=offsets, num_steps=3, return_state=True)
    torch.testing.assert_close(cut[-1], whole.state)


def gradients(
    run: Callable[[Tensor], Tensor], module: nn.Module, around: Callable[..., Tensor]
) -> list[Tensor]:
    torch.manual_seed(8)
    x = hidden_rows().requires_grad_()
    out = around(run, x * 1.0)
    loss = (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum()
    return [out.detach(), *torch.autograd.grad(loss, [x, *module.parameters()])]


@backends
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["core", "encoder"])
def test_activation_checkpointing(kind: str, reentrant: bool, backend: str) -> None:
    module: Any = noisy_core() if kind == "core" else encoder()
    assert module.training

    def run(x: Tensor) -> Tensor:
        if kind == "encoder":
            return module(x, is_causal=True)
        return module(x, LENGTHS, num_steps=3, return_state=True).state

    def recomputed(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return checkpoint(run, x, use_reentrant=reentrant)

    with use_backend(backend):
        wanted = gradients(run, module, lambda run, x: run(x))
        if reentrant:  # which loses gradients of what is no argument, unless these are leaves
            module.zero_grad()
            torch.manual_seed(8)
            x = hidden_rows().requires_grad_()
            out = recomputed(run, x * 1.0)
            (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
            found = [out.detach(), x.grad, *(p.grad for p in module.parameters())]
        else:
            found = gradients(run, module, recomputed)
    for mine, exact in zip(found, wanted, strict=True):
        assert torch.equal(mine, exact)


@pytest.mark.parametrize("reentrant", [True, False])
def test_counted_seeds_say_that_they_cannot_be_drawn_again(reentrant: bool) -> None:
    module = encoder(seed=3)
    x = hidden_rows().requires_grad_()
    out = checkpoint(lambda x: module(x, is_causal=True), x * 1.0, use_reentrant=reentrant)
    with pytest.raises(RuntimeError, match=r"seeds are counted and it would take the next, 4"):
        out.sum().backward()


def test_counted_seeds() -> None:
    counted = DrawSeeds((1 << 63) - 1)
    assert [int(counted.take()) for _ in range(2)] == [(1 << 63) - 1, -(1 << 63)]
    twin = copy.deepcopy(counted)
    assert int(twin.take()) == int(counted.take())
    assert DrawSeeds().next is None


def test_threads_take_different_seeds() -> None:
    seeds, interval = DrawSeeds(0), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: int(seeds.take()), range(4000)))
    finally:
        sys.setswitchinterval(interval)
    assert sorted(found) == list(range(4000))
    assert seeds.next == 4000


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_seeds_are_counted_in_inference_mode_and_outside(
    made: bool, copied: bool, taken: bool
) -> None:
    with torch.inference_mode(made):
        seeds = DrawSeeds(torch.tensor(5))
    with torch.inference_mode(copied):
        seeds = copy.deepcopy(seeds)
    for number in range(5, 8):
        with torch.inference_mode(taken if number < 7 else not taken):
            assert int(seeds.take()) == number
    assert int(pickle.loads(pickle.dumps(seeds)).take()) == 8


@pytest.mark.parametrize("kind", ["core", "encoder", "counted", "given"])
def test_no_step_compiles_anew(kind: str) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    module: Any = (
        noisy_core() if kind in ("core", "given") else encoder(5 if kind == "counted" else None)
    )
    x = hidden_rows()

    def step(seed: Tensor) -> Tensor:
        if kind == "core":
            return module(x, LENGTHS, num_steps=2).last
        if kind == "given":
            return module(x, LENGTHS, num_steps=2, seed=seed).last
        return module(x, is_causal=True)

    compiled = torch.compile(step, backend=counter, fullgraph=True)
    seen = [compiled(torch.tensor(number)) for number in range(4)]
    assert counter.frame_count == 1
    for number, out in enumerate(seen):
        assert all(not torch.equal(out, other) for other in seen[:number])


def test_a_compiled_step_draws_as_an_eager_one() -> None:
    torch._dynamo.reset()
    core, hidden = noisy_core(), hidden_rows()
    compiled = torch.compile(core, backend="aot_eager", fullgraph=True)
    found = []
    for run in (core, compiled):
        torch.manual_seed(2)
        x = hidden.clone().requires_grad_()
        last = [run(x, LENGTHS, num_steps=2).last for _ in range(2)]
        found.append([*last, *torch.autograd.grad(last[0].sin().sum(), [x, *core.parameters()])])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_numbers_past_63_bits_compile() -> None:
    torch._dynamo.reset()
    core, hidden = noisy_core(), hidden_rows()
    compiled = torch.compile(core, backend="eager", fullgraph=True)
    for seed in (3, 4, (1 << 63) + 5, (1 << 63) + 6):
        found = compiled(hidden, LENGTHS, num_steps=2, seed=seed).last
        torch.testing.assert_close(found, core(hidden, LENGTHS, num_steps=2, seed=seed).last)


def test_func_grad_draws() -> None:
    core, hidden = noisy_core(), hidden_rows()

    def loss(hidden: Tensor) -> Tensor:
        return core(hidden, LENGTHS, num_steps=2).last.sin().sum()

    torch.manual_seed(6)
    found = torch.func.grad(loss)(hidden)
    torch.manual_seed(6)
    x = hidden.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(loss(x), [x])[0])
    with use_backend("equations"), pytest.raises(RuntimeError, match="seed is None, and .*vmap"):
        torch.func.vmap(loss)(hidden[None])


def test_kernels_get_the_seed_in_memory() -> None:
    for seed in (7, (1 << 63) + 11):
        with torch.inference_mode():
            memory = seed_memory(seed, CPU)
        assert int(memory) % (1 << 64) == seed
        assert not memory.is_inference()
        assert seed_memory(seed, CPU) is memory  # for backward
    given = torch.tensor(5)
    assert seed_memory(given, CPU).data_ptr() == given.data_ptr()


def test_a_seed_on_a_card_is_not_read() -> None:
    """Fake tensors raise where a number is asked of them."""
    with FakeTensorMode():
        hidden = torch.empty(2, 3, 16, device="cuda")
        lengths = torch.empty(2, dtype=torch.int64, device="cuda")
        for dtype in (torch.int64, torch.int32):
            seed = torch.empty((), dtype=dtype, device="cuda")
            options = CallOptions(
                NOISY.key, "reference", "fp32", max_steps=2, dropout=True, differentiates=True,
                keeps_padding=True,
            )  # fmt: skip
            call = make_call(hidden, CallTensors(lengths, None, None, seed), options)
            for found in (call.seed, call.seed_memory):
                assert (found.shape, found.dtype, found.device) == ((), torch.int64, hidden.device)


def test_where_a_seed_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    capturing, compiling = [False], [False]
    monkeypatch.setattr(seeds, "is_capturing", lambda kind: kind == "cuda" and capturing[0])
    monkeypatch.setattr(seeds, "is_compiling", lambda: compiling[0])
    with FakeTensorMode():
        for capturing[0], compiling[0] in ((False, False), (True, False), (False, True)):
            on_card = capturing[0] or compiling[0]
            assert drawn_seed(CARD).device.type == ("cuda" if on_card else "cpu")
            assert drawn_seed(CPU).device.type == "cpu"
        # Programs for a card are to hold no tensor on the CPU, which would keep them out of graphs.
        assert seed_tensor(3, CARD).device.type == "cuda"
        for other in (CPU, torch.device("meta")):
            assert seed_tensor(3, other).device.type == "cpu"


def test_what_a_captured_graph_would_repeat_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "is_capturing", lambda kind: kind == "cuda")
    said = "on cpu, which the host reads once: .* give a tensor on cuda:0, which is read at each"
    with pytest.raises(RuntimeError, match=said):
        seed_for(torch.tensor(3), CARD)
    assert seed_for(3, CARD) == 3
    assert seed_for(torch.tensor(3), CPU) == 3


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "equations"])
def test_a_seed_that_is_changed_before_backward_is_told(backend: str) -> None:
    core, hidden, seed = noisy_core(), hidden_rows(), torch.tensor(3)
    with use_backend(backend):
        loss = core(hidden, LENGTHS, num_steps=2, seed=seed).last.sum()
        seed.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
