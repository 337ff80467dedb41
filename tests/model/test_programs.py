"""A whole model through torch.compile and torch.export, on meta, as fake tensors and as replicas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from lares import LaresConfig, LaresModel
from lares_kernels import use_backend
from tests.kernels.interop.test_torch_weights import replica

# Padding may hold anything; one history is longer than the other's window.
IDS, LENGTHS = torch.tensor([[1, 2, 3, 0], [4, 5, -7, 99], [6, 7, 8, 9]]), torch.tensor([3, 2, 4])
OTHERS = torch.randint(1, 30, (5, 3)), torch.tensor([3, 1, 2, 3, 3])
LONGER = torch.randint(1, 30, (2, 9)), torch.tensor([9, 5])


def model(training: bool = True, **options: Any) -> LaresModel:
    torch.manual_seed(1)
    sizes = {"n_items": 30, "max_length": 6, "d_model": 16, "d_ff": 24}
    return LaresModel(LaresConfig(**sizes, **options)).train(training)


def drawn(run: Any, *arguments: Any) -> Tensor:
    """What comes out where the seed is the first that the generator draws."""
    torch.manual_seed(5)
    out: Tensor = run(*arguments)
    return out


PLAIN = {"dropout": 0.0, "attn_dropout": 0.0}
OPTIONS: list[Any] = [
    PLAIN,
    *(
        pytest.param(each, marks=pytest.mark.long)
        for each in (
            {},
            {"n_pre_layers": 0, "scores": "cosine", **PLAIN},
            {"core": "filter", **PLAIN},
        )
    ),
]


def test_a_call_gives_the_scores() -> None:
    made = model(training=False)
    assert torch.equal(made(IDS, LENGTHS, 3, 7), made.scores(IDS, LENGTHS, 3, 7))
    assert torch.equal(made(IDS, LENGTHS), made.scores(IDS, LENGTHS))


@pytest.mark.parametrize("options", OPTIONS)
def test_exported(options: dict[str, Any]) -> None:
    made = model(**options)
    sizes = {"item_seq": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, "lengths": {0: Dim.DYNAMIC}}
    program = torch.export.export(made, (IDS, LENGTHS), dynamic_shapes=sizes).module()
    for given in ((IDS, LENGTHS), OTHERS):
        torch.testing.assert_close(drawn(program, *given), drawn(made, *given))
    for ids, lengths in ((IDS + 25, LENGTHS), (IDS, LENGTHS + 1), (IDS, LENGTHS - 2)):
        with pytest.raises(
            RuntimeError, match=r"item ids run from 1 to 29|lengths must be in 1\.\.L"
        ):
            program(ids, lengths)


@pytest.mark.long
@pytest.mark.parametrize("options", [{"n_core_layers": 0}, {"core": "bsarec"}])
def test_exported_strictly(options: dict[str, Any]) -> None:
    made = model(**PLAIN, **options)
    program = torch.export.export(made, (IDS, LENGTHS), strict=True).module()
    torch.testing.assert_close(drawn(program, IDS, LENGTHS), drawn(made, IDS, LENGTHS))


def test_compiled_whole() -> None:
    torch._dynamo.reset()
    made = model(training=False, state_mode="zero")
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(IDS, LENGTHS), made(IDS, LENGTHS))


@pytest.mark.long
@pytest.mark.parametrize("options", [PLAIN, {"core": "filter", **PLAIN}])
def test_compiled(options: dict[str, Any]) -> None:
    """Twice at most, whatever the numbers of histories and items; gradients too."""
    torch._dynamo.reset()
    made = model(**options)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    for number, given in enumerate([(IDS, LENGTHS), OTHERS, (OTHERS[0][:4], OTHERS[1][:4])]):
        if number == 2:
            torch.compiler.set_stance("fail_on_recompile")
        try:
            found = []
            for run in (compiled, made):
                made.zero_grad()
                out = drawn(run, *given)
                out.square().sum().backward()
                found.append([out, *(parameter.grad for parameter in made.parameters())])
        finally:
            torch.compiler.set_stance("default")
        for mine, wanted in zip(*found, strict=True):
            torch.testing.assert_close(mine, wanted)


@pytest.mark.long
def test_compiled_options_of_the_encoder() -> None:
    torch._dynamo.reset()
    encoder = model(**PLAIN).encoder
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    states = torch.randn(3, 2, 4, 16)
    for options in (
        {"num_steps": torch.tensor([1, 3, 2]), "return_trajectory": True, "return_state": True},
        {"num_steps": 2, "rollouts": 2, "return_state": True, "initial_state": states},
        {"sequence_ids": torch.tensor([5, 9, 2]), "seed": (1 << 63) + 5, "return_state": True},
    ):
        given = {"seed": 3, **options}
        torch.testing.assert_close(compiled(IDS, LENGTHS, **given), encoder(IDS, LENGTHS, **given))
    found = compiled(*LONGER, 2, seed=3).last
    torch.testing.assert_close(found, encoder(*LONGER, 2, seed=3).last)


@pytest.mark.long
def test_compiled_by_inductor() -> None:
    torch._dynamo.reset()
    made = model(**PLAIN)
    compiled = torch.compile(made, fullgraph=True)
    depths = torch.tensor([1, 3, 2])
    torch.testing.assert_close(compiled(IDS, LENGTHS, depths, 7), made(IDS, LENGTHS, depths, 7))
    with pytest.raises(RuntimeError, match="item ids run from 1 to 29"):
        compiled(IDS + 25, LENGTHS, depths, 7)


@pytest.mark.parametrize(
    "core", ["attention", "filter", pytest.param("bsarec", marks=pytest.mark.long)]
)
def test_without_numbers(core: str) -> None:
    config = LaresConfig(n_items=30, max_length=6, d_model=16, d_ff=24, core=core)
    on_meta = LaresModel.without_memory(config).train()
    out = on_meta(IDS.to("meta"), LENGTHS.to("meta"))
    assert out.shape == (3, 30)
    out.sum().backward()
    with FakeTensorMode():
        fake = LaresModel(config).train()
        out = fake(torch.ones(3, 4, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
        assert out.shape == (3, 30)
        out.sum().backward()
    model(core=core)(IDS, LENGTHS).sum().backward()  # nothing of these was kept


def test_a_replica_of_data_parallel() -> None:
    made = model()
    torch.testing.assert_close(replica(made)(IDS, LENGTHS, None, 3), made(IDS, LENGTHS, None, 3))


def test_vjp() -> None:
    made = model()
    parameters = {name: value.detach() for name, value in made.named_parameters()}

    def scores(parameters: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(made, parameters, (IDS, LENGTHS, 2, 3))
        return out

    out, pull = torch.func.vjp(scores, parameters)
    (found,) = pull(out)
    made(IDS, LENGTHS, 2, 3).square().sum().mul(0.5).backward()
    torch.testing.assert_close(found, {name: p.grad for name, p in made.named_parameters()})


_LOAD = """
import torch
program = torch.export.load("equations.pt2").module()
out = program(torch.tensor([[1, 2, 3, 0]]).repeat(3, 1), torch.tensor([3, 2, 1]))
print(tuple(out.shape), flush=True)
torch.export.load("reference.pt2")
"""


@pytest.mark.long
def test_a_program_loads_where_the_op_is_known(tmp_path: Path) -> None:
    """Elsewhere torch says which operator it misses; of the equations nothing is missed."""
    made = model(training=False, mean_depth=1, state_mode="zero")
    for backend in ("reference", "equations"):
        with use_backend(backend):
            program = torch.export.export(made, (IDS, LENGTHS))
        torch.export.save(program, tmp_path / f"{backend}.pt2")
    done = subprocess.run(
        [sys.executable, "-c", _LOAD], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "(3, 30)\n", done.stderr
    assert done.returncode != 0
    assert "torch.ops.lares_kernels.refine" in done.stderr
    assert "import the custom op" in done.stderr
    torch.export.load(tmp_path / "reference.pt2")
