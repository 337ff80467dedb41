"""What the catalogue ops must satisfy for any shape and option, beside equality with dense scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lares_kernels as lk
from tests.kernels.catalogues import (
    CatalogueProblem,
    make_catalogue,
    ranks_by_hand,
    top_k_by_hand,
    whole_numbers_catalogue,
)
from tests.kernels.test_catalogue import backends

# Around the sizes at which blocks, tiles, panels and vectors end.
N_ITEMS = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 191, 192, 193, 385, 769]))
N_ROWS = st.sampled_from([1, 2, 15, 47, 48, 49, 97])


@st.composite
def problems_with_ties(draw: Any) -> CatalogueProblem:
    """Whole numbers, so that scores are exact and many are equal."""
    n_items = draw(N_ITEMS)
    return whole_numbers_catalogue(
        draw(N_ROWS),
        n_items,
        draw(st.integers(1, 20)),
        draw(st.sampled_from([0, 1, 5, 40])) if n_items > 1 else 0,
        seed=draw(st.integers(0, 2**20)),
    )


@backends
@settings(max_examples=40, deadline=None)
@given(problem=problems_with_ties(), k=st.integers(1, 769), half=st.booleans())
def test_ranks_and_top_k(backend: str, problem: CatalogueProblem, k: int, half: bool) -> None:
    """Ties against the target; of equal scores the lower id; -1 where fewer than k are left."""
    k = min(k, len(problem.items))
    queries, items = problem.queries[:, 0].float(), problem.items.float()
    options = {"excluded": problem.excluded, "precision": "bf16" if half else "fp32"}
    with lk.use_backend(backend):
        ranks = lk.catalogue_ranks(queries, items, problem.chosen, **options)
        best = lk.catalogue_top_k(queries, items, k, **options)
    assert torch.equal(ranks, ranks_by_hand(problem))
    scores, ids = top_k_by_hand(problem, k)
    assert torch.equal(best.ids, ids)
    assert torch.equal(best.scores.double(), scores)


@backends
@settings(max_examples=25, deadline=None)
@given(
    n_rows=N_ROWS,
    n_items=st.integers(2, 400),
    left_out=st.integers(1, 30),
    scores=st.sampled_from(["dot", "cosine"]),
    seed=st.integers(0, 2**20),
)
def test_excluded_is_as_if_not_there(
    backend: str, n_rows: int, n_items: int, left_out: int, scores: str, seed: int
) -> None:
    """Items that every row excludes, against a catalogue without them."""
    problem = make_catalogue(n_rows, n_items, 12, seed=seed, scores=scores, temperature=0.5)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randperm(n_items, generator=generator)[:left_out]
    kept = torch.ones(n_items, dtype=torch.bool).index_fill(0, ids, False)
    kept[problem.chosen] = True
    out = (~kept).nonzero()[:, 0]
    excluded = torch.cat([out, torch.tensor([-1])]).expand(n_rows, -1)
    single = problem.to(torch.float32)
    whole = CatalogueProblem(single.queries, single.items, single.chosen, excluded, single.options)
    places = kept.cumsum(0) - 1
    less = CatalogueProblem(
        single.queries, single.items[kept], places[single.chosen], None, single.options
    )
    found, wanted = whole.results(backend), less.results(backend)
    assert not found["g_items"][out].any()
    found["g_items"] = found["g_items"][kept]
    for name, value in wanted.items():
        # What is a difference of large numbers is only as exact as these.
        atol = 1e-5 * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=atol)
    with lk.use_backend(backend):
        queries = single.queries[:, 0]
        ranks = lk.catalogue_ranks(queries, whole.items, whole.chosen, excluded=excluded)
        assert torch.equal(ranks, lk.catalogue_ranks(queries, less.items, less.chosen))


@backends
@settings(max_examples=25, deadline=None)
@given(n_rows=N_ROWS, n_items=N_ITEMS, k=st.integers(1, 30), seed=st.integers(0, 2**20))
def test_the_target_is_where_its_rank_says(
    backend: str, n_rows: int, n_items: int, k: int, seed: int
) -> None:
    """Without ties: in the list at its rank, or not in the list and behind it."""
    problem = make_catalogue(n_rows, n_items, 24, seed=seed).to(torch.float32)
    k = min(k, n_items)
    with lk.use_backend(backend):
        queries = problem.queries[:, 0]
        ranks = lk.catalogue_ranks(queries, problem.items, problem.chosen)
        best = lk.catalogue_top_k(queries, problem.items, k).ids
    hits = best == problem.chosen[:, None]
    assert torch.equal(hits.any(1), ranks < k)
    assert torch.equal(hits.int().argmax(1)[hits.any(1)], ranks[hits.any(1)])


@backends
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_a_catalogue_of_one_item(backend: str, scores: str) -> None:
    """Nothing to choose from: certain, no entropy, no gradient."""
    problem = make_catalogue(5, 1, 9, steps=2, scores=scores, scale=8.0)
    found = problem.to(torch.float32).results(backend)
    for name, value in found.items():
        assert float(value.abs().max()) < 1e-4, name
    queries, items = problem.queries[:, 0].float(), problem.items.float()
    with lk.use_backend(backend):
        assert not lk.catalogue_ranks(queries, items, problem.chosen, scores=scores).any()
        assert not lk.catalogue_top_k(queries, items, 1, scores=scores).ids.any()


@backends
def test_a_list_of_no_excluded_items(backend: str) -> None:
    problem = make_catalogue(6, 70, 8).to(torch.float32)
    queries, none = problem.queries[:, 0], torch.empty(6, 0, dtype=torch.int64)
    with lk.use_backend(backend):
        for excluded in (none, torch.full((6, 3), -1)):
            for op in (lk.catalogue_cross_entropy, lk.catalogue_ranks):
                found = op(queries, problem.items, problem.chosen, excluded=excluded)
                assert torch.equal(found, op(queries, problem.items, problem.chosen))
            best = lk.catalogue_top_k(queries, problem.items, 4, excluded=excluded)
            assert torch.equal(best.ids, lk.catalogue_top_k(queries, problem.items, 4).ids)


@backends
def test_views_that_are_not_contiguous(backend: str) -> None:
    problem = make_catalogue(6, 70, 8, steps=2).to(torch.float32)
    spread = CatalogueProblem(
        problem.queries.repeat(1, 1, 2)[..., :8],
        problem.items.mT.contiguous().mT,
        problem.chosen.repeat_interleave(2)[::2],
    )
    found, wanted = spread.results(backend), problem.results(backend)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@backends
def test_ten_million_items(backend: str) -> None:
    """The best one, its copy and the target lie far apart; in float32 their numbers are not exact."""
    n_items = 10_000_001
    items = torch.zeros(n_items, 2)
    items[:, 1] = torch.linspace(0, 0.5, n_items)
    places = torch.tensor([3, 8_388_609, n_items - 1])
    items[places] = torch.tensor([[2.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    excluded = torch.tensor([[8_388_609], [-1]])
    with lk.use_backend(backend):
        best = lk.catalogue_top_k(queries, items, 3, excluded=excluded).ids
        ranks = lk.catalogue_ranks(queries[:1], items, places[2:], excluded=excluded[:1])
        loss = lk.catalogue_cross_entropy(queries[:1], items, places[2:], excluded=excluded[:1])
    assert best[0].tolist() == [3, n_items - 1, 0]
    assert best[1].tolist()[0] == n_items - 2
    assert ranks.tolist() == [1]
    wanted = torch.tensor(n_items - 3 + 2 * 7.38905609893065, dtype=torch.float64).log() - 2.0
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0.0)
