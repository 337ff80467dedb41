"""Inference on the CPU, the second time: the same bits, the same complaints, and the short way."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lares_kernels import CoreConfig, RecurrentCore, RefineOutput, function, refine, use_backend
from lares_kernels.cpu import repeated_calls as repeated
from lares_kernels.cpu import tensor_reader as look
from tests.kernels.problems import SMALL, VARIANTS, make_core, name
from tests.kernels.tools import NEEDS_CPU_KERNEL

pytestmark = NEEDS_CPU_KERNEL

WINDOWED = [
    CoreConfig(16, 2, 24, 2, mixer=mixer, window=9, adapter=adapter)
    for mixer in ("filter", "bsarec")
    for adapter in ("add", "concat")
]
LENGTHS = torch.tensor([1, 5, 3, 9])


@pytest.fixture(autouse=True, params=["library", "Python"])
def looks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What looks at the tensors; with nothing kept."""
    if request.param == "Python":
        monkeypatch.setattr(look, "_reader", lambda: None)
    elif look._reader() is None:
        pytest.skip("torch has no exchange table that we know")
    repeated._kept.clear()
    with torch.no_grad(), use_backend("cpu"):
        yield request.param
    repeated._kept.clear()


def problem(config: CoreConfig = SMALL) -> tuple[RecurrentCore, Tensor]:
    core = make_core(config).float().eval()
    return core, torch.randn(4, 9, config.d_model, generator=torch.Generator().manual_seed(5))


def tensors_of(out: RefineOutput) -> list[Tensor]:
    return [part for part in out if part is not None]


def forbid_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the call went the long way")

    monkeypatch.setattr(function, "check_hidden", refuse)


@pytest.mark.parametrize("config", [*VARIANTS, *WINDOWED], ids=lambda c: f"{name(c)}-{c.mixer}")
def test_the_same_bits(config: CoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem(config)
    depth = 3 if config.is_recurrent else 1
    calls: list[dict[str, Any]] = [
        {},
        {"lengths": LENGTHS},
        {"lengths": LENGTHS, "sequence_ids": torch.tensor([7, 0, 1 << 23, 2])},
        {"state": "zero", "return_state": True},
        {"seed": -3, "return_trajectory": True},
        {"seed": (1 << 64) - 5, "lengths": LENGTHS, "return_state": True},
        {"precision": "bf16"},
    ]
    wanted = [tensors_of(core(hidden, num_steps=depth, **call)) for call in calls]
    repeated._kept.clear()
    for call in calls:
        core(hidden + 1, num_steps=depth, **call)
    forbid_the_long_way(monkeypatch)
    for call, exact in zip(calls, wanted, strict=True):
        found = tensors_of(core(hidden, num_steps=depth, **call))
        assert len(found) == len(exact)
        assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True)), call


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_one_packed_sequence(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem()
    packed, offsets = hidden[0], torch.tensor([0, 9], dtype=dtype)
    call = {"cu_seqlens": offsets, "num_steps": 3, "sequence_ids": torch.tensor([5])}
    wanted = core(packed, **call, return_state=True)
    core(packed, **call)
    for bad, message in (
        ({"cu_seqlens": torch.tensor([0, 8])}, "8 tokens in all .* hidden has 9 rows"),
        ({"cu_seqlens": torch.tensor([1, 9])}, "cu_seqlens runs from 1 to 9"),
        ({"cu_seqlens": torch.tensor([0.0, 9.0])}, "cu_seqlens must be a vector"),
        ({"cu_seqlens": None}, "needs either lengths"),
        ({"cu_seqlens": None, "lengths": torch.tensor([8])}, "8 tokens in all .* has 9 rows"),
        ({"cu_seqlens": None, "lengths": torch.tensor([[9]])}, "lengths must hold"),
        ({"cu_seqlens": None, "lengths": torch.tensor([]).long()}, "lengths must hold"),
        ({"cu_seqlens": None, "lengths": torch.tensor([5, 4])}, "whole numbers of shape"),
        ({"lengths": torch.tensor([9])}, "and not both"),
        ({"hidden": hidden}, "cu_seqlens goes with packed"),
    ):
        with pytest.raises(ValueError, match=message):
            core(**{"hidden": packed, **call, **bad})
    forbid_the_long_way(monkeypatch)
    found = core(packed, **call, return_state=True)
    assert torch.equal(found.last, wanted.last)
    assert torch.equal(found.state, wanted.state)
    assert torch.equal(core(packed, **call).last, wanted.last)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.complex64])
