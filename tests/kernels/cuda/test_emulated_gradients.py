"""Gradients by the CUDA kernels' device code, run by the emulator, against the equations in float64.

The rule of test_emulated.py, for every gradient by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig, RecurrentCore, use_backend
from lares_kernels.cuda import backend as cuda_backend
from lares_kernels.cuda.plan import shapes_of
from lares_kernels.gpu import scratch
from tests.kernels.cuda.test_emulated import (
    LENGTHS,
    LONGER,
    PUBLISHED,
    SMALL,
    WIDE,
    YARDSTICKS,
    runs,
)
from tests.kernels.gpu.test_scratch import TAKEN, fills
from tests.kernels.last_states import check_last_states
from tests.kernels.problems import (
    DEPTHS,
    exact_problem,
    gradients_of_the_given_state,
    random_loss,
)

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")


def gradients(
    core: RecurrentCore, hidden: Tensor, lengths: Tensor, **options: Any
) -> dict[str, Tensor]:
    """Of a random linear function of trajectory and state, for hidden and every parameter."""
    hidden = hidden.clone().requires_grad_()
    out = core(hidden, lengths, return_trajectory=True, return_state=True, **options)
    loss = random_loss(out.trajectory, out.state)
    named = {"hidden": hidden, **dict(core.named_parameters())}
    return dict(zip(named, torch.autograd.grad(loss, [*named.values()]), strict=True))


def check(config: CoreConfig, lengths: list[int], precision: str = "bf16", **options: Any) -> None:
    found, plain, exact = runs(gradients, config, lengths, precision, **options)
    # A gradient that is next to nothing (a key's bias) is measured on the largest one's scale.
    floor = 1e-3 * max(float(g.norm()) for g in exact.values())
    scales = {name: max(float(g.norm()), floor) for name, g in exact.items()}

    def errors(g: dict[str, Tensor]) -> dict[str, float]:
        return {n: float((g[n].double() - exact[n]).norm()) / scales[n] for n in exact}

    allowance = 2e-3 if precision == "bf16" else 2e-4  # both errors are draws of chance
    mine, yardsticks = errors(found), errors(plain)
    for name, error in mine.items():
        yardstick = yardsticks[name]
        if exact[name].numel() == 1:  # a single draw, which may be next to nothing
            yardstick = max(yardsticks.values())
        assert error <= YARDSTICKS * yardstick + allowance, name


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("depth", [1, 4])
def test_published_core(precision: str, depth: int) -> None:
    check(PUBLISHED, LENGTHS, precision, num_steps=depth, seed=2**63 + 5)


def test_a_run_that_goes_on_from_a_state() -> None:
    width, longest = SMALL.d_model, max(LENGTHS)
    state = torch.randn(len(LENGTHS), longest, width, generator=torch.Generator().manual_seed(5))
    check(SMALL, LENGTHS, num_steps=2, state=state, steps_done=3)


def test_without_dropout() -> None:
    check(CoreConfig(), LENGTHS, "fp16")


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm(adapter: str, norm: str) -> None:
    check(replace(SMALL, adapter=adapter, norm=norm, n_layers=2), LENGTHS, "fp16")


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_adapter_and_norm_of_wide_rows(adapter: str, norm: str) -> None:
    check(replace(WIDE, adapter=adapter, norm=norm), LENGTHS, "fp16")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("heads", [2, 4])
def test_wide_rows_of_long_sequences(heads: int, precision: str) -> None:
    config = CoreConfig(128, heads, 160, 2, dropout=0.5, attn_dropout=0.5)
    check(config, [50, 3, 64, 17], precision)


@pytest.mark.parametrize("activation", ["gelu_tanh", "relu", "silu"])
def test_every_activation(activation: str) -> None:
    check(replace(SMALL, activation=activation), LENGTHS, "fp16")


@pytest.mark.parametrize(
    ("width", "heads", "inner", "layers"),
    [(32, 1, 64, 2), (32, 4, 1, 1), (64, 2, 70, 1), (64, 4, 33, 3), (64, 8, 96, 2)]
    + [(64, 1, 48, 2), (128, 2, 100, 1), (128, 4, 64, 2), (128, 8, 33, 1)],
)
def test_every_shape(width: int, heads: int, inner: int, layers: int) -> None:
    config = CoreConfig(width, heads, inner, layers, dropout=0.1, attn_dropout=0.1)
    check(config, [1, 18, 4, 32], "fp16")


@pytest.mark.parametrize("length", [1, 16, 17, 33, 64])
def test_sequences_as_long_as_a_tile(length: int) -> None:
    check(SMALL, [length, 2, length, max(1, 40 * length // 64)], "fp16")


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("lengths", LONGER, ids=str)
def test_longer_sequences_that_begin_anywhere_in_a_tile(lengths: list[int], dropout: float) -> None:
    check(replace(SMALL, dropout=dropout, attn_dropout=0.0), lengths, "fp16")


@pytest.mark.parametrize("rollouts", [1, 3])
def test_depths_and_rollouts(rollouts: int) -> None:
    depths = DEPTHS[:, :rollouts]
    ids = torch.tensor([7, 2**24 - 1, 0, 3])
    options = {"num_steps": depths, "rollouts": rollouts, "sequence_ids": ids}
    check(SMALL, [4, 9, 1, 30], "fp16", **options)


@pytest.mark.parametrize("adapter", ["add", "concat"])
def test_steps_in_groups(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all steps fit the memory set aside, backward takes several launches."""
    config = replace(SMALL, adapter=adapter)
    monkeypatch.setattr(cuda_backend, "spill_bytes", lambda device: 1 << 18)
    assert cuda_backend.steps_at_once(shapes_of(config), 8, 5, 1 << 18) in (2, 3, 4)
    depths = torch.tensor([2, 5, 1, 3])
    check(config, [4, 9, 1, 15], "fp16", num_steps=depths)


