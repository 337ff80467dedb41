"""The fused kernels under Triton's interpreter against the equations in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.cases.equality import check
from benchmarks.cases.gpu import MAIN, quick
from benchmarks.cases.implementations import weights_of
from lares_kernels import BackendError, CoreConfig, RecurrentCore, explain, use_backend
from lares_kernels.spec.call import RefineCall
from lares_kernels.triton import backend as triton_backend
from lares_kernels.triton.fused import launch as fused
from lares_kernels.triton.launch.rules import WEIGHTS
from lares_kernels.triton.launch.settings import use_weights
from tests.kernels.problems import (
    BACKWARD,
    DEPTHS,
    FEW_LAYERS,
    SMALL,
    assert_equal_to_equations,
    exact_problem,
    gradients_of_the_given_state,
    name,
    outputs_and_gradients,
    relative,
)

DROPPING = replace(SMALL, d_ff=24, dropout=0.5, attn_dropout=0.25)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("config", FEW_LAYERS, ids=name)
def test_every_variant(config: CoreConfig) -> None:
    config = replace(config, dropout=0.5, attn_dropout=0.25, inner_dropout=0.25)
    lengths = [5, 10, 1, 9]
    assert_equal_to_equations("triton", config, lengths, num_steps=2 if config.is_recurrent else 1)


@pytest.mark.usefixtures("poisoned_memory")
def test_published_core() -> None:
    config = CoreConfig(n_layers=2, dropout=0.5, attn_dropout=0.5)
    assert_equal_to_equations("triton", config, [20, 1, 9, 7], num_steps=2, seed=2**63 + 5)


def test_a_run_that_goes_on_from_a_state() -> None:
    state = torch.randn(3, 9, SMALL.d_model, generator=torch.Generator().manual_seed(5))
    assert_equal_to_equations("triton", DROPPING, [3, 9, 1], num_steps=2, state=state, steps_done=3)


def test_without_dropout() -> None:
    assert_equal_to_equations("triton", SMALL, [3, 16, 1], num_steps=1)


@pytest.mark.parametrize(
    ("width", "heads", "inner", "adapter"),
    [(8, 1, 1, "add"), (24, 3, 20, "gate"), (40, 5, 70, "concat")],
)
def test_odd_shapes(width: int, heads: int, inner: int, adapter: str) -> None:
    config = CoreConfig(width, heads, inner, 1, adapter=adapter, dropout=0.1, attn_dropout=0.9)
    assert_equal_to_equations("triton", config, [1, 18, 4], num_steps=2)


@pytest.mark.parametrize("length", [17, 64])
def test_sequences_as_long_as_a_tile(length: int) -> None:
    config = replace(DROPPING, n_layers=1)
    assert_equal_to_equations("triton", config, [length, 2, 40 * length // 64], num_steps=2)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("rollouts", [1, 3])
def test_depths_and_rollouts(rollouts: int) -> None:
    depths = DEPTHS[:, :rollouts]
    config = replace(DROPPING, n_layers=1)
    ids = torch.tensor([7, 2**24 - 1, 0, 3])
    options = {"num_steps": depths, "rollouts": rollouts, "sequence_ids": ids}
    assert_equal_to_equations("triton", config, [4, 9, 1, 15], **options)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("field", "given", "taken"),
    [("sequence_ids", [0, 1, 2**24 + 2], [0, 1, 2]), ("num_steps", [2, 0, 1], [2, 1, 1])],
)
def test_values_that_nobody_looked_at(
    field: str, given: list[int], taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which would have to be waited for: what is out of range counts as what is not."""
    core, hidden, lengths = exact_problem(replace(DROPPING, n_layers=1), [4, 9, 2])
    core.float()
    options = {"num_steps": 2} | {field: torch.tensor(taken)}
    with use_backend("triton"):
        wanted, gradients = outputs_and_gradients(core, hidden.float(), lengths, **options)
        monkeypatch.setattr(RefineCall, "check_values", lambda call: None)
        options[field] = torch.tensor(given)
        found, mine = outputs_and_gradients(core, hidden.float(), lengths, **options)
    # Depths decide which row of a tile a sequence gets, and that how sums are rounded.
    torch.testing.assert_close([*found, *mine], [*wanted, *gradients], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("poisoned_memory")
def test_steps_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all steps' rows fit the memory set aside, backward takes several launches."""
    config = replace(DROPPING, n_layers=1, adapter="concat")
    c = fused.constants(config, 16, True, "ieee")
    one_step = 29 * 4 * (c.layer_rows + 4 * c.d + 3 * c.d)
    monkeypatch.setattr(fused, "spill_bytes", lambda device: 3 * one_step)
    assert fused.steps_at_once(c, 29, 4, 4, 3 * one_step) == 3
    depths = torch.tensor([2, 4, 1, 3])
    assert_equal_to_equations("triton", config, [4, 9, 1, 15], num_steps=depths)


def test_gradients_of_the_given_state_and_of_the_trajectory_alone() -> None:
    found, exact = gradients_of_the_given_state("triton", DROPPING)
    for mine, wanted in zip(found, exact, strict=True):
        scale = max(float(wanted.norm()), 1e-3)
        assert float((mine.double() - wanted).norm()) < BACKWARD * scale


def test_zero_state() -> None:
    assert_equal_to_equations(
        "triton", replace(SMALL, n_layers=1), [5, 2], num_steps=2, state="zero"
    )


def packed(hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.cat([row[:n] for row, n in zip(hidden, lengths.tolist(), strict=True)])
    return rows, torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()


def test_packed_equals_padded_and_runs_repeat() -> None:
    config = replace(DROPPING, n_layers=1)
    core, hidden, lengths = exact_problem(config, [4, 9, 1, 15])
    core, hidden = core.float(), hidden.float().requires_grad_()
    options = {"num_steps": 1, "rollouts": 2, "return_state": True}

    def run(padded: bool) -> list[Tensor]:
        if padded:
            out = core(hidden, lengths, **options)
        else:
            rows, offsets = packed(hidden, lengths)
            out = core(rows, cu_seqlens=offsets, **options)
        loss = out.last.square().sum() + out.state.square().sum()
        return [out.last, *torch.autograd.grad(loss, [hidden, *core.parameters()])]

    with use_backend("triton"):
        first = run(padded=True)
        for other in (run(padded=True), run(padded=False)):
            for mine, wanted in zip(other, first, strict=True):
                assert torch.equal(mine, wanted)


def test_a_sequence_alone_gives_the_same_bits() -> None:
    core, hidden, lengths = exact_problem(DROPPING, [4, 9, 1, 15])
    core, hidden = core.float().train(), hidden.float()
    with use_backend("triton"), torch.no_grad():
        together = core(hidden, lengths, num_steps=2)
        for i, n in enumerate(lengths.tolist()):
            alone = core(hidden[i : i + 1, :n], num_steps=2, sequence_ids=torch.tensor([i]))
            assert relative(alone.last[0], together.last[i]) < 1e-6


def test_half_precision_by_the_yardstick() -> None:
    """In float16 the error is at most twice that of plain PyTorch in the same precision.

    It stands for bfloat16, too, which the interpreter cannot multiply. Twice with an allowance, since
    both errors are draws of chance at this size.
    """
    core, hidden, lengths = exact_problem(DROPPING, [4, 9, 1, 15])
    options = {"num_steps": 2, "precision": "fp16"}
    with use_backend("equations"):
        exact, exact_grads = outputs_and_gradients(core, hidden, lengths, num_steps=2)
    core.float()
    errors = []
    for backend in ("reference", "triton"):
        with use_backend(backend):
            found, grads = outputs_and_gradients(core, hidden.float(), lengths, **options)
        pairs = zip([*found, *grads], [*exact, *exact_grads], strict=True)
        errors.append([float((mine.double() - wanted).detach().norm()) for mine, wanted in pairs])
    for mine, yardstick, wanted in zip(errors[1], errors[0], [*exact, *exact_grads], strict=True):
        assert mine <= 2.0 * yardstick + 2e-4 * float(wanted.detach().norm())


RESIDENT = [
    DROPPING,
    replace(DROPPING, adapter="concat", norm="pre", n_heads=4, d_ff=130),
    replace(SMALL, adapter="none", n_layers=1),
    CoreConfig(dropout=0.5, attn_dropout=0.5),
]


@pytest.mark.parametrize("config", RESIDENT, ids=name)
def test_weights_kept_on_the_chip_change_no_bit(config: CoreConfig) -> None:
    core, hidden, lengths = exact_problem(config, [5, 18, 1])
    core, steps = core.float().train(), 2 if config.is_recurrent else 1
    found = []
    for where in WEIGHTS:
        with use_backend("triton"), use_weights(where):
            options = {"num_steps": steps, "precision": "fp16"}  # two layers of float32 do not fit
            assert f"weights {where}" in explain(config, lengths, steps, precision="fp16").plan
            out = core(hidden.float(), lengths, return_state=True, **options)
            found.append([out.last, out.state])
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine, other)


def test_weights_that_cannot_be_where_they_are_asked_for() -> None:
    with pytest.raises(ValueError, match="resident or streamed, not 'here'"), use_weights("here"):
        pass
    with use_backend("triton"), use_weights("resident"):
        with pytest.raises(ValueError, match="resident weights of 393216 bytes"):
            explain(CoreConfig(), [20], 1)  # float32
        with pytest.raises(ValueError, match="the layered plan"):
            explain(CoreConfig(), [65], 1)


def test_the_benchmark_races_both_places() -> None:
    case = replace(quick(MAIN), device="cpu", precision="fp32", steps=1)
    assert weights_of(case) == ["op:triton:resident", "op:triton:streamed"]
    for name_of_it in weights_of(case):
        check(name_of_it, case)
    assert weights_of(replace(case, d_model=128)) == []


def test_backward_of_the_other_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only forward has a tile that holds the call."""
    longest = {"forward": 64, "backward": 16}
    monkeypatch.setattr(
        triton_backend, "longest_sequence", lambda family, kernel, *key: longest[kernel]
    )
    config = replace(DROPPING, n_layers=1)
    with use_backend("triton"):
        assert "backward layer by layer" in explain(config, [20, 3], 3, training=True).plan
        assert "backward" not in explain(config, [20, 3], 3).plan
        assert "backward" not in explain(config, [16, 3], 3, training=True).plan
    depths = torch.tensor([[2, 1], [1, 3]])
    assert_equal_to_equations("triton", config, [3, 20], num_steps=depths, rollouts=2)


def test_explain_names_the_plan() -> None:
    with use_backend("triton"):
        found = explain(CoreConfig(), [20, 7], 4)
    assert found.backend == "triton"
    assert "tiles of 32 rows" in found.plan


@pytest.mark.parametrize("width", [16, 12], ids=["fused", "layered"])
def test_products_in_bfloat16_are_left_to_cards(width: int) -> None:
    """But not states in it, which are read as they are."""
    core, hidden, lengths = exact_problem(replace(SMALL, d_model=width, n_layers=1), [4, 2])
    core.float()
    half = hidden.bfloat16()
    refused = pytest.raises(
        BackendError, match=r"bfloat16; it serves torch\.float32, torch\.float16"
    )
    with use_backend("triton"):
        with refused:
            core(hidden.float(), lengths, num_steps=1, precision="bf16")
        with refused, torch.autocast("cpu", torch.bfloat16):
            core(hidden.float(), lengths, num_steps=1)
        with refused:
            core(half, lengths, num_steps=1)
        with refused:
            explain(core.config, lengths, 1, precision="bf16")
        found = core(half, lengths, num_steps=1, precision="fp32").last
    with use_backend("equations"):
        wanted = core.double()(half.double(), lengths, num_steps=1).last
    assert relative(found.double(), wanted) < 5e-3  # it is rounded to bfloat16


def test_says_what_it_cannot_serve() -> None:
    core = RecurrentCore(SMALL)
    with use_backend("triton"):
        with pytest.raises(BackendError, match=r"products in torch\.float64"):
            core.double()(torch.zeros(1, 5, 16, dtype=torch.float64))
        with pytest.raises(ValueError, match="length 0"):
            core.float()(torch.zeros(2, 5, 16), torch.tensor([3, 0]))
