"""The low-latency plan of the CUDA kernels, run by the emulator, against the equations in float64.

The emulated card has two multiprocessors, so calls of one or two sequences take it.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from lares_kernels import CoreConfig, explain, use_backend, warmup
from lares_kernels.binding import cuda_library as lib
from lares_kernels.cuda import backend as cuda_backend
from lares_kernels.cuda.packing import packing, places_of
from lares_kernels.cuda.plan import LaunchPlan
from lares_kernels.spec.parameters import parameter_shapes
from tests.kernels.cuda.test_emulated import check, each_shape, outputs
from tests.kernels.problems import exact_problem, relative

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")

SMALL = CoreConfig(d_model=32, n_heads=2, d_ff=40, n_layers=1)


def test_explain_names_the_plan() -> None:
    with use_backend("cuda"):
        few = explain(CoreConfig(), [20], 4, precision="bf16")
        many = explain(CoreConfig(), [20, 7, 9], 4, precision="bf16")
    assert "low-latency" in few.plan
    assert "one launch" in few.plan
    assert "low-latency" not in many.plan


@pytest.mark.parametrize("packed", [False, True])
def test_warming_up_is_of_few_and_of_many(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not warmed up is loaded by the first batch, maybe inside of a graph that is captured."""
    plans = set()

    def seen(*given: object, **named: object) -> LaunchPlan:
        plan = plan_of(*given, **named)
        plans.add((bool(plan.split_parts), named.get("backward", given[3:] == (True,))))
        return plan

    plan_of = cuda_backend.plan_of
    monkeypatch.setattr(cuda_backend, "plan_of", seen)
    emulated = lib.card(0).multiprocessors
    monkeypatch.setattr(
        importlib.import_module("lares_kernels.warmup"), "_multiprocessors", lambda device: emulated
    )
    with use_backend("cuda"):
        warmup(SMALL, 9, "cpu", training=False, packed=packed, precision="bf16")
        assert plans == {(True, False), (False, False)}
        warmup(replace(SMALL, dropout=0.5), 9, "cpu", packed=packed, precision="bf16")
    assert (False, True) in plans


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter", ["gate", "concat", "none"])
def test_parameters_are_packed(adapter: str, dtype: torch.dtype) -> None:
    """As by a gather of PyTorch's; parameters of other types and strides are taken, too."""
    config = replace(SMALL, adapter=adapter)
    parameters = [torch.randn(shape) for shape in parameter_shapes(config).values()]
    parameters[0] = parameters[0].mT.contiguous().mT
    parameters[1] = parameters[1].double()
    flat = torch.cat([torch.zeros(1), *(p.reshape(-1).float() for p in parameters)])
    wanted = flat[places_of(config, torch.device("cpu")).places]
    to_pack = packing(config, parameters, dtype)
    to_pack.run()
    packed = to_pack.packed
    size = packed.matrices.numel()
    assert torch.equal(packed.matrices.flatten(), wanted[:size].to(dtype))
    assert torch.equal(packed.vectors, wanted[size:])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(precision: str, depth: int) -> None:
    check(CoreConfig(), [20], precision, num_steps=depth, seed=2**63 + 5)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm(adapter: str, norm: str) -> None:
    check(replace(SMALL, adapter=adapter, norm=norm), [19, 4])


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "silu"])
def test_every_activation(activation: str) -> None:
    check(replace(SMALL, activation=activation), [7], "fp16")


@each_shape((128, 4, 512, 1), (128, 8, 64, 1))
def test_every_shape(width: int, heads: int, inner: int, layers: int) -> None:
    check(CoreConfig(width, heads, inner, layers), [18, 32], "fp16")


@pytest.mark.parametrize("length", [1, 16, 17, 33, 64])
def test_sequences_of_every_length(length: int) -> None:
    check(SMALL, [length, max(1, length // 3)])


@pytest.mark.parametrize("rollouts", [1, 2])
def test_depths_rollouts_and_packed_sequences(rollouts: int) -> None:
    """Of the same bits padded and packed; a sequence that is done repeats its last state."""
    lengths = [9, 21][: 2 // rollouts]
    core, hidden, sizes = exact_problem(SMALL, lengths)
    depths = torch.tensor([[3, 1], [1, 2]])[: len(lengths), :rollouts]
    ids = torch.tensor([7, 2**24 - 1])[: len(lengths)]
    options = {"num_steps": depths, "rollouts": rollouts, "sequence_ids": ids}
    check(SMALL, lengths, **options)
    core, hidden = core.float(), hidden.float()
    rows = torch.cat([row[:n] for row, n in zip(hidden, lengths, strict=True)])
    offsets = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).int()
    options["precision"] = "bf16"
    with use_backend("cuda"), torch.no_grad():
        padded = core(hidden, sizes, return_trajectory=True, **options)
        packed = core(rows, cu_seqlens=offsets, return_trajectory=True, **options)
    assert torch.equal(padded.trajectory, packed.trajectory)


def test_given_state_zero_state_and_newest_rows_alone() -> None:
    core, hidden, sizes = exact_problem(SMALL, [40, 17])
    core, hidden = core.float(), hidden.float()
    for state in (torch.randn_like(hidden), "zero"):
        given = {"num_steps": 2, "state": state}
        with use_backend("equations"):
            wanted = outputs(core, hidden, sizes, **given)
        with use_backend("cuda"), torch.no_grad():
            found = outputs(core, hidden, sizes, precision="fp16", **given)
            alone = core(hidden, sizes, precision="fp16", return_trajectory=True, **given)
        for mine, exact in zip(found, wanted, strict=True):
            assert relative(mine, exact) < 5e-3
        assert torch.equal(alone.trajectory, found[0])


def test_the_drawn_state_and_the_result_are_those_of_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core, hidden, sizes = exact_problem(CoreConfig(), [33, 50])
    core, hidden = core.float(), hidden.float()
    with use_backend("cuda"), torch.no_grad():
        split = outputs(core, hidden, sizes, num_steps=2, precision="fp16")
        monkeypatch.setattr(cuda_backend, "split_plan", lambda *_: None)
        tiles = outputs(core, hidden, sizes, num_steps=2, precision="fp16")
    for mine, other in zip(split, tiles, strict=True):
        assert relative(mine, other) < 1e-3
