"""The CUDA kernels' device code, run by the emulator, against the equations in float64.

Products are in 16 bits, so the rule is the contract's: at most twice the error of plain PyTorch in the
same precision. A wrong mask, dropout decision or fragment is off by a hundred times that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from lares_kernels import BackendError, CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.registry import self_check
from lares_kernels.registry.backends import REFINE
from lares_kernels.spec.call import Request
from tests.kernels.problems import exact_problem, relative

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")

PUBLISHED = CoreConfig(dropout=0.5, attn_dropout=0.5)
SMALL = CoreConfig(d_model=32, n_heads=2, d_ff=40, n_layers=1, dropout=0.25, attn_dropout=0.1)
WIDE = CoreConfig(d_model=128, n_heads=4, d_ff=64, n_layers=1, dropout=0.25, attn_dropout=0.1)
LENGTHS = [20, 1, 9, 7, 3, 16, 17, 2, 20, 11]
# Past 64 tokens a word of a query's decisions has no bit for a key.
LONGER = [[30, 70], [1, 65], [40, 88], [63, 65], [17, 111], [15, 113], [9, 64, 20, 100]]
YARDSTICKS = 2.0
Results = TypeVar("Results")


def each_shape(*widest: tuple[int, ...]) -> pytest.MarkDecorator:
    """Width, heads, inner width and layers of cores; the widest ones are a plan's own."""
    shapes = [(32, 1, 64, 2), (32, 4, 1, 1), (64, 1, 70, 1), (64, 4, 33, 3), (64, 8, 96, 2)]
    shapes += [(128, 2, 100, 1), *widest]
    return pytest.mark.parametrize(("width", "heads", "inner", "layers"), shapes)


def outputs(core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any) -> list[Tensor]:
    with torch.no_grad():
        out = core(hidden, lengths, return_trajectory=True, return_state=True, **options)
    return [out.trajectory, out.state]


def runs(
    results: Callable[..., Results],
    config: CoreConfig,
    lengths: list[int],
    precision: str,
    **options: Any,
) -> tuple[Results, Results, Results]:
    """``results`` by the kernels and by plain PyTorch, both in ``precision``, and in float64."""
    core, hidden, sizes = exact_problem(config, lengths)
    if config.is_recurrent:
        options.setdefault("num_steps", 2)
    with use_backend("equations"):
        exact = results(core, hidden, sizes, **options)
    core.float()
    found = []
    for backend in ("cuda", "equations"):
        with use_backend(backend):
            found.append(results(core, hidden.float(), sizes, precision=precision, **options))
    return found[0], found[1], exact


def check(config: CoreConfig, lengths: list[int], precision: str = "bf16", **options: Any) -> None:
    found, plain, exact = runs(outputs, config, lengths, precision, **options)
    for mine, yardstick, wanted in zip(found, plain, exact, strict=True):
        limit = YARDSTICKS * relative(yardstick.double(), wanted)
        assert relative(mine.double(), wanted) <= limit


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_published_core(precision: str, depth: int) -> None:
    check(PUBLISHED, LENGTHS, precision, num_steps=depth, seed=2**63 + 5)


def test_the_self_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    monkeypatch.setenv(self_check.VARIABLE, "1")
    request = Request(replace(SMALL, dropout=0.0, attn_dropout=0.0), "cpu", torch.bfloat16)
    with use_backend("cuda"):
        assert REFINE.choose(request).backend.name == "cuda"
    (verdict,) = (tmp_path / "self-check").iterdir()
    assert "hidden's gradient" in verdict.read_text()


def test_without_dropout() -> None:
    check(CoreConfig(), LENGTHS)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm(adapter: str, norm: str) -> None:
    check(replace(SMALL, adapter=adapter, norm=norm), LENGTHS)
    check(replace(SMALL, adapter=adapter, norm=norm, dropout=0.0, attn_dropout=0.0), LENGTHS)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("rate", [0.5, 0.1])
@pytest.mark.parametrize("heads", [2, 4, 8])
def test_wide_rows_wait_while_a_branch_is_summed(heads: int, rate: float, precision: str) -> None:
    """Sequences of one to four warps, so that rows of several wait in a unit's shared memory."""
    config = CoreConfig(128, heads, 160, 2, dropout=rate, attn_dropout=rate)
    check(config, [*LENGTHS, 50, 64], precision, num_steps=3, seed=2**63 + 5)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm_of_wide_rows(adapter: str, norm: str) -> None:
    check(replace(WIDE, adapter=adapter, norm=norm), LENGTHS)


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "silu"])
def test_every_activation(activation: str) -> None:
    check(replace(SMALL, activation=activation), LENGTHS, "fp16")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@each_shape((128, 4, 64, 1), (128, 8, 64, 2))
