"""``torch.ops.lares_kernels``: a wrong call is an error of one line, and layouts make no difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import lares_kernels as lk
from lares_kernels.binding.cpu_library import load
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.parameters import parameter_shapes
from tests.kernels.problems import SMALL, make_core

BACKENDS = ["reference"] + ([] if isinstance(load(), str) else ["cpu"])
backends = pytest.mark.parametrize("backend", BACKENDS)
Arguments = dict[str, Any]


def forward_arguments(backend: str, packed: bool = False, rollouts: int = 1) -> Arguments:
    core = make_core(SMALL).float()
    rows = (8, 16) if packed else (3, 4, 16)
    return {
        "hidden": torch.randn(rows),
        "state": torch.randn(8 * rollouts, 16) if packed else torch.randn(3, 4, 16),
        "parameters": [p.detach() for p in core.parameters()],
        "lengths": torch.tensor([3, 1, 4]),
        "num_steps": torch.tensor([2, 1, 2]).repeat_interleave(rollouts),
        "sequence_ids": torch.tensor([5, 0, 9]),
        "seed": torch.tensor(7),
        "config": SMALL.key,
        "backend": backend,
        "precision": "fp32",
        "rollouts": rollouts,
        "max_steps": 2,
        "steps_done": 0,
        "dropout": False,
        "zero_state": False,
        "wants_state": True,
        "differentiates": True,
        "keeps_padding": False,
        "max_length": 0,
    }


def backward_arguments(backend: str) -> Arguments:
    given = forward_arguments(backend)
    trajectory, state, kept = forward(given)
    return {
        **given,
        "kept": kept,
        "g_trajectory": torch.randn(trajectory.shape),
        "g_state": torch.randn(state.shape),
    }


def forward(given: Arguments) -> Any:
    return torch.ops.lares_kernels.refine(*given.values())


def backward(given: Arguments) -> Any:
    return torch.ops.lares_kernels.refine_backward(*given.values())


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Arguments], Arguments]:
    return lambda given: {**given, name: change(given[name])}


def one_parameter(change: Callable[[Tensor], Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
    return lambda given: [change(given[0]), *given[1:]]


WRONG: list[tuple[Callable[[Arguments], Arguments], str]] = [
    (changed("hidden", lambda t: t[..., :8]), "hidden has shape"),
    (changed("hidden", lambda t: t.long()), "hidden is torch.int64"),
    (changed("hidden", lambda t: t.to(torch.complex64)), "hidden is torch.complex64"),
    (changed("hidden", lambda t: t.to_sparse()), "hidden is torch.sparse_coo"),
    (changed("hidden", lambda t: t[:2]), "lengths must hold whole numbers of shape"),
    (changed("hidden", lambda t: t[:, :3]), "state has shape"),
    (changed("state", lambda t: t[:, :, :15]), "state has shape"),
    (changed("state", lambda t: t.flatten()), "state has shape"),
    (changed("state", lambda t: t.int()), "state must be floating point"),
    (changed("state", lambda t: t.to_sparse()), "state is torch.sparse_coo"),
    (changed("parameters", lambda p: p[:-1]), "parameters are 13 tensors; this core has 14"),
    (changed("parameters", one_parameter(lambda t: t[:1])), "qkv_weight has shape"),
    (changed("parameters", one_parameter(lambda t: t.int())), "qkv_weight is torch.int32"),
    (changed("parameters", one_parameter(lambda t: t.to_sparse())), "qkv_weight is .*sparse"),
    (changed("lengths", lambda t: t[:2]), "lengths must hold whole numbers"),
    (changed("lengths", lambda t: t.float()), "lengths must hold whole numbers"),
    (changed("lengths", lambda t: t > 0), "lengths must hold whole numbers .* of torch.bool"),
    (changed("lengths", lambda t: t - 1), "sequence 1 has length 0"),
    (changed("lengths", lambda t: t + 1), "sequence 2 has length 5"),
    (changed("lengths", lambda t: t << 60), "has length"),
    (changed("lengths", lambda t: -t), "has length -"),
    (changed("num_steps", lambda t: t[:2]), "num_steps must hold whole numbers"),
    (changed("num_steps", lambda t: t.double()), "num_steps must hold whole numbers"),
    (changed("num_steps", lambda t: t + 1), "num_steps is at most 3; the call's max_steps, 2"),
    (changed("num_steps", lambda t: t - 1), "num_steps is 0"),
    (changed("num_steps", lambda t: t[None]), "num_steps must hold whole numbers"),
    (changed("sequence_ids", lambda t: t[:1]), "sequence_ids must hold whole numbers"),
    (changed("sequence_ids", lambda t: -t), "sequence_ids run from -9"),
    (changed("sequence_ids", lambda t: t << 24), "sequence_ids run from 0 to"),
    (changed("config", lambda _: "nothing"), "config is 'nothing'"),
    (changed("config", lambda _: json.dumps({"d_model": -1})), "config is"),
    (changed("config", lambda _: "[1]"), "config is"),
    (changed("backend", lambda _: "gpu"), "backend 'gpu'"),
    (
        changed("backend", lambda _: "cuda"),
        "backend 'cuda', asked for by the operator, cannot run this call",
    ),
    (changed("precision", lambda _: "fp8"), "precision is 'fp8'"),
    (changed("rollouts", lambda _: 0), "rollouts is 0"),
    (changed("rollouts", lambda _: 2), "must"),
    (changed("max_steps", lambda _: 0), "num_steps is 0"),
    (changed("max_steps", lambda _: 1 << 16), "num_steps is 65536"),
    (changed("max_steps", lambda _: 1), "num_steps is at most 2; the call's max_steps, 1"),
    (changed("steps_done", lambda _: -1), "steps_done is -1"),
    (changed("max_length", lambda _: -1), "max_length is -1"),
    (changed("seed", lambda _: torch.tensor([1, 2])), "seed has shape"),
    (changed("seed", lambda _: torch.tensor(1.5)), "seed has shape"),
    *(
        (changed(name, lambda t: t.to("meta")), "meta")
        for name in ("hidden", "state", "lengths", "num_steps", "sequence_ids", "seed")
    ),
    (changed("parameters", one_parameter(lambda t: t.to("meta"))), "meta"),
]
WRONG_BACKWARD: list[tuple[Callable[[Arguments], Arguments], str]] = [
    (changed("kept", lambda t: t[:-1]), "kept has shape"),
    (changed("kept", lambda t: t[:0]), "kept has shape"),
    (changed("kept", lambda t: torch.cat([t, t])), "kept has shape"),
    (changed("kept", lambda t: t.double()), "kept is torch.float64"),
    (changed("kept", lambda t: t.int()), "kept must be floating point"),
    (changed("differentiates", lambda _: False), "differentiates is False"),
    (changed("max_steps", lambda _: 3), "must"),
    (changed("g_trajectory", lambda t: t[:, :1]), "g_trajectory has shape"),
    (changed("g_trajectory", lambda t: t[0]), "g_trajectory has shape"),
    (changed("g_trajectory", lambda t: t.long()), "g_trajectory must be floating point"),
    (changed("g_trajectory", lambda t: t.to("meta")), "meta"),
    (changed("g_state", lambda t: t[:2]), "g_state has shape"),
    (changed("g_state", lambda t: t.to_sparse()), "g_state is torch.sparse_coo"),
]


@backends
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments(number: int, backend: str) -> None:
    change, message = WRONG[number]
    # By lengths and depths backward finds first that something else was kept.
    for arguments, run, says in (
        (forward_arguments, forward, message),
        (backward_arguments, backward, f"{message}|kept has shape"),
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError), match=says) as caught:
            run(change(arguments(backend)))
        assert "\n" not in str(caught.value)


@backends
@pytest.mark.parametrize("number", range(len(WRONG_BACKWARD)))
def test_wrong_arguments_of_backward(number: int, backend: str) -> None:
    change, message = WRONG_BACKWARD[number]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message) as caught:
        backward(change(backward_arguments(backend)))
    assert "\n" not in str(caught.value)


@backends
def test_offsets_that_do_not_fit(backend: str) -> None:
    """Of packed rows lengths say where each sequence lies."""
    given = forward_arguments(backend, packed=True)
    forward(given)
    for lengths in ([3, 1, 5], [3, 1, 3], [9, 9, 9], [3, 0, 5], [10, -6, 4]):
        with pytest.raises(ValueError, match="length|cu_seqlens"):
            forward({**given, "lengths": torch.tensor(lengths)})


def spread(tensor: Tensor) -> Tensor:
    """The same numbers with poison between."""
    if not tensor.dim():
        return tensor
    poison = float("nan") if tensor.is_floating_point() else 1 << 40
    memory = torch.full((*tensor.shape, 3), poison, dtype=tensor.dtype)
    memory[..., 1] = tensor
    return memory[..., 1]


@backends
@pytest.mark.parametrize("name", ["hidden", "state", "lengths", "num_steps", "sequence_ids"])
def test_layouts_make_no_difference(name: str, backend: str) -> None:
    given = backward_arguments(backend)
    wanted = [*forward(given_forward(given))[:2], *backward(given)]
    other = {**given, name: spread(given[name])}
    assert not other[name].is_contiguous()
    found = [*forward(given_forward(other))[:2], *backward(other)]
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, exact)


@backends
@pytest.mark.parametrize("name", ["kept", "g_trajectory", "g_state", "parameters"])
def test_layouts_of_what_backward_takes(name: str, backend: str) -> None:
    given = backward_arguments(backend)
    wanted = backward(given)
    if name == "parameters":
        other = {**given, name: [spread(each) for each in given[name]]}
    else:
        other = {**given, name: spread(given[name])}
    for mine, exact in zip(backward(other), wanted, strict=True):
        torch.testing.assert_close(mine, exact)


def given_forward(given: Arguments) -> Arguments:
    others = ("kept", "g_trajectory", "g_state")
    return {name: value for name, value in given.items() if name not in others}


@pytest.mark.parametrize("backend", [*BACKENDS, "equations"])
def test_depths_of_every_stride(backend: str) -> None:
    """One sequence of several rollouts, whose depths a view of stride 0 says."""
    core = make_core(SMALL).float().eval()
    with lk.use_backend(backend), torch.no_grad():
        for size, rollouts in ((1, 5), (1, 1), (3, 4)):
            hidden = torch.randn(size, 4, 16)
            depth = torch.full((size, rollouts), 3)
            wanted = core(hidden, num_steps=depth, rollouts=rollouts).last
            views = [
                torch.tensor([3]).expand(size),
                torch.tensor(3).expand(size, rollouts),
                torch.tensor([[3, 9]])[:, :1].expand(size, rollouts),
                spread(depth),
                depth.mT.contiguous().mT,
                depth.to(torch.uint8),
            ]
            for view in views:
                found = core(hidden, num_steps=view, rollouts=rollouts).last
                assert torch.equal(found, wanted), (tuple(view.shape), view.stride())


@pytest.mark.parametrize("backend", [*BACKENDS, "equations"])
def test_numbers_that_are_none(backend: str) -> None:
    core, hidden = make_core(SMALL).float(), torch.randn(2, 3, 16)
    for change, message in (
        ({"num_steps": 2.0}, "num_steps is 2.0; it must be a whole number"),
        ({"num_steps": True}, "num_steps is True"),
        ({"num_steps": torch.tensor([True, False])}, "num_steps must hold whole numbers"),
        ({"lengths": torch.tensor([True, True])}, "lengths must hold 2 whole numbers"),
        ({"lengths": [1.0, 2.0]}, "lengths must hold 2 whole numbers"),
        ({"lengths": torch.tensor([1j, 1j])}, "lengths must hold 2 whole numbers"),
        ({"rollouts": 1.5}, "rollouts is 1.5"),
        ({"state": 0}, "state is 0; it must be a tensor"),
        ({"state": [[0.0]]}, r"state is \[\[0.0\]\]; it must be a tensor"),
        ({"steps_done": 0.5}, "steps_done is 0.5"),
        ({"sequence_ids": [0, 1]}, "sequence_ids is of type list"),
        ({"sequence_ids": torch.tensor([0.0, 1.0])}, "sequence_ids must hold whole numbers"),
    ):
        with lk.use_backend(backend), pytest.raises((ValueError, TypeError), match=message):
            core(hidden, **change)
    with pytest.raises(TypeError, match="hidden is of type ndarray"):
        core(hidden.numpy())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@backends
def test_compiled_programs_know_the_types(backend: str, precision: str) -> None:
    """Kernels compute float64 input in float32, and a compiler is told so."""
    core = make_core(SMALL)  # in float64
    hidden = torch.randn(2, 3, 16, dtype=torch.float64)

    def gradients(run: Any) -> list[Tensor]:
        given = hidden.clone().requires_grad_()
        out = run(given, num_steps=2, precision=precision)
        return [out.last, *torch.autograd.grad(out.last.sin().sum(), [given, *core.parameters()])]

    torch._dynamo.reset()
    with lk.use_backend(backend):
        wanted = gradients(core)
        found = gradients(torch.compile(core, backend="aot_eager", fullgraph=True))
    for mine, exact in zip(found, wanted, strict=True):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, exact)


def test_shapes_alone() -> None:
    """On ``meta`` a call gives its shapes."""
    core = lk.RecurrentCore(SMALL, device="meta").eval()
    out = core(torch.empty(2, 3, 16, device="meta"), num_steps=2, return_state=True)
    assert (out.last.shape, out.state.shape) == ((2, 16), (2, 3, 16))
    assert out.last.is_meta


def catalogue_arguments(backend: str) -> Arguments:
    return {
        "queries": torch.randn(6, 8),
        "items": torch.randn(20, 8),
        "chosen": torch.tensor([1, 5, 19]),
        "excluded": torch.tensor([[2, -1], [6, 7], [-1, -1]]),
        "scores": "dot",
        "temperature": 0.5,
        "backend": backend,
        "precision": "fp32",
    }


def of_log_probability(given: Arguments) -> Any:
    return torch.ops.lares_kernels.catalogue_log_probability(*given.values(), True)


def of_gradients(given: Arguments) -> Any:
    rest = (given.get("normaliser", torch.zeros(6)), given.get("g", torch.ones(6)), True, True)
    names = catalogue_arguments("")
    return torch.ops.lares_kernels.catalogue_gradients(*(given[n] for n in names), *rest)


def of_ranks(given: Arguments) -> Any:
    given = {**given, "queries": given["queries"][:3]}
    return torch.ops.lares_kernels.catalogue_ranks(*given.values())


def of_top_k(given: Arguments) -> Any:
    given = {**given, "queries": given["queries"][:3]}
    del given["chosen"]
    return torch.ops.lares_kernels.catalogue_top_k(*given.values(), 4)


CATALOGUE = {
    "log_probability": of_log_probability,
    "gradients": of_gradients,
    "ranks": of_ranks,
    "top_k": of_top_k,
}
WRONG_CATALOGUE: list[tuple[Callable[[Arguments], Arguments], str]] = [
    (changed("queries", lambda t: t[:, :7]), "queries has shape"),
    (changed("queries", lambda t: t.long()), "queries is torch.int64"),
    (changed("items", lambda t: t[0]), "items has shape"),
    (changed("items", lambda t: t[:0]), "items has shape"),
    (changed("items", lambda t: t.bool()), "items is torch.bool"),
    (changed("items", lambda t: t.to("meta")), "meta"),
    (changed("items", lambda t: t.to_sparse()), "items is torch.sparse_coo"),
    (changed("chosen", lambda t: t[:1].expand(4)), "chosen|must|excluded|targets"),
    (changed("chosen", lambda t: t.float()), "whole numbers"),
    (changed("chosen", lambda t: t + 1), "is 20; it must be in 0..19"),
    (changed("chosen", lambda t: -t), "is -1; it must be in 0..19"),
    (changed("excluded", lambda t: t[:2]), "excluded must hold whole numbers"),
    (changed("excluded", lambda t: t[:, 0]), "excluded has shape"),
    (changed("excluded", lambda t: t.float()), "excluded must hold whole numbers"),
    (changed("excluded", lambda t: t << 40), r"excluded\[0, 0\] is"),
    (changed("excluded", lambda t: t.to("meta")), "meta"),
    (changed("scores", lambda _: "cos"), "scores is 'cos'"),
    (changed("temperature", lambda _: 0.0), "temperature is 0.0"),
    (changed("temperature", lambda _: float("inf")), "temperature is inf"),
    (changed("backend", lambda _: "gpu"), "backend 'gpu'"),
    (
        changed("backend", lambda _: "triton"),
        "backend 'triton', asked for by the operator, cannot run",
    ),
    (changed("precision", lambda _: "fp8"), "precision is 'fp8'"),
    (changed("precision", lambda _: "fp64"), "precision is 'fp64'"),
]


@backends
@pytest.mark.parametrize("op", CATALOGUE)
@pytest.mark.parametrize("number", range(len(WRONG_CATALOGUE)))
def test_wrong_arguments_of_the_catalogue(number: int, op: str, backend: str) -> None:
    change, message = WRONG_CATALOGUE[number]
    given = catalogue_arguments(backend)
    CATALOGUE[op](given)
    other = change(given)
    if op == "top_k" and other["chosen"] is not given["chosen"]:
        pytest.skip("it takes no such tensor")
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message) as caught:
        CATALOGUE[op](other)
    assert "\n" not in str(caught.value)


@backends
def test_what_else_gradients_and_top_k_take(backend: str) -> None:
    given = catalogue_arguments(backend)
    for name, value in (
        ("normaliser", torch.zeros(5)),
        ("normaliser", torch.zeros(6, dtype=torch.int64)),
        ("g", torch.ones(7)),
        ("g", torch.ones(6, 1)),
    ):
        with pytest.raises(ValueError, match="normaliser|g_log_probability"):
            of_gradients({**given, name: value})
    for k in (0, -1, 21):
        with pytest.raises(ValueError, match=f"k is {k}"):
            torch.ops.lares_kernels.catalogue_top_k(
                given["queries"], given["items"], None, "dot", 1.0, backend, "fp32", k
            )


@backends
@pytest.mark.parametrize("op", CATALOGUE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts_of_the_catalogue(op: str, backend: str, dtype: torch.dtype) -> None:
    given = catalogue_arguments(backend)
    given["items"] = given["items"].to(dtype)
    wanted = CATALOGUE[op](given)
    for name in ("queries", "items", "chosen", "excluded"):
        found = CATALOGUE[op]({**given, name: spread(given[name])})
        for mine, exact in zip(_all(found), _all(wanted), strict=True):
            torch.testing.assert_close(mine, exact)


def _all(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


@backends
def test_no_rows_of_the_catalogue(backend: str) -> None:
    none = torch.empty(0, 8)
    ids = torch.empty(0, dtype=torch.int64)
    items, options = torch.randn(20, 8), ("dot", 1.0, backend, "fp32")
    operators = torch.ops.lares_kernels
    found, _, _ = operators.catalogue_log_probability(none, items, ids, None, *options, False)
    assert found.shape == (0,)
    arguments = (none, items, ids, None, *options, found, found, True, True)
    g_queries, g_items = operators.catalogue_gradients(*arguments)
    assert g_queries.shape == (0, 8)
    assert torch.equal(g_items, torch.zeros(20, 8))
    assert operators.catalogue_ranks(none, items, ids, None, *options).shape == (0,)
    assert operators.catalogue_top_k(none, items, None, *options, 3)[0].shape == (0, 3)


def test_every_parameter_is_named() -> None:
    """The operator takes them by place."""
    names = [*parameter_shapes(SMALL)]
    given = forward_arguments("reference")
    for place, name in enumerate(names):
        parameters = list(given["parameters"])
        parameters[place] = parameters[place][..., :1]
        with pytest.raises(ValueError, match=f"parameter {name} has shape"):
            forward({**given, "parameters": parameters})


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_function_under_the_op_checks_too(backend: str) -> None:
    core = lk.RecurrentCore(lk.CoreConfig(d_model=16, n_heads=2, d_ff=32, n_layers=1))
    options = CallOptions(core.config.key, backend, "fp32", max_steps=2)
    hidden = torch.randn(1, 4, 16)

    def run(lengths: list[int], parameters: list) -> None:
        tensors = CallTensors(torch.tensor(lengths), None, None, 5)
        lk.RefineFunction.apply(hidden, None, *tensors, options, *parameters)

    run([4], [*core.parameters()])
    with pytest.raises(ValueError, match="lengths must hold"):
        run([4, 4], [*core.parameters()])
    small = [parameter.detach()[..., :1] for parameter in core.parameters()]
    with pytest.raises(ValueError, match="shape"):
        run([4], small)
