"""The Triton kernels of the catalogue ops, by the tests that every backend passes.

The interpreter cannot multiply bfloat16: float16, which goes the same way through the kernels, stands
for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import lares_kernels as lk
from lares_kernels.operators import catalogue as ops
from lares_kernels.triton import catalogue
from tests.kernels import test_catalogue as shared
from tests.kernels.catalogues import make_catalogue, ranks_by_hand, top_k_by_hand
from tests.kernels.catalogues import whole_numbers_catalogue as whole_numbers
from tests.kernels.problems import relative


@pytest.mark.parametrize(
    ("n_rows", "n_items", "width", "steps", "scores", "n_excluded"),
    [
        (3, 1, 8, 1, "dot", 0),
        (3, 1, 8, 1, "cosine", 0),
        (70, 130, 20, 1, "dot", 9),
        (70, 130, 20, 1, "cosine", 1),
        (25, 333, 64, 3, "dot", 1),
        (25, 333, 64, 3, "cosine", 9),
        (25, 130, 64, 3, "dot", 0),
    ],
)
def test_log_probabilities(
    n_rows: int, n_items: int, width: int, steps: int, scores: str, n_excluded: int
) -> None:
    problem = make_catalogue(
        n_rows,
        n_items,
        width,
        steps=steps,
        n_excluded=n_excluded,
        scores=scores,
        temperature=0.5,
    )
    shared.check(problem, "triton")


def test_a_width_that_is_no_power_of_two() -> None:
    shared.check(make_catalogue(5, 70, 40, n_excluded=2), "triton")


@pytest.mark.parametrize("n_items", [1, 64, 200])
@pytest.mark.parametrize("n_excluded", [0, 6])
def test_ranks_and_top_k_with_ties(n_items: int, n_excluded: int) -> None:
    problem = whole_numbers(19, n_items, 5, n_excluded if n_items > 1 else 0)
    queries, items = problem.queries[:, 0].float(), problem.items.float()
    with lk.use_backend("triton"):
        ranks = lk.catalogue_ranks(queries, items, problem.chosen, excluded=problem.excluded)
        assert torch.equal(ranks, ranks_by_hand(problem))
        for k in {1, min(n_items, 10)}:
            found = lk.catalogue_top_k(queries, items, k, excluded=problem.excluded)
            scores, ids = top_k_by_hand(problem, k)
            assert torch.equal(found.ids, ids)
            assert torch.equal(found.scores.double(), scores)


def test_a_longer_list_than_a_tile_of_the_other_ops() -> None:
    problem = whole_numbers(2, 150, 5)
    with lk.use_backend("triton"):
        found = lk.catalogue_top_k(problem.queries[:, 0].float(), problem.items.float(), 70)
    assert torch.equal(found.ids, top_k_by_hand(problem, 70)[1])


def test_more_items_than_the_kernel_keeps() -> None:
    problem = whole_numbers(3, 300, 5)
    with lk.use_backend("triton"):
        found = lk.catalogue_top_k(
            problem.queries[:, 0].float(), problem.items.float(), catalogue.MAX_K + 1
        )
    assert torch.equal(found.ids, top_k_by_hand(problem, catalogue.MAX_K + 1)[1])


@pytest.mark.usefixtures("poisoned_memory")
def test_what_every_backend_does() -> None:
    shared.test_temperature_and_cosine_of_top_k("triton")
    shared.test_everything_excluded("triton")
    shared.test_excluded_items_have_no_gradient("triton")
    shared.test_scores_far_apart("triton", 60.0)
    shared.test_what_is_not_finite_is_seen("triton", float("nan"))
    shared.test_rows_too_short_to_normalise("triton")
    shared.test_no_rows("triton")


def test_half_precision_keeps_to_twice_plain_pytorch() -> None:
    problem = make_catalogue(40, 150, 24, n_excluded=3)
    exact = problem.results("equations")
    single = problem.to(torch.float32)
    rough = single.results("equations", precision="fp16")
    found = single.results("triton", precision="fp16")
    for key, wanted in exact.items():
        mine, yardstick = (float((t[key].double() - wanted).norm()) for t in (found, rough))
        assert mine <= 2 * yardstick + 1e-4 * float(wanted.norm()), key


def test_two_runs_give_the_same_bits() -> None:
    problem = make_catalogue(40, 300, 24, n_excluded=3).to(torch.float32)
    first, again = problem.results("triton"), problem.results("triton")
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_it_does_not_serve() -> None:
    with lk.use_backend("triton"), pytest.raises(lk.BackendError, match="items are 300 wide"):
        lk.catalogue_ranks(torch.ones(1, 300), torch.ones(2, 300), torch.tensor([0]))


def test_products_in_bfloat16_are_left_to_cards() -> None:
    """But not tables in it, which are read as they are."""
    problem = make_catalogue(5, 70, 8)
    exact = problem.to(torch.bfloat16).to(torch.float64).results("equations")
    single, half = problem.to(torch.float32), problem.to(torch.bfloat16)
    with pytest.raises(
        lk.BackendError, match=r"bfloat16; it serves torch\.float32, torch\.float16"
    ):
        single.results("triton", precision="bf16")
    with (
        lk.use_backend("triton"),
        pytest.raises(lk.BackendError, match="products in torch.bfloat16"),
    ):
        lk.catalogue_top_k(single.queries[:, 0], single.items, 3, precision="bf16")
    for precision, bound in (("fp32", 1e-6), ("fp16", 1e-2)):
        found = half.results("triton", precision=precision)["log_probability"]
        assert relative(found.double(), exact["log_probability"]) < bound


@pytest.fixture
def values_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which would have to be waited for."""
    monkeypatch.setattr(ops, "checks_values", lambda tensor: False)


