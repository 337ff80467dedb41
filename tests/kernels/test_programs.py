"""Programs made of the op: torch.compile, torch.export, tensors on meta and fake ones.

What a program is made with says nothing of the numbers that it will run with.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from lares_kernels import CoreConfig, RecurrentCore, from_torch, use_backend
from lares_kernels.binding.cpu_library import load
from tests.kernels.problems import SMALL, make_core

BACKENDS = ["reference", "equations"] + ([] if isinstance(load(), str) else ["cpu"])
FASTEST = BACKENDS[-1]
backends = pytest.mark.parametrize("backend", BACKENDS)
ONE = CoreConfig(d_model=16, n_heads=2, d_ff=24, n_layers=1, dropout=0.5, attn_dropout=0.5)
LENGTHS, OFFSETS = torch.tensor([3, 1, 4]), torch.tensor([0, 3, 4, 8], dtype=torch.int32)
DEPTHS = torch.tensor([1, 3, 2])
PADDED, PACKED = torch.randn(3, 4, 16), torch.randn(8, 16)
CALLS: dict[str, tuple[Tensor, dict[str, Any]]] = {
    "state": (PADDED, {"lengths": LENGTHS, "state": torch.randn(3, 4, 16), "num_steps": 2}),
    "depths": (PADDED, {"lengths": LENGTHS, "num_steps": DEPTHS}),
    "rollouts": (PADDED, {"lengths": LENGTHS, "num_steps": 2, "rollouts": 2}),
    "packed": (PACKED, {"cu_seqlens": OFFSETS, "num_steps": 2}),
    "packed depths": (PACKED, {"cu_seqlens": OFFSETS, "num_steps": DEPTHS}),
    "packed rollouts": (PACKED, {"cu_seqlens": OFFSETS, "num_steps": 2, "rollouts": 2}),
    "seed": (PADDED, {"lengths": LENGTHS, "seed": (1 << 63) + 5}),
    "ids": (PADDED, {"lengths": LENGTHS, "sequence_ids": torch.tensor([7, 5, 9])}),
}


class Outputs(nn.Module):
    """A core, and all that comes out of it."""

    def __init__(self, config: CoreConfig = ONE) -> None:
        super().__init__()
        self.core = make_core(config, scale=0.1).float()

    def forward(self, hidden: Tensor, **options: Any) -> list[Tensor]:
        return [*self.core(hidden, **options, return_trajectory=True, return_state=True)]


def made(way: str, module: nn.Module, hidden: Tensor, options: dict[str, Any]) -> Any:
    """A program of a module: ``eager`` and ``aot_eager`` name compilers."""
    torch._dynamo.reset()
    if way in ("eager", "aot_eager"):
        return torch.compile(module, backend=way, fullgraph=True)
    return torch.export.export(module, (hidden,), options, strict=way == "strict").module()


def some(names: Iterable[str], *ordinary: str) -> list[Any]:
    """All of the names, of which these are for every run."""
    return [
        each if each in ordinary else pytest.param(each, marks=pytest.mark.long) for each in names
    ]


@pytest.mark.parametrize("way", some(("eager", "export", "strict"), "export"))
@pytest.mark.parametrize("call", CALLS)
def test_every_option(call: str, way: str) -> None:
    hidden, options = CALLS[call]
    module = Outputs().train()
    with use_backend(FASTEST):
        program = made(way, module, hidden, options)
        for mine, wanted in zip(program(hidden, **options), module(hidden, **options), strict=True):
            torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize(
    ("way", "padding", "call"),
    [
        ("export", "right", "packed"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (
                *(("export", padding, "state") for padding in ("right", "left", "left-zeros")),
                ("export", "left", "rollouts"),
                ("export", "right", "packed rollouts"),
                ("eager", "right", "depths"),
                ("eager", "right", "seed"),
            )
        ),
    ],
)
def test_the_equations(way: str, padding: str, call: str) -> None:
    hidden, options = CALLS[call]
    module = Outputs(replace(ONE, padding=padding)).eval()
    hidden = hidden.clone()
    if padding == "right" and hidden.dim() == 3:
        hidden[1, 1:] = torch.nan  # in padding, where nobody may look
    with use_backend("equations"):
        program = made(way, module, hidden, options)
        found = program(hidden, **options)
        for mine, wanted in zip(found, module(hidden, **options), strict=True):
            torch.testing.assert_close(mine, wanted)


@pytest.mark.long
@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_equations_of_windows(mixer: str) -> None:
    module = Outputs(replace(ONE, mixer=mixer, window=4)).eval()
    options = {"lengths": LENGTHS}
    with use_backend("equations"):
        program = made("export", module, PADDED, options)
        found = program(PADDED, **options)
        for mine, wanted in zip(found, module(PADDED, **options), strict=True):
            torch.testing.assert_close(mine, wanted)


class Last(nn.Module):
    """The newest rows of packed input, whose options are positional."""

    def __init__(self) -> None:
        super().__init__()
        self.core = make_core(replace(ONE, dropout=0.0, attn_dropout=0.0), scale=0.1).float()

    def forward(self, hidden: Tensor, offsets: Tensor) -> Tensor:
        last: Tensor = self.core(hidden, cu_seqlens=offsets, num_steps=2).last
        return last


OTHERS = [([0, 3, 4, 8, 11], 11), ([0, 5, 6], 6)]


@pytest.mark.parametrize(
    ("backend", "strict"),
    [(FASTEST, False), (FASTEST, True), pytest.param("equations", False, marks=pytest.mark.long)],
)
def test_an_exported_program_of_any_number_of_sequences(backend: str, strict: bool) -> None:
    module = Last().eval()
    sizes = {"hidden": {0: Dim.DYNAMIC}, "offsets": {0: Dim.DYNAMIC}}
    with use_backend(backend):
        given = (PACKED, OFFSETS.long())
        program = torch.export.export(module, given, dynamic_shapes=sizes, strict=strict).module()
        for offsets, n in OTHERS:
            other = (torch.randn(n, 16), torch.tensor(offsets))
            torch.testing.assert_close(program(*other), module(*other))


def test_a_compiled_program_of_any_number_of_sequences_compiles_twice() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    module = Last().eval()
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for offsets, n in [([0, 3, 4, 8], 8), *OTHERS, ([0, 1, 2, 3, 7], 7)]:
        other = (torch.randn(n, 16), torch.tensor(offsets))
        torch.testing.assert_close(compiled(*other), module(*other))
    assert counter.frame_count <= 2


def test_depths_of_sequences_do_not_recompile() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    module = Outputs().eval()
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for depths in ([1, 3, 2], [4, 4, 4], [1, 1, 1]):
        options = {"lengths": LENGTHS, "num_steps": torch.tensor(depths)}
        for mine, wanted in zip(
            compiled(PADDED, **options), module(PADDED, **options), strict=True
        ):
            torch.testing.assert_close(mine, wanted)
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["equations", FASTEST])
@pytest.mark.parametrize(
    ("hidden", "options", "changes"),
    [
        (PADDED, {"lengths": LENGTHS}, {"lengths": torch.tensor([3, 1, 5])}),
        (PACKED, {"cu_seqlens": OFFSETS}, {"cu_seqlens": OFFSETS.clamp(max=7)}),
        (PADDED, {"sequence_ids": DEPTHS}, {"sequence_ids": -DEPTHS}),
    ],
)
def test_programs_refuse_what_does_not_fit(
    hidden: Tensor, options: dict[str, Any], changes: dict[str, Any], backend: str
) -> None:
    module = Outputs(replace(ONE, adapter="none")).eval()
    with use_backend(backend):
        program = made("export", module, hidden, options)
        with pytest.raises((RuntimeError, ValueError), match=r"length|cu_seqlens|sequence_ids"):
            program(hidden, **changes)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "gradients"),
    [(FASTEST, True), (FASTEST, False), pytest.param("equations", False, marks=pytest.mark.long)],
)
def test_gradients_through_an_exported_training_program(backend: str, gradients: bool) -> None:
    """Also of one that was exported without any, and saved."""
    module = Outputs(replace(ONE, attn_dropout=0.0)).train()
    options = {"lengths": LENGTHS, "num_steps": 1, "seed": 4}
    with use_backend(backend):
        with torch.set_grad_enabled(gradients):
            program = torch.export.export(module, (PADDED,), options)
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        found = []
        for each in (torch.export.load(file).module(), module):
            hidden = PADDED.clone().requires_grad_()
            loss = sum(out.square().sum() for out in each(hidden, **options))
            loss.backward()
            of_parameters = {name: p.grad for name, p in each.named_parameters()}
            found.append({"": hidden.grad, **of_parameters})
    torch.testing.assert_close(*found)


def test_a_drawn_seed_of_an_exported_program_is_drawn_in_every_run() -> None:
    core = RecurrentCore(ONE).train()
    program = torch.export.export(core, (PADDED, LENGTHS)).module()
    torch.manual_seed(3)
    first, second = (program(PADDED, LENGTHS).last for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    torch.testing.assert_close(core(PADDED, LENGTHS).last, first)


@pytest.mark.parametrize(
    ("backend", "compiled"),
    [
        *((backend, False) for backend in BACKENDS),
        pytest.param(FASTEST, True, marks=pytest.mark.long),
    ],
)
def test_vjp(backend: str, compiled: bool) -> None:
    module = Outputs(replace(ONE, dropout=0.0)).train()
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    options = {"lengths": LENGTHS, "num_steps": 2}

    def loss(parameters: dict[str, Tensor], hidden: Tensor) -> Tensor:
        out = torch.func.functional_call(module, parameters, (hidden,), options)
        return out[0].sin()

    def found(hidden: Tensor) -> list[Tensor]:
        out, pull = torch.func.vjp(loss, parameters, hidden)
        of_parameters, of_hidden = pull(torch.ones_like(out))
        return [out, of_hidden, *of_parameters.values()]

    with use_backend(backend):
        torch._dynamo.reset()
        run = torch.compile(found, backend="aot_eager", fullgraph=True) if compiled else found
        x = PADDED.clone().requires_grad_()
        out = module(x, **options)[0].sin()
        wanted = torch.autograd.grad(out.sum(), [x, *module.parameters()])
        for mine, exact in zip(run(PADDED), [out, *wanted], strict=True):
            torch.testing.assert_close(mine, exact)


# --- counters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", some(("core", "drawn", "counted"), "counted"))
def test_ten_steps_of_training_are_compiled_once(kind: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.5, batch_first=True)
    module: Any = (
        RecurrentCore(ONE)
        if kind == "core"
        else from_torch(layer, seed=5 if kind == "counted" else None)
    )
    optimizer = torch.optim.SGD(module.parameters(), 0.01)

    def loss(x: Tensor) -> Tensor:
        out = module(x, LENGTHS, num_steps=2).last if kind == "core" else module(x, is_causal=True)
        return (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    seen = set()
    for step in range(10):
        if step == 1:
            torch.compiler.set_stance("fail_on_recompile")
        try:
            value = compiled(PADDED)
        finally:
            torch.compiler.set_stance("default")
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.add(value.item())
    assert len(seen) == 10


# --- tensors without numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "equations", None])
@pytest.mark.parametrize("mixer", ["attention", "bsarec"])
def test_meta(mixer: str, backend: str | None) -> None:
    window = 0 if mixer == "attention" else 4
    core = RecurrentCore(replace(ONE, mixer=mixer, window=window), device="meta").train()
    with use_backend(backend) if backend else nullcontext():
        hidden = torch.empty(3, 4, 16, device="meta")
        out = core(
            hidden,
            LENGTHS.to("meta"),
            num_steps=3,
            return_trajectory=True,
            return_state=True,
            seed=2,
        )
        assert [tuple(part.shape) for part in out] == [(3, 16), (3, 3, 16), (3, 4, 16)]
        out.last.sum().backward()
        assert core.up_weight.grad.is_meta
        if mixer == "attention":
            packed = torch.empty(8, 16, device="meta")
            assert core(packed, cu_seqlens=OFFSETS.to("meta")).last.shape == (3, 16)
            with pytest.raises(ValueError, match="num_steps is a tensor on meta.*give a number"):
                core(hidden, num_steps=DEPTHS.to("meta"))


@pytest.mark.parametrize("backend", ["equations", FASTEST])
@pytest.mark.parametrize("mixer", some(("attention", "filter", "bsarec"), "filter"))
def test_fake_tensors(mixer: str, backend: str) -> None:
    window = 0 if mixer == "attention" else 4
    config = replace(ONE, mixer=mixer, window=window)
    with use_backend(backend):
        with FakeTensorMode():
            core = RecurrentCore(config).train()
            lengths = torch.ones(3, dtype=torch.int64)
            out = core(torch.randn(3, 4, 16), lengths, return_state=True)
            assert tuple(out.state.shape) == (3, 4, 16)
            out.last.sum().backward()
            if mixer == "attention":
                offsets = torch.ones(4, dtype=torch.int64)
                assert core(torch.randn(8, 16), cu_seqlens=offsets).last.shape == (3, 16)
                encoder = from_torch(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True))
                hides = torch.zeros(3, 4, dtype=torch.bool)
                causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
                assert encoder(torch.randn(3, 4, 16), causal, hides).shape == (3, 4, 16)
        # Nothing of it was kept for calls with numbers.
        core = RecurrentCore(config)
        last = core(PADDED, LENGTHS).last
        assert type(last) is Tensor
        last.sum().backward()


# --- what comes out -------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("rollouts", [1, 2])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_last_is_contiguous_and_saved_alone(
    batch: int, gradients: bool, rollouts: int, backend: str
) -> None:
    core = RecurrentCore(SMALL)
    with use_backend(backend), torch.set_grad_enabled(gradients):
        for steps, trajectory in ((1, False), (5, False), (5, True)):
            for _ in range(2):  # the second may repeat the first
                out = core(
                    PADDED[:batch],
                    LENGTHS[:batch],
                    num_steps=steps,
                    rollouts=rollouts,
                    return_trajectory=trajectory,
                )
                assert out.last.is_contiguous()
                assert out.last.untyped_storage().nbytes() == out.last.numel() * 4
                if trajectory:
                    assert torch.equal(out.last, out.trajectory[..., -1, :])


COMPILED = """
import sys, warnings
import torch
import lares_kernels as lk
from lares_kernels.spec.parameters import parameter_shapes
warnings.simplefilter("error")
torch._dynamo.config.error_on_recompile = True
core = lk.RecurrentCore(lk.CoreConfig(8, 2, 8, 1)).eval()
never_used = lk.CoreConfig(8, 2, 8, 1)
parameters = dict(core.named_parameters())
hidden, items = torch.randn(2, 3, 8), torch.randn(9, 8)
functions = {
    "a core": lambda h: core(h, num_steps=2).last,
    "refine": lambda h: lk.refine(never_used, parameters, h, num_steps=2).last,
    "shapes": lambda h: h + len(parameter_shapes(never_used)),
    "catalogue": lambda h: lk.catalogue_top_k(h[0], items, 3).scores,
}
compiled = torch.compile(functions[sys.argv[1]], fullgraph=True, backend="eager")
with torch.no_grad():
    first = compiled(hidden)
    torch.testing.assert_close(first, compiled(hidden))
    torch.testing.assert_close(first, functions[sys.argv[1]](hidden))
    compiled(hidden)
"""


@pytest.mark.parametrize("program", ["refine", "a core", "shapes", "catalogue"])
def test_compilers_warn_of_nothing_and_compile_once(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
