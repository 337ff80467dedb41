"""Packed, padded, one at a time: the same numbers, the same random decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lares_kernels import available_backends, use_backend
from tests.kernels.problems import SMALL, make_problem, relative

NOISY = replace(SMALL, dropout=0.5, attn_dropout=0.3)


def packed(problem, rows):
    return torch.cat([row[:length] for row, length in zip(rows, problem.lengths, strict=True)])


@pytest.mark.parametrize("depth", [3, torch.tensor([2, 1, 4, 3])], ids=["int", "per-sequence"])
@pytest.mark.usefixtures("poisoned_memory")
def test_packed_equals_padded(depth, program: str) -> None:
    problem = make_problem(NOISY, depth=depth)
    padded = problem.run()
    cu_seqlens = torch.nn.functional.pad(problem.lengths.cumsum(0), (1, 0)).int()
    out = problem.core(
        packed(problem, problem.hidden),
        cu_seqlens=cu_seqlens,
        num_steps=depth,
        return_trajectory=True,
        return_state=True,
    )
    assert torch.equal(out.trajectory, padded.trajectory)
    assert torch.equal(out.state, packed(problem, padded.state))
    assert padded.state[0, 1:].abs().max() == 0


def test_one_at_a_time_equals_the_batch(program: str) -> None:
    problem = make_problem(NOISY)
    together = problem.run()
    for i, length in enumerate(problem.lengths.tolist()):
        alone = problem.core(
            problem.hidden[i : i + 1, :length],
            num_steps=3,
            sequence_ids=torch.tensor([i]),
            return_trajectory=True,
            return_state=True,
        )
        assert relative(alone.trajectory, together.trajectory[i : i + 1]) < 1e-14
        assert relative(alone.state[0], together.state[i, :length]) < 1e-14


def test_batch_order_does_not_matter() -> None:
    problem = make_problem(NOISY)
    expected = problem.run().last
    order = torch.tensor([2, 0, 3, 1])
    out = problem.core(
        problem.hidden[order], problem.lengths[order], num_steps=3, sequence_ids=order
    )
    assert relative(out.last, expected[order]) < 1e-14


def test_padding_is_never_read() -> None:
    problem = make_problem(NOISY)
    expected = problem.run()
    with torch.no_grad():
        for row, length in enumerate(problem.lengths.tolist()):
            problem.hidden[row, length:] = float("nan")
    found = problem.run()
    assert torch.equal(found.trajectory, expected.trajectory)
    assert torch.equal(found.state, expected.state)


def test_deeper_runs_pass_through_shallower_ones() -> None:
    problem = make_problem(SMALL, depth=6)
    deep = problem.run()
    for depth in (1, 2, 5):
        assert torch.equal(problem.run(num_steps=depth).last, deep.trajectory[:, depth - 1])


def test_trajectory_repeats_past_a_sequences_depth() -> None:
    problem = make_problem(NOISY, depth=torch.tensor([2, 1, 4, 3]))
    out = problem.run()
    assert out.trajectory.shape == (4, 4, 16)
    for row, depth in enumerate([2, 1, 4, 3]):
        alone = problem.run(num_steps=depth)
        assert relative(out.trajectory[row, :depth], alone.trajectory[row]) < 1e-14
        repeated = out.trajectory[row, depth - 1 :]
        assert torch.equal(repeated, repeated[:1].expand_as(repeated))
        assert relative(out.state[row], alone.state[row]) < 1e-14


def test_rollouts_are_independent_runs_over_the_same_hidden() -> None:
    problem = make_problem(NOISY, rollouts=3)
    out = problem.run()
    assert out.last.shape == (4, 3, 16)
    assert out.state.shape == (4, 3, 9, 16)
    single = problem.run(rollouts=1)
    assert relative(out.trajectory[:, 0], single.trajectory) < 1e-14
    assert not torch.allclose(out.last[:, 1], out.last[:, 2])


def test_given_state_is_used() -> None:
    problem = make_problem(SMALL)
    zero = problem.run(state="zero").last
    assert torch.equal(problem.run(state=torch.zeros_like(problem.hidden)).last, zero)
    assert not torch.equal(problem.run().last, zero)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_inputs_type(dtype: torch.dtype) -> None:
    problem = make_problem(SMALL)
    expected = problem.run(state="zero")
    problem.core.to(dtype)
    problem.hidden = problem.hidden.detach().to(dtype)
    out = problem.run(state="zero")
    assert {out.last.dtype, out.trajectory.dtype, out.state.dtype} == {dtype}
    bound = 1e-5 if dtype == torch.float32 else 5e-2
    assert relative(out.last.double(), expected.last) < bound


def test_autocast_and_precision_take_products_in_bfloat16() -> None:
    problem = make_problem(SMALL)
    problem.core.float()
    problem.hidden = problem.hidden.detach().float()
    exact = problem.run().last
    with use_backend("reference"):  # a kernel rounds only where it gains by it
        asked = problem.run(precision="bf16").last
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = problem.run().last
    assert torch.equal(asked, cast)
    assert 1e-5 < relative(asked, exact) < 5e-2


def test_lengths_may_lie_apart() -> None:
    """Kernels read them one after the other."""
    problem = make_problem(SMALL)
    core, hidden = problem.core.float(), problem.hidden.detach().float()
    apart = problem.lengths.repeat_interleave(2)[::2]
    for backend, state in available_backends().items():
        if state == "usable":
            with use_backend(backend):
                found, wanted = (
                    core(hidden, lengths, num_steps=2).last for lengths in (apart, problem.lengths)
                )
            assert torch.equal(found, wanted), backend


@pytest.mark.usefixtures("poisoned_memory")
def test_poisoned_memory_allows_what_is_not_deterministic() -> None:
    """On a GPU that is every product, unless the environment says otherwise."""
    assert torch.empty(3).isnan().all()
    numbers = torch.zeros(3)
    numbers.put_(torch.tensor([1]), torch.ones(1))
    assert numbers[1] == 1