def test_gradients_of_the_given_state_and_of_the_trajectory_alone() -> None:
    found, exact = gradients_of_the_given_state("cuda", SMALL, precision="fp16")
    floor = 1e-3 * max(float(g.norm()) for g in exact)
    for mine, wanted in zip(found, exact, strict=True):
        assert float((mine.double() - wanted).norm()) < 5e-3 * max(float(wanted.norm()), floor)


def test_many_sequences_and_the_same_bits_twice() -> None:
    lengths = [(7 * i) % 20 + 1 for i in range(100)]
    core, hidden, sizes = exact_problem(SMALL, lengths)
    core, hidden = core.float(), hidden.float()
    options = {"num_steps": torch.arange(100) % 3 + 1, "precision": "fp16"}
    with use_backend("cuda"):
        first = gradients(core, hidden, sizes, **options)
        again = gradients(core, hidden, sizes, **options)
    for name, mine in first.items():
        assert torch.equal(mine, again[name]), name


@pytest.mark.parametrize("rollouts", [1, 2])
def test_packed_equals_padded(rollouts: int) -> None:
    core, hidden, lengths = exact_problem(SMALL, LENGTHS)
    core, hidden = core.float(), hidden.float().requires_grad_()
    options = {"num_steps": 2, "rollouts": rollouts, "precision": "bf16"}
    results = []
    with use_backend("cuda"):
        for packed in (False, True):
            if packed:
                rows = torch.cat([row[:n] for row, n in zip(hidden, LENGTHS, strict=True)])
                offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
                out = core(rows, cu_seqlens=offsets, **options)
            else:
                out = core(hidden, lengths, **options)
            loss = out.last.square().sum()
            results.append(torch.autograd.grad(loss, [hidden, *core.parameters()]))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_no_scratch_is_filled_under_deterministic_algorithms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But the kept states, of which kernels do not write all."""
    monkeypatch.setattr(scratch, "_taken", TAKEN)
    core, hidden, sizes = exact_problem(SMALL, LENGTHS)
    core, hidden, options = core.float(), hidden.float(), {"num_steps": 2, "precision": "bf16"}
    with use_backend("cuda"):
        gradients(core, hidden, sizes, **options)  # what is made once is made
        assert fills(lambda: gradients(core, hidden, sizes, **options), least=16) == ["empty"]


@pytest.mark.parametrize("rate", [0.5, 0.0])
def test_last_states(rate: float) -> None:
    """By tiles in training; without gradients and dropout by the low-latency plan."""
    config = replace(SMALL, dropout=rate, attn_dropout=rate)
    check_last_states("cuda", config, 2, "bf16", 3e-2)
