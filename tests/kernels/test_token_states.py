"""A run that is cut in two, and the states read where it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lares_kernels import RecurrentCore, refine_states, use_backend
from lares_kernels.spec.call import MAX_STEPS
from tests.kernels.problems import SMALL, assert_equal_to_equations, make_problem, relative

NOISY = replace(SMALL, dropout=0.5, attn_dropout=0.3)
LENGTHS = [4, 9, 1, 30]


def cut_problem(depths: list[int] | None):
    problem = make_problem(NOISY, depth=5 if depths is None else torch.tensor(depths))
    cu_seqlens = torch.nn.functional.pad(problem.lengths.cumsum(0), (1, 0)).int()
    rows = torch.cat([row[:n] for row, n in zip(problem.hidden, problem.lengths, strict=True)])
    return problem.core, rows.detach().requires_grad_(), cu_seqlens


@pytest.mark.parametrize("depths", [None, [2, 5, 1, 4]], ids=["int", "per-sequence"])
def test_a_run_cut_in_three_is_the_whole_run(depths: list[int] | None, program: str) -> None:
    core, rows, cu_seqlens = cut_problem(depths)
    num_steps = None if depths is None else torch.tensor(depths)
    whole = core(
        rows,
        cu_seqlens=cu_seqlens,
        num_steps=5 if num_steps is None else num_steps,
        return_state=True,
        return_trajectory=True,
    )
    states = refine_states(core, rows, cu_seqlens, [1, 2, 5], num_steps=num_steps, seed=0)
    assert relative(states[-1], whole.state) < 1e-13
    newest = cu_seqlens[1:].long() - 1
    for state, step in zip(states, (1, 2, 5), strict=True):
        assert relative(state[newest], whole.trajectory[:, step - 1]) < 1e-13
    inputs = [rows, *core.parameters()]
    weights = torch.randn(5, *rows.shape, dtype=rows.dtype)
    loss = (whole.state * weights[4]).sum() + (whole.trajectory[:, 1] * weights[1][newest]).sum()
    mine = (states[2] * weights[4]).sum() + (states[1][newest] * weights[1][newest]).sum()
    for found, expected in zip(
        torch.autograd.grad(mine, inputs), torch.autograd.grad(loss, inputs), strict=True
    ):
        assert (found - expected).norm() <= 1e-12 * expected.norm() + 1e-13


def test_the_cpu_kernel_goes_on_where_a_run_was_cut() -> None:
    torch.manual_seed(2)
    state = torch.randn(len(LENGTHS), 30, 16)
    config = replace(NOISY, d_ff=24)
    assert_equal_to_equations("cpu", config, LENGTHS, num_steps=2, state=state, steps_done=3)


def test_steps_are_whole_numbers_of_any_kind() -> None:
    core, rows, cu_seqlens = cut_problem(None)
    wanted = refine_states(core, rows, cu_seqlens, [1, 3], seed=3)
    for steps in ((1, 3), np.array([1, 3]), torch.tensor([1, 3]), np.uint8([1, 3]), range(1, 4, 2)):
        found = refine_states(core, rows, cu_seqlens, steps, seed=3)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    for wrong in ([True, 3], [1, 3.0], [1, "3"], torch.tensor([True]), np.array([1.0]), [None], 3):
        with pytest.raises(TypeError, match="it must be (a )?whole number"):
            refine_states(core, rows, cu_seqlens, wrong)  # type: ignore[arg-type]


def test_what_cannot_be_cut_is_refused() -> None:
    core, rows, cu_seqlens = cut_problem(None)
    with pytest.raises(ValueError, match=r"steps_done is 2, but no state is given"):
        core(rows, cu_seqlens=cu_seqlens, num_steps=2, steps_done=2)
    state = torch.zeros_like(rows)
    with pytest.raises(ValueError, match=f"steps_done is {MAX_STEPS} and num_steps 2"):
        core(rows, cu_seqlens=cu_seqlens, num_steps=2, steps_done=MAX_STEPS, state=state)
    with pytest.raises(ValueError, match=r"steps are \[2, 2\]; give at least one, in ascending"):
        refine_states(core, rows, cu_seqlens, [2, 2])
    with pytest.raises(ValueError, match=r"num_steps is 0; it must be in"):
        refine_states(core, rows, cu_seqlens, [2], num_steps=torch.tensor([2, 0, 1, 2]))
    for wrong, total in (([1, 5, 3], 9), ([1 << 62] * 3 + [(1 << 62) + 18], (1 << 64) + 18)):
        with pytest.raises(ValueError, match=rf"{total} tokens in all .* hidden has 18 rows"):
            refine_states(
                core,
                rows,
                None,
                [2],
                lengths=torch.tensor(wrong),
                num_steps=torch.full((len(wrong),), 2),
            )
    with pytest.raises(ValueError, match=r"sequence 1 has length -1; every sequence needs"):
        refine_states(
            core,
            rows,
            None,
            [2],
            lengths=torch.tensor([10, -1, 9]),
            num_steps=torch.tensor([2, 1, 2]),
        )
    once = RecurrentCore(replace(SMALL, adapter="none"))
    with pytest.raises(ValueError, match=r"has no steps to read"), use_backend("equations"):
        refine_states(once, rows.float(), cu_seqlens, [1])
