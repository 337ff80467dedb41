"""The cores that mix whole windows, in both plans, against the equations in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch

from lares_kernels import CoreConfig, explain, use_backend, warmup
from lares_kernels.triton.launch.settings import use_weights
from tests.kernels.problems import (
    assert_equal_to_equations,
    assert_newest_rows_alone_suffice,
    exact_problem,
    outputs_and_gradients,
)
from tests.kernels.triton.interpreted.test_layered import layered  # noqa: F401
from tests.objectives.test_goldens import check_outputs_and_gradients

FILTER = CoreConfig(
    d_model=16, n_heads=2, d_ff=24, n_layers=1, mixer="filter", window=9, dropout=0.5
)
BSAREC = replace(FILTER, mixer="bsarec", attn_dropout=0.25)
CORES = pytest.mark.parametrize("config", [FILTER, BSAREC], ids=lambda c: c.mixer)
# Of themselves these calls are the fused plan's. Activations, which do not depend on the mixer, are
# proven with attention (test_fused.py, test_layered.py).
PLANS = pytest.mark.parametrize("plan", ["triton", "layered"])
LENGTHS = [1, 9, 4]


@PLANS
@pytest.mark.usefixtures("poisoned_memory")
@CORES
def test_two_layers(plan: str, config: CoreConfig) -> None:
    config = replace(config, n_layers=2, inner_dropout=0.25)
    assert_equal_to_equations(plan, config, LENGTHS, num_steps=2, seed=2**63 + 5)


@PLANS
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("config", "adapter"),
    [(FILTER, "concat"), (FILTER, "none"), (BSAREC, "gate"), (BSAREC, "none")],
    ids=["filter-concat", "filter-none", "bsarec-gate", "bsarec-none"],
)
def test_adapters_without_dropout(plan: str, config: CoreConfig, adapter: str) -> None:
    config = replace(config, adapter=adapter, dropout=0.0, attn_dropout=0.0)
    steps = 2 if config.is_recurrent else 1
    assert_equal_to_equations(plan, config, LENGTHS, num_steps=steps)


@pytest.mark.parametrize(
    ("plan", "window"), [("triton", 1), ("triton", 8), ("layered", 1), ("layered", 70)]
)
@CORES
def test_windows(plan: str, config: CoreConfig, window: int) -> None:
    """A single row; two that fill a tile, with a frequency of half their length; more than a block."""
    config = replace(config, window=window, cutoff=5)
    lengths = [window, (window + 1) // 2]
    assert_equal_to_equations(plan, config, lengths, num_steps=1)


@pytest.mark.parametrize(("plan", "width"), [("triton", 24), ("layered", 72)])
@CORES
def test_widths(plan: str, config: CoreConfig, width: int) -> None:
    config = replace(config, d_model=width, n_heads=3, d_ff=20)
    assert_equal_to_equations(plan, config, LENGTHS, num_steps=1)


@PLANS
@pytest.mark.parametrize("cutoff", [1, 99])
def test_cutoffs(plan: str, cutoff: int) -> None:
    """The mean alone, and all there is."""
    config = replace(BSAREC, cutoff=cutoff, band_share=0.25)
    assert_equal_to_equations(plan, config, LENGTHS, num_steps=1)


@PLANS
@CORES
def test_dropout_of_the_feed_forward_alone(plan: str, config: CoreConfig) -> None:
    config = replace(config, dropout_of="feed-forward")
    assert_equal_to_equations(plan, config, LENGTHS, num_steps=1)


@PLANS
@pytest.mark.usefixtures("poisoned_memory")
@CORES
def test_depths_and_rollouts(plan: str, config: CoreConfig) -> None:
    depths = torch.tensor([[2, 1], [1, 3]])
    ids = torch.tensor([9, 2**24 - 1])
    assert_equal_to_equations(
        plan, config, LENGTHS[:2], num_steps=depths, rollouts=2, sequence_ids=ids
    )


@PLANS
@CORES
def test_a_run_that_goes_on_from_a_state(plan: str, config: CoreConfig) -> None:
    state = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(5))
    options = {"num_steps": 2, "state": state, "steps_done": 3}
    assert_equal_to_equations(plan, config, LENGTHS, **options)


@pytest.mark.parametrize(
    ("plan", "given"), [("triton", True), ("layered", False), ("layered", True)]
)
@pytest.mark.usefixtures("poisoned_memory")
@CORES
def test_only_the_newest_rows_are_computed_at_the_end(
    plan: str, config: CoreConfig, given: bool
) -> None:
    config = replace(config, n_layers=2)
    assert_newest_rows_alone_suffice(plan, config, LENGTHS[1:], torch.tensor([1, 2]), given)


@PLANS
@CORES
def test_half_precision_keeps_to_twice_the_equations(plan: str, config: CoreConfig) -> None:
    # float16 stands for bfloat16, which the interpreter cannot multiply.
    core, hidden, lengths = exact_problem(config, LENGTHS)
    with use_backend("equations"):
        exact = outputs_and_gradients(core, hidden, lengths, num_steps=2)
    core.float()
    errors = []
    for backend in ("equations", plan):
        with use_backend(backend):
            run = outputs_and_gradients(
                core, hidden.float(), lengths, num_steps=2, precision="fp16"
            )
        parts = list(zip(chain(*run), chain(*exact), strict=True))
        scale = 1e-3 * max(float(wanted.norm()) for _, wanted in parts)
        errors.append(
            [
                float((part.double() - wanted).norm()) / max(float(wanted.norm()), scale)
                for part, wanted in parts
            ]
        )
    rough, mine = errors
    assert all(m <= max(2.0 * r, 1e-4) for m, r in zip(mine, rough, strict=True))


@pytest.mark.parametrize("name", ["bsarec", "fmlprec"])
def test_the_published_programs(name: str) -> None:
    with use_backend("triton"):
        check_outputs_and_gradients(name, 1e-5, 1e-4, torch.float32)


@PLANS
@CORES
def test_two_runs_give_the_same_bits(plan: str, config: CoreConfig) -> None:
    core, hidden, lengths = exact_problem(config, LENGTHS)
    core.float()
    with use_backend(plan):
        runs = [outputs_and_gradients(core, hidden.float(), lengths, num_steps=1) for _ in range(2)]
    for mine, again in zip(*runs, strict=True):
        assert all(map(torch.equal, mine, again))


@pytest.mark.parametrize(
    ("config", "window", "text"),
    [(BSAREC, 9, "in registers for all"), (FILTER, 70, "layer by layer")],
    ids=["fused", "layered"],
)
def test_the_plan_is_named_and_can_be_warmed_up(config: CoreConfig, window: int, text: str) -> None:
    config = replace(config, window=window)
    with use_backend("triton"):
        plan = explain(config, LENGTHS, 2).plan
        warmup(config, config.window, "cpu")
    assert text in plan
    assert f"{3 * window} " in plan  # padding counts among the tokens


@CORES
def test_weights_are_not_resident(config: CoreConfig) -> None:
    with (
        use_backend("triton"),
        use_weights("resident"),
        pytest.raises(ValueError, match="resident"),
    ):
        explain(config, LENGTHS, 2)


@PLANS
@CORES
def test_a_length_past_the_window_is_named(plan: str, config: CoreConfig) -> None:
    core, hidden, _ = exact_problem(config, LENGTHS)
    core.float()
    with use_backend(plan), pytest.raises(ValueError, match="sequence 1 has length 10"):
        core(hidden.float(), torch.tensor([1, 10, 4]), num_steps=1)