def test_offsets_that_are_no_whole_numbers(dtype: torch.dtype) -> None:
    core, hidden = problem()
    packed = hidden[0, :1]
    core(packed, cu_seqlens=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="cu_seqlens must be a vector of at least two whole"):
        core(packed, cu_seqlens=torch.tensor([0, 1]).to(dtype))
    with pytest.raises(ValueError, match="cu_seqlens must be a vector of at least two whole"):
        core(packed, cu_seqlens=torch.tensor([0, 1]).to_sparse())


@pytest.mark.parametrize("lengths", [[9], [1, 5, 3, 9], [2] * 40])
@pytest.mark.parametrize("packed_by", ["lengths", "cu_seqlens"])
def test_any_number_of_packed_sequences(
    lengths: list[int], packed_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, hidden = problem()
    core(hidden[0], torch.tensor([4, 5]), num_steps=3)
    sizes = torch.tensor(lengths)
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int()
    rows = torch.randn(sum(lengths), 16)
    given = {"lengths": sizes} if packed_by == "lengths" else {"cu_seqlens": offsets}
    ids = torch.arange(len(lengths)) + 3
    with use_backend("reference"):
        wanted = core(rows, **given, num_steps=3, sequence_ids=ids, return_trajectory=True)
    forbid_the_long_way(monkeypatch)
    found = core(rows, **given, num_steps=3, sequence_ids=ids, return_trajectory=True)
    torch.testing.assert_close(found.trajectory, wanted.trajectory)
    torch.testing.assert_close(found.last, wanted.last)


def test_windows_of_another_width_are_refused() -> None:
    core, hidden = problem(WINDOWED[0])
    core(hidden)
    with pytest.raises(ValueError, match="window"):
        core(hidden[:, :8].contiguous())


def test_another_call_is_no_repeat() -> None:
    """What changes the result changes the signature, or goes the long way."""
    core, hidden = problem()
    core(hidden, num_steps=3)
    others: list[dict[str, Any]] = [
        {"num_steps": 4},
        {"num_steps": torch.tensor([1, 2, 3, 1])},
        {"state": "zero"},
        {"state": hidden},
        {"rollouts": 2},
        {"state": hidden, "steps_done": 5},
    ]
    for other in others:
        found = core(hidden, **{"num_steps": 3, **other}).last
        with use_backend("reference"):
            wanted = core(hidden, **{"num_steps": 3, **other}).last
        torch.testing.assert_close(found, wanted)


def test_parameters_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem()
    before = core(hidden, num_steps=3).last

    def check() -> None:
        with use_backend("reference"):
            wanted = core(hidden, num_steps=3).last
        assert not torch.allclose(wanted, before)
        torch.testing.assert_close(core(hidden, num_steps=3).last, wanted)

    core.up_weight.mul_(2)
    check()
    core.up_weight = torch.nn.Parameter(torch.randn(2, 24, 16))
    check()
    core.out_weight.data = core.out_weight.data.mT  # the same place and shape, another order
    check()
    core.down_weight.data = core.down_weight.data.double()
    check()
    core.down_weight.data = core.down_weight.data.float()
    check()
    core.up_bias.data = torch._neg_view(core.up_bias.data.clone())
    check()
    mapping = dict(reversed(list(core.named_parameters())))
    wanted = core(hidden, num_steps=3).last
    assert torch.equal(refine(SMALL, mapping, hidden, num_steps=3).last, wanted)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lengths": torch.tensor([1, 0, 3, 9])}, ValueError, "sequence 1 has length 0"),
        ({"lengths": torch.tensor([1, 5, 3, 10])}, ValueError, "sequence 3 has length 10"),
        ({"lengths": torch.tensor([1, 5, 3])}, ValueError, "lengths must hold 4 whole numbers"),
        ({"lengths": LENGTHS.double()}, ValueError, "lengths must hold 4 whole numbers"),
        ({"lengths": [1, 5, 3]}, ValueError, "lengths must hold 4 whole numbers"),
        ({"lengths": [1, 5, 3, 10]}, ValueError, "sequence 3 has length 10"),
        ({"sequence_ids": torch.tensor([0, 1, 2, 1 << 24])}, ValueError, "in 0..16777215"),
        ({"sequence_ids": torch.tensor([0, 1])}, ValueError, "whole numbers of shape"),
        ({"num_steps": 0}, ValueError, "num_steps is 0"),
        ({"num_steps": 1 << 16}, ValueError, "num_steps is 65536"),
        ({"state": "ones"}, ValueError, "state is 'ones'"),
        ({"precision": "int8"}, ValueError, "precision is 'int8'"),
        ({"cu_seqlens": torch.tensor([0, 4])}, ValueError, "cu_seqlens goes with packed"),
        ({"hidden": torch.zeros(4, 9, 8)}, ValueError, "hidden has shape (4, 9, 8)"),
        ({"hidden": torch.zeros(4, 9)}, ValueError, "hidden has shape (4, 9)"),
        ({"hidden": torch.zeros(4, 9, 16, dtype=torch.int64)}, TypeError, "hidden is torch.int64"),
    ],
)
def test_the_same_complaints(change: dict[str, Any], error: Any, message: str) -> None:
    core, hidden = problem()
    call = {"hidden": hidden, "lengths": LENGTHS, "num_steps": 3}
    core(**call)
    with pytest.raises(error) as caught:
        core(**{**call, **change})
    assert message in str(caught.value)
    assert torch.isfinite(core(**call).last).all()  # no error is left behind