OUTSIDE = [-1, -(2**40), 70, 95, 2**31 + 3, 2**62]  # of 70 items; 95 would be in the last block


@pytest.mark.usefixtures("values_unchecked", "poisoned_memory")
@pytest.mark.parametrize("options", [{}, {"scores": "cosine", "n_excluded": 3}], ids=str)
def test_ids_that_nobody_looked_at_are_nan(options: dict[str, Any]) -> None:
    """Their log-probability and all that it has a gradient by; other rows keep what they have."""
    problem = make_catalogue(9, 70, 8, steps=2, **options).to(torch.float32)
    wanted = problem.results("triton")
    chosen = problem.chosen.clone()
    chosen[: len(OUTSIDE)] = torch.tensor(OUTSIDE)
    found = replace(problem, chosen=chosen).results("triton")
    assert torch.equal(found["entropy"], wanted["entropy"])
    for part in ("log_probability", "g_queries"):
        assert found[part][: len(OUTSIDE)].isnan().all()
        assert torch.equal(found[part][len(OUTSIDE) :], wanted[part][len(OUTSIDE) :])
    assert found["g_items"].isnan().all()


@pytest.mark.usefixtures("values_unchecked", "poisoned_memory")
def test_targets_that_nobody_looked_at_have_no_rank() -> None:
    problem = whole_numbers(9, 70, 5, n_excluded=3)
    targets = problem.chosen.clone()
    targets[: len(OUTSIDE)] = torch.tensor(OUTSIDE)
    with lk.use_backend("triton"):
        found = lk.catalogue_ranks(
            problem.queries[:, 0].float(),
            problem.items.float(),
            targets,
            excluded=problem.excluded,
        )
    wanted = ranks_by_hand(problem)
    wanted[: len(OUTSIDE)] = -1
    assert torch.equal(found, wanted)


@pytest.mark.usefixtures("values_unchecked")
def test_excluded_ids_that_nobody_looked_at_are_none() -> None:
    problem = whole_numbers(9, 70, 5, n_excluded=3)
    assert problem.excluded is not None
    outside = torch.tensor([-7, 70, 2**31 - 1, 2**31 + 3, 2**32 + 4, -(2**40), 2**62])
    more = torch.cat([outside.expand(9, -1), problem.excluded], dim=1)
    queries, items = problem.queries[:, 0].float(), problem.items.float()
    with lk.use_backend("triton"):
        wanted, found = (
            [
                lk.catalogue_ranks(queries, items, problem.chosen, excluded=excluded),
                *lk.catalogue_top_k(queries, items, 10, excluded=excluded),
                replace(problem, excluded=excluded).to(torch.float32).results("triton"),
            ]
            for excluded in (problem.excluded, more)
        )
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
