"""NaN and infinity in the catalogue's kernels under Triton's interpreter: every backend's checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.kernels import test_catalogue_non_finite as shared
from tests.kernels.catalogues import make_catalogue
from tests.kernels.non_finite import VALUES, put

NAN, INF, CARDS_NAN, MINUS_INF, MINUS_NAN = VALUES.values()


@pytest.mark.parametrize(("scores", "value"), [("dot", NAN), ("cosine", INF)])
def test_an_item_that_some_exclude(scores: str, value: float) -> None:
    shared.test_an_item_that_some_exclude_is_seen_by_the_others("triton", scores, value)


CHECKS: list[Callable[[str], Any]] = [
    partial(shared.test_an_item_that_everyone_excludes_spoils_nothing, scores="dot", value=INF),
    partial(shared.test_an_item_that_everyone_excludes_spoils_nothing, scores="cosine", value=NAN),
    partial(shared.test_whether_the_temperature_learns_is_no_matter, scores="cosine", value=INF),
    partial(shared.test_an_item_is_seen, scores="dot", value=CARDS_NAN),
    partial(shared.test_an_item_is_seen, scores="cosine", value=MINUS_INF),
    partial(shared.test_a_chosen_item_is_seen, value=MINUS_INF),
    partial(shared.test_a_chosen_item_is_seen, value=MINUS_NAN),
    partial(shared.test_a_query_stays_in_its_row, scores="dot", value=INF, hides=None),
    partial(shared.test_a_query_stays_in_its_row, scores="cosine", value=NAN, hides=shared.HIDES),
    shared.test_scores_that_overflow_are_seen,
    partial(shared.test_scores_of_minus_infinity_have_no_share, n_items=5, level=-1000.0),
    partial(shared.test_scores_of_minus_infinity_have_no_share, n_items=40, level=0.0),
    partial(shared.test_rows_whose_scores_are_all_minus_infinity, n_items=333, excludes=False),
    partial(shared.test_rows_whose_scores_are_all_minus_infinity, n_items=70, excludes=True),
    shared.test_finite_numbers_whose_scores_are_minus_infinity,
    partial(shared.test_scores_at_the_ends_of_float32, level=3e38),
]


def told(check: Any) -> str:
    """Name of a check and what it is given."""
    given = getattr(check, "keywords", {}).values()
    return "-".join(
        [getattr(check, "func", check).__name__.removeprefix("test_"), *map(str, given)]
    )


@pytest.mark.parametrize("check", CHECKS, ids=told)
def test_what_every_backend_does(check: Callable[[str], Any]) -> None:
    check("triton")


@pytest.mark.parametrize(("width", "precision"), [(20, "fp32"), (200, "fp16"), (100, "fp16")])
def test_widths_of_several_slices(width: int, precision: str) -> None:
    """A number of every slice; in halves, too, where a product has slices of its own."""
    clean = replace(
        make_catalogue(5, 40, width).to(torch.float32),
        chosen=torch.tensor([0, 1, 2, 3, 4]),
        excluded=torch.tensor([[20, 30], [-1, 20], [30, 20], [30, -1], [20, 30]]),
    )
    found = clean.results("triton", precision=precision)
    for place, value in ((0, NAN), (width // 2, INF), (width - 1, MINUS_INF)):
        items = clean.items.clone()
        put(items, 20 * width + place, value)
        put(items, 30 * width + place, NAN)
        problem = replace(clean, items=items)
        spoilt = problem.results("triton", precision=precision)
        shared.assert_same(spoilt, found, torch.tensor([True, False, True, False, True]))
        for name, wanted in shared.results_by_hand(problem.to(torch.float64)).items():
            assert torch.equal(spoilt[name].isfinite(), wanted.isfinite()), name