@pytest.mark.parametrize("name", ["rollouts", "steps_done", "num_steps"])
@pytest.mark.parametrize(
    "wrong", [True, False, np.True_, 1.0, 0.0, None, "1", torch.tensor(True), torch.tensor(1.0)]
)
def test_what_equals_a_whole_number_is_none(name: str, wrong: object) -> None:
    core, hidden = problem()
    for _ in range(2):
        core(hidden, num_steps=1)
        with pytest.raises((TypeError, ValueError), match=f"{name} is "):
            core(hidden, **{"num_steps": 1, name: wrong})


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor, np.array])
def test_whole_numbers_of_every_kind_are_numbers(kind: Any) -> None:
    core, hidden = problem()
    wanted = core(hidden, num_steps=3).last
    for _ in range(2):
        found = core(hidden, num_steps=kind(3), rollouts=kind(1), steps_done=kind(0), seed=kind(0))
        assert torch.equal(found.last, wanted)
    later = core(hidden, num_steps=3, state=hidden, steps_done=2).last
    assert torch.equal(
        core(hidden, num_steps=kind(3), state=hidden, steps_done=kind(2)).last, later
    )
    both = core(hidden, num_steps=3, rollouts=2).last
    assert torch.equal(core(hidden, num_steps=kind(3), rollouts=kind(2)).last, both)