def test_every_shape(width: int, heads: int, inner: int, layers: int, dropout: float) -> None:
    config = CoreConfig(width, heads, inner, layers, dropout=dropout, attn_dropout=dropout)
    check(config, [1, 18, 4, 32], "fp16")


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 63, 64])
def test_sequences_as_long_as_a_tile(length: int) -> None:
    check(SMALL, [length, 2, length, max(1, 40 * length // 64)])


@pytest.mark.parametrize("length", [65, 128])
def test_longer_sequences_without_attention_dropout(length: int) -> None:
    check(replace(SMALL, attn_dropout=0.0), [length, 2, 40, length])


@pytest.mark.parametrize("lengths", LONGER, ids=str)
def test_longer_sequences_that_begin_anywhere_in_a_tile(lengths: list[int]) -> None:
    check(replace(SMALL, dropout=0.5, attn_dropout=0.0), lengths)


@pytest.mark.parametrize("rollouts", [1, 3])
def test_depths_and_rollouts(rollouts: int) -> None:
    depths = torch.tensor([[2, 1, 3], [1, 1, 4], [4, 4, 4], [3, 2, 1]])[:, :rollouts]
    ids = torch.tensor([7, 2**24 - 1, 0, 3])
    check(SMALL, [4, 9, 1, 30], num_steps=depths, rollouts=rollouts, sequence_ids=ids)


def test_given_state_and_zero_state() -> None:
    state = torch.randn(len(LENGTHS), max(LENGTHS), SMALL.d_model).double()
    core, hidden, sizes = exact_problem(SMALL, LENGTHS)
    results = []
    for backend, dtype in (("equations", torch.float64), ("cuda", torch.float32)):
        core.to(dtype)
        with use_backend(backend):
            given = {
                "state": state.to(dtype),
                "precision": "fp16" if dtype == torch.float32 else None,
            }
            results.append(outputs(core, hidden.to(dtype), sizes, num_steps=2, **given))
    for mine, wanted in zip(results[1], results[0], strict=True):
        assert relative(mine.double(), wanted) < 5e-3
    check(SMALL, LENGTHS, state="zero")


def test_the_drawn_state_is_the_reference_s() -> None:
    """Through a core that hands its state on: every branch is zero, LayerNorm sees s_0 / 2 alone."""
    config = replace(SMALL, norm="pre", dropout=0.0, attn_dropout=0.0)
    core = RecurrentCore(config)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if name.startswith(("out_", "down_")):
                parameter.zero_()
    hidden = torch.zeros(3, 9, config.d_model)
    found = []
    for backend in ("reference", "cuda"):
        with use_backend(backend):
            found.append(
                outputs(core, hidden, torch.tensor([9, 4, 1]), seed=11, precision="bf16")[1]
            )
    assert relative(found[1], found[0]) < 2e-6


def test_many_sequences_and_the_same_bits_twice() -> None:
    """More tiles than units, so that each takes several; a plan of more than one pass of its block."""
    config = replace(SMALL, n_layers=1)
    lengths = [(7 * i) % 20 + 1 for i in range(300)]
    core, hidden, sizes = exact_problem(config, lengths)
    depths = torch.arange(300) % 3 + 1
    core, hidden = core.float(), hidden.float()
    with use_backend("reference"):
        wanted = outputs(core, hidden, sizes, num_steps=depths)
    with use_backend("cuda"):
        first = outputs(core, hidden, sizes, num_steps=depths, precision="fp16")
        again = outputs(core, hidden, sizes, num_steps=depths, precision="fp16")
    for mine, other, exact in zip(first, again, wanted, strict=True):
        assert torch.equal(mine, other)
        assert relative(mine, exact) < 5e-3


@pytest.mark.parametrize("rollouts", [1, 2])
def test_packed_equals_padded(rollouts: int) -> None:
    core, hidden, lengths = exact_problem(SMALL, LENGTHS)
    core, hidden = core.float(), hidden.float()
    rows = torch.cat([row[:n] for row, n in zip(hidden, LENGTHS, strict=True)])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    options = {"num_steps": 2, "rollouts": rollouts, "precision": "bf16"}
    with use_backend("cuda"), torch.no_grad():
        padded = core(hidden, lengths, **options)
        packed = core(rows, cu_seqlens=offsets, **options)
    assert torch.equal(padded.last, packed.last)


def test_dead_rows_change_nothing() -> None:
    """Without whole states, warps that hold no newest row leave the last layer early."""
    core, hidden, lengths = exact_problem(PUBLISHED, [50, 3, 64, 30, 17, 33])
    core, hidden = core.float(), hidden.float()
    depths = torch.tensor([3, 1, 2, 3, 1, 2])
    options = {"num_steps": depths, "precision": "bf16", "return_trajectory": True}
    with use_backend("cuda"), torch.no_grad():
        all_rows = core(hidden, lengths, return_state=True, **options)
        newest = core(hidden, lengths, return_state=False, **options)
    assert torch.equal(all_rows.trajectory, newest.trajectory)


def test_a_sequence_alone_gives_the_same_decisions() -> None:
    core, hidden, lengths = exact_problem(PUBLISHED, [4, 9, 1, 15])
    core, hidden = core.float(), hidden.float()
    with use_backend("cuda"), torch.no_grad():
        together = core(hidden, lengths, num_steps=2, precision="fp16")
        for i, n in enumerate(lengths.tolist()):
            alone = core(
                hidden[i : i + 1, :n],
                num_steps=2,
                sequence_ids=torch.tensor([i]),
                precision="fp16",
            )
            assert relative(alone.last[0], together.last[i]) < 2e-3


def test_says_what_it_cannot_serve() -> None:
    core = RecurrentCore(SMALL)
    hidden = torch.zeros(2, 70, 32)
    with use_backend("cuda"):
        with pytest.raises(BackendError, match=r"products in torch\.float32"):
            core(hidden)
        with torch.no_grad(), pytest.raises(BackendError, match="sequences of up to 70 tokens"):
            core(hidden, precision="bf16")
        with torch.no_grad(), pytest.raises(ValueError, match="length 0"):
            core(hidden, torch.tensor([3, 0]), precision="bf16")
        wide = RecurrentCore(replace(SMALL, d_model=48))
        with pytest.raises(BackendError, match="d_model is 48"):
            wide(torch.zeros(1, 5, 48), precision="bf16")


def test_explain_names_the_plan() -> None:
    with use_backend("cuda"):
        found = explain(CoreConfig(), [20, 7, 9], 4, precision="bf16")
    assert found.backend == "cuda"
    assert "6 tiles of 32 rows" in found.plan
    assert "resident" in found.plan