def without_memory(tensor: Tensor) -> Tensor:
    """As fully sharded parameters are between calls."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bias: bias[:, :7], r"up_bias has shape \(2, 7\)"),
        (lambda bias: bias.view(24, 2), r"up_bias has shape \(24, 2\)"),  # where it lay before
        (lambda bias: bias.to("meta"), "parameter up_bias is on meta, but hidden on cpu"),
        (lambda bias: bias[:, :0], r"up_bias has shape \(2, 0\)"),
        (lambda bias: without_memory(bias), "parameter up_bias has no memory"),
    ],
)
def test_parameters_that_no_longer_fit(change: Any, message: str) -> None:
    core, hidden = problem()
    parameters = dict(core.named_parameters())
    refine(SMALL, parameters, hidden)
    parameters["up_bias"] = change(parameters["up_bias"].detach())
    with pytest.raises(ValueError, match=message):
        refine(SMALL, parameters, hidden)
    del parameters["up_bias"]
    with pytest.raises(ValueError, match=r"missing \['up_bias'\]"):
        refine(SMALL, parameters, hidden)


def test_numbers_that_lie_otherwise() -> None:
    core, hidden = problem()
    wanted = core(hidden, LENGTHS, num_steps=3).last
    apart = torch.stack([LENGTHS, LENGTHS], 1)[:, 0]
    for lengths in (apart, LENGTHS.int(), LENGTHS.tolist()):
        assert torch.equal(core(hidden, lengths, num_steps=3).last, wanted)
    transposed = hidden.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(core(transposed, LENGTHS, num_steps=3).last, wanted)
    half = core(hidden.bfloat16(), LENGTHS, num_steps=3).last
    assert half.dtype == torch.bfloat16


def test_strides_of_dimensions_of_one_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem()
    wanted = core(hidden[:1, :5].clone(), num_steps=3).last
    forbid_the_long_way(monkeypatch)
    cut = hidden[:1, :5]
    assert cut.stride() == (9 * 16, 16, 1)
    assert torch.equal(core(cut, num_steps=3).last, wanted)


def test_views_that_are_negated_as_they_are_read() -> None:
    """The imaginary part of a conjugate lies in memory with the other sign."""
    core, hidden = problem(replace(SMALL, adapter="gate"))
    parameters = dict(core.named_parameters())
    pair = torch.view_as_complex(torch.stack([hidden, hidden], -1))
    scalar = pair.flatten()[0]
    last: list[Tensor] = []
    for gate in (scalar.imag, scalar.conj().imag, scalar.imag, scalar.conj().imag):
        assert gate.is_contiguous()
        last.append(refine(core.config, {**parameters, "gate": gate}, hidden).last)
    negative = {**parameters, "gate": -scalar.imag.clone()}
    assert torch.equal(last[1], refine(core.config, negative, hidden).last)
    assert torch.equal(last[1], last[3])
    assert torch.equal(last[0], last[2])
    assert not torch.equal(last[0], last[1])

    wanted = core(-hidden, num_steps=3).last
    for view in (pair.conj().imag, torch._neg_view(hidden)):
        assert view.is_neg()
        assert torch.equal(core(view, num_steps=3).last, wanted)


def test_parameters_of_a_subclass_take_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Tensor):
        pass

    core, hidden = problem()
    parameters = dict(core.named_parameters())
    wanted = refine(SMALL, parameters, hidden).last
    changed = {**parameters, "up_bias": parameters["up_bias"].detach().as_subclass(Other)}
    assert torch.equal(refine(SMALL, changed, hidden).last, wanted)
    forbid_the_long_way(monkeypatch)
    with pytest.raises(AssertionError, match="long way"):
        refine(SMALL, changed, hidden)


def test_parameters_with_and_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem()
    wanted = core(hidden, num_steps=3).last
    forbid_the_long_way(monkeypatch)
    core.requires_grad_(False)
    assert torch.equal(core(hidden, num_steps=3).last, wanted)
    found = core(hidden.clone().requires_grad_(), num_steps=3).last
    assert torch.equal(found, wanted)
    assert not found.requires_grad


def test_one_step_is_all_of_a_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    core, hidden = problem()
    wanted = core(hidden, return_trajectory=True)
    forbid_the_long_way(monkeypatch)
    found = core(hidden, return_trajectory=True)
    assert found.trajectory.shape == (4, 1, 16)
    assert torch.equal(found.trajectory, wanted.trajectory)
    assert torch.equal(found.last, wanted.last)
    assert core(hidden).trajectory is None


def test_only_inference_is_a_repeat() -> None:
    core, hidden = problem(replace(SMALL, dropout=0.5))
    plain = core(hidden, num_steps=3).last
    with torch.enable_grad():
        core(hidden, num_steps=3).last.sum().backward()
    assert core.up_weight.grad is not None
    assert core.up_weight.grad.abs().sum() > 0
    core.train()
    assert not torch.equal(core(hidden, num_steps=3).last, plain)
    core.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert not repeated.signature_of(core.config, hidden, 3, None, False, None)


def test_what_wants_to_see_the_operator_sees_it() -> None:
    core, hidden = problem()
    wanted = core(hidden, num_steps=3).last
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        core(hidden, num_steps=3)
    assert "lares_kernels.refine.default" in seen
    with torch.profiler.profile() as profile:
        core(hidden, num_steps=3)
    assert "lares_kernels::refine" in {event.name for event in profile.events()}
    compiled = torch.compile(core, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(hidden, num_steps=3).last, wanted)


def test_there_is_an_end_to_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "_MAX_CACHED", 3)
    core, hidden = problem()
    wanted = core(hidden, num_steps=2).last
    for steps in range(1, 9):
        core(hidden, num_steps=steps)
        assert len(repeated._kept) <= 3
    assert torch.equal(core(hidden, num_steps=2).last, wanted)


def test_from_several_threads() -> None:
    core, hidden = problem()
    wanted = [core(hidden, num_steps=3, seed=seed).last for seed in range(8)]

    def run(number: int) -> bool:
        with torch.no_grad(), use_backend("cpu"):
            found = core(hidden, num_steps=3, seed=number % 8).last
        return torch.equal(found, wanted[number % 8])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(400)))


def test_another_thread_replaces_parameters() -> None:
    """A call runs on the parameters that it found, though nobody else keeps them."""
    core, hidden = problem(replace(SMALL, d_ff=4096))
    weights = [torch.full_like(core.up_weight, value) for value in (0.25, -0.5)]
    wanted = []
    for weight in weights:
        core.up_weight = torch.nn.Parameter(weight.clone())
        wanted.append(core(hidden, num_steps=3).last)
    done = threading.Event()

    def replace_all_the_time() -> None:
        for number in itertools.count():
            if done.is_set():
                return
            core.up_weight = torch.nn.Parameter(weights[number % 2].clone())

    with ThreadPoolExecutor(1) as pool:
        replacing = pool.submit(replace_all_the_time)
        try:
            found = [core(hidden, num_steps=3).last for _ in range(200)]
        finally:
            done.set()
        replacing.result()
    assert all(any(torch.equal(last, each) for each in wanted) for last in found)
