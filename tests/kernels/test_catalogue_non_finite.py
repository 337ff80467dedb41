"""NaN and infinity in a catalogue or in queries: seen by the rows that score them, by no other.

The interpreted kernels pass the same tests
(tests/kernels/triton/interpreted/test_catalogue_non_finite.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import lares_kernels as lk
from lares_kernels.binding.cpu_library import load, use_instruction_set
from tests.kernels.catalogues import CatalogueProblem, make_catalogue
from tests.kernels.non_finite import VALUES, put
from tests.kernels.tools import cpu_sets

BACKENDS = ["reference", "equations"] + ([] if isinstance(load(), str) else ["cpu"])
SETS = cpu_sets("bf16")
backends = pytest.mark.parametrize("backend", BACKENDS)
all_scores = pytest.mark.parametrize("scores", ["dot", "cosine"])
values = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
ROWS, WIDTH = 7, 16
# Items of two of the CPU kernel's blocks of 192 and of several of the others'.
N_ITEMS, BROKEN = 333, [5, 200, 332]
HIDES = torch.tensor([True, False, True, True, False, True, False])


def catalogue(scores: str, hides: Tensor | None, n_items: int = N_ITEMS) -> CatalogueProblem:
    """A problem whose rows exclude the items that will be broken; for None none excludes any."""
    problem = make_catalogue(
        ROWS, n_items, WIDTH, steps=2, n_excluded=3, scores=scores, temperature=0.5
    )
    chosen = torch.where(torch.isin(problem.chosen, torch.tensor(BROKEN)), 7, problem.chosen)
    if hides is None:
        return replace(problem, chosen=chosen, excluded=None)
    assert problem.excluded is not None
    excluded = problem.excluded.masked_fill(problem.excluded == chosen[:, None], -1)
    more = torch.tensor(BROKEN).expand(ROWS, -1).where(hides[:, None], -1)
    return replace(problem, chosen=chosen, excluded=torch.cat([more, excluded], dim=1))


def broken(problem: CatalogueProblem, value: float) -> CatalogueProblem:
    """The same in float32 with a number of three items set."""
    single = problem.to(torch.float32)
    items = single.items.clone()
    for i, item in enumerate(BROKEN):
        put(items, item * WIDTH + 5 * i, value)
    return replace(single, items=items)


def order(problem: CatalogueProblem, backend: str, k: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Ranks and the best items with their scores, of the first step's queries."""
    queries, options = problem.queries[:, 0], {"excluded": problem.excluded, **problem.options}
    with lk.use_backend(backend):
        ranks = lk.catalogue_ranks(queries, problem.items, problem.chosen, **options)
        best = lk.catalogue_top_k(queries, problem.items, k, **options)
    return ranks, best.ids, best.scores


def order_by_hand(problem: CatalogueProblem, k: int = 9) -> tuple[Tensor, Tensor]:
    """In float64: ranks, -1 where a score is NaN, and the best items, of which none scores NaN."""
    scores = problem.to(torch.float64).scores()[:, 0]
    left_out = torch.zeros(scores.shape, dtype=torch.bool)
    for row, ids in enumerate([] if problem.excluded is None else problem.excluded.tolist()):
        left_out[row, [i for i in ids if i >= 0]] = True
    wanted = scores.gather(1, problem.chosen[:, None])
    ranks = ((scores >= wanted) & ~left_out).sum(1) - 1
    ranks[(scores.isnan() & ~left_out).any(1)] = -1
    known = scores.masked_fill(scores.isnan() | left_out, float("-inf"))
    known, ids = known.sort(dim=1, descending=True, stable=True)
    return ranks, ids[:, :k].masked_fill(known[:, :k] == float("-inf"), -1)


def assert_ordered(problem: CatalogueProblem, backend: str) -> None:
    """Ranks and best items are those by hand."""
    ranks, ids, _ = order(problem, backend)
    exact_ranks, exact_ids = order_by_hand(problem)
    assert torch.equal(ranks, exact_ranks)
    assert torch.equal(ids, exact_ids)


def results_by_hand(problem: CatalogueProblem) -> dict[str, Tensor]:
    """What ``results`` has, from plain PyTorch, each row with the items that it does not exclude."""
    queries, items = (t.clone().requires_grad_() for t in (problem.queries, problem.items))
    excluded = problem.excluded
    lists = [[]] * len(queries) if excluded is None else excluded.tolist()
    found, entropies = [], []
    for row, left_out in enumerate(lists):
        kept = torch.tensor([i for i in range(len(items)) if i not in left_out])
        scores = queries[row] @ items[kept].mT / problem.options.get("temperature", 1.0)
        log_shares = scores.log_softmax(dim=1)
        shares = log_shares.exp()
        entropies.append(-(shares * log_shares.where(shares != 0, 0.0)).sum(dim=1))
        found.append(log_shares[:, kept == problem.chosen[row]][:, 0])
    log_probability, entropy = torch.stack(found), torch.stack(entropies)
    weights = problem.weights(log_probability.shape).to(log_probability.dtype)
    grads = torch.autograd.grad((log_probability * weights).sum(), [queries, items])
    return {
        "log_probability": log_probability.detach(),
        "entropy": entropy.detach(),
        "g_queries": grads[0],
        "g_items": grads[1],
    }


def assert_right(
    problem: CatalogueProblem, backend: str, wanted: dict[str, Tensor], **options: Any
) -> None:
    """All that ``problem`` gives, what is not finite included, to what float32 leaves of shares."""
    found = problem.results(backend, **options)
    largest = {
        name: rows.where(rows.isfinite(), 0.0).abs().flatten(0, -2).amax(0).double()
        for name, rows in (("g_queries", problem.items), ("g_items", problem.queries))
    }
    for name, exact in wanted.items():
        mine, exact = found[name].double(), exact.double()
        finite = exact.isfinite()
        assert torch.equal(mine[~finite].nan_to_num(7.0), exact[~finite].nan_to_num(7.0)), name
        assert torch.equal(mine.isfinite(), finite), (name, mine, exact)
        allowed = 1e-3 * largest.get(name, torch.ones(())) + 1e-4 * exact.abs()
        off = (mine - exact).abs() > allowed
        assert not (off & finite).any(), (name, mine[off & finite], exact[off & finite])


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], rows: Tensor) -> None:
    """Of some rows, to the bit."""
    for name in ("log_probability", "entropy", "g_queries"):
        assert torch.equal(found[name][rows], wanted[name][rows]), name


def assert_seen(found: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    """What the exact ones have that is not finite; and what is finite is right."""
    for name, wanted in exact.items():
        missed = ~wanted.isfinite() & found[name].isfinite()
        assert not missed.any(), (name, missed.nonzero()[:5].tolist())
    loss, wanted = found["log_probability"].double(), exact["log_probability"]
    fine = wanted.isfinite()
    torch.testing.assert_close(loss[fine], wanted[fine], rtol=1e-4, atol=1e-4)


@backends
@all_scores
@values
def test_an_item_that_everyone_excludes_spoils_nothing(
    backend: str, scores: str, value: float
) -> None:
    clean = catalogue(scores, torch.ones(ROWS, dtype=torch.bool)).to(torch.float32)
    spoilt = broken(clean, value)
    found, wanted = spoilt.results(backend), clean.results(backend)
    assert_same(found, wanted, torch.arange(ROWS))
    assert torch.equal(found["g_items"], wanted["g_items"])
    for mine, theirs in zip(order(spoilt, backend), order(clean, backend), strict=True):
        assert torch.equal(mine, theirs)


@backends
@all_scores
@values
def test_whether_the_temperature_learns_is_no_matter(
    backend: str, scores: str, value: float
) -> None:
    for hides in (torch.ones(ROWS, dtype=torch.bool), HIDES):
        spoilt = broken(catalogue(scores, hides), value)
        wanted = spoilt.results(backend)
        found = spoilt.results(backend, temperature=torch.tensor(0.5, requires_grad=True))
        for name, exact in wanted.items():
            torch.testing.assert_close(found[name], exact, equal_nan=True, msg=name)


@backends
@all_scores
@values
def test_an_item_that_some_exclude_is_seen_by_the_others(
    backend: str, scores: str, value: float
) -> None:
    clean = catalogue(scores, HIDES).to(torch.float32)
    spoilt = broken(clean, value)
    found = spoilt.results(backend)
    assert_same(found, clean.results(backend), HIDES)
    exact = spoilt.to(torch.float64).results("reference")
    loss = exact["log_probability"]
    assert_seen({"log_probability": found["log_probability"]}, {"log_probability": loss})
    seen = ~loss.isfinite()
    assert not found["g_queries"][seen].isfinite().any()
    assert not found["entropy"][seen].isfinite().any()
    if seen.any():
        assert not found["g_items"][BROKEN].isfinite().any()
    assert_ordered(spoilt, backend)


@backends
@all_scores
@values
def test_an_item_is_seen(backend: str, scores: str, value: float) -> None:
    spoilt = broken(catalogue(scores, None), value)
    assert_seen(spoilt.results(backend), spoilt.to(torch.float64).results("equations"))
    assert_ordered(spoilt, backend)


@backends
@values
def test_a_chosen_item_is_seen(backend: str, value: float) -> None:
    """Whose score may be -infinity, behind all others; excluded items are not among these."""
    problem = catalogue("dot", ~HIDES)
    problem = replace(problem, chosen=torch.where(HIDES, BROKEN[1], problem.chosen))
    spoilt = broken(problem, value)
    found = spoilt.results(backend)
    assert not found["log_probability"][HIDES].isfinite().any()
    clean = problem.to(torch.float32)
    assert_same(found, clean.results(backend), ~HIDES)
    assert torch.equal(order(spoilt, backend)[0], order_by_hand(spoilt)[0])


@backends
@all_scores
@values
@pytest.mark.parametrize("hides", [None, HIDES], ids=["all", "some"])
def test_a_query_stays_in_its_row(
    backend: str, scores: str, value: float, hides: Tensor | None
) -> None:
    problem = catalogue(scores, hides).to(torch.float32)
    queries = problem.queries.clone()
    put(queries, (3 * 2 + 0) * WIDTH + 6, value)
    spoilt = replace(problem, queries=queries)
    found, clean = spoilt.results(backend), problem.results(backend)
    others = torch.arange(ROWS) != 3
    assert_same(found, clean, others)
    for name in ("log_probability", "entropy", "g_queries"):
        assert torch.equal(found[name][3, 1], clean[name][3, 1]), name
    assert_seen(found, spoilt.to(torch.float64).results("equations"))
    assert_ordered(spoilt, backend)


@backends
def test_scores_that_overflow_are_seen(backend: str) -> None:
    """Numbers that are finite, whose product is not."""
    problem = catalogue("dot", None).to(torch.float32)
    queries, items = problem.queries.clone(), problem.items.clone()
    queries[2, 0, 1] = items[100, 1] = 1e25
    spoilt = replace(problem, queries=queries, items=items)
    loss = spoilt.results(backend)["log_probability"]
    assert not loss[2, 0].isfinite()
    assert loss[[0, 1, 3, 4, 5, 6]].isfinite().all()
    ranks, ids, _ = order(spoilt, backend)
    assert torch.equal(ranks, order_by_hand(spoilt)[0])
    assert ids[2, 0] == 100


def below_all(
    n_items: int, level: float, *, n_below: int, chosen: int, excluded: Tensor | None = None
) -> CatalogueProblem:
    """Scores near ``level``, but for the first items, whose scores are -infinity; in float32.

    Queries are positive, and so is every number of an item but the infinite one, and but for the last,
    which carries the level.
    """
    of = torch.Generator().manual_seed(n_items)
    queries = torch.rand(ROWS, 2, 6, generator=of) + 0.5
    items = torch.rand(n_items, 6, generator=of) + 0.5
    queries[..., -1], items[:, -1] = 1.0, level
    items[:n_below, 2] = float("-inf")
    return CatalogueProblem(queries, items, torch.full((ROWS,), chosen), excluded)


@backends
@pytest.mark.parametrize("level", [0.0, -60.0, -1000.0, 1000.0])
@pytest.mark.parametrize("n_items", [5, 333, 2500])
def test_scores_of_minus_infinity_have_no_share(backend: str, n_items: int, level: float) -> None:
    """Whether the chosen item's is one or another's, and whether anything is excluded or not."""
    last = n_items - 1
    only_another = torch.full((ROWS, 1), last)
    some_of_them = torch.tensor([[1, last], [-1, -1], [-1, 1], [2, 2], [1, 2], [-1, last], [2, -1]])
    for n_below in (3, n_items - 1, n_items // 2 + 1):
        for chosen in (0, last - 1):
            for excluded in (None, only_another, some_of_them):
                if chosen == 1 or (n_below == last and excluded is only_another):
                    continue
                problem = below_all(
                    n_items, level, n_below=n_below, chosen=chosen, excluded=excluded
                )
                assert_right(problem, backend, results_by_hand(problem.to(torch.float64)))


@backends
@pytest.mark.parametrize("n_items", [1, 5, 333, 2500])
@pytest.mark.parametrize("excludes", [False, True])
def test_rows_whose_scores_are_all_minus_infinity(
    backend: str, n_items: int, excludes: bool
) -> None:
    """As softmax has it: NaN, and of items that the row excludes nothing."""
    excluded = None
    if excludes and n_items > 1:  # but of one row, whose last item is not
        excluded = torch.full((ROWS, 1), n_items - 1)
        excluded[3] = 1
    problem = below_all(n_items, 0.5, n_below=max(1, n_items - 1), chosen=0, excluded=excluded)
    if excluded is None:
        problem.items[-1, 2] = float("-inf")
    wanted = results_by_hand(problem.to(torch.float64))
    assert wanted["log_probability"].isnan().sum() == 2 * (ROWS if excluded is None else ROWS - 1)
    assert_right(problem, backend, wanted)


@backends
def test_finite_numbers_whose_scores_are_minus_infinity(backend: str) -> None:
    """Products past float32's end: shares of zero, exactly, whatever they are multiplied with."""
    queries = torch.tensor([[[1e20, 1.0]], [[1e3, 1.0]]])
    items = torch.tensor([[-3e38, 0.5], [0.0, -1000.0], [0.0, -1001.0], [-1e20, 0.0]])
    for chosen in ([0, 0], [1, 1], [2, 3]):
        for excluded in (None, torch.tensor([[-1], [-1]])):
            problem = CatalogueProblem(queries, items, torch.tensor(chosen), excluded)
            assert_right(problem, backend, results_by_hand(problem))


@backends
@pytest.mark.parametrize("level", [-3e38, 3e38])
def test_scores_at_the_ends_of_float32(backend: str, level: float) -> None:
    """Far apart, and beside one of -infinity."""
    items = torch.tensor([[-level], [level], [level], [float("-inf")]])
    for chosen in (0, 3):
        problem = CatalogueProblem(torch.ones(1, 1, 1), items, torch.tensor([chosen]))
        found = problem.results(backend)
        exact = results_by_hand(problem)
        torch.testing.assert_close(found["log_probability"], exact["log_probability"])
        assert not found["entropy"].isnan().any()


@pytest.mark.parametrize("instruction_set", SETS)
def test_every_instruction_set(instruction_set: str) -> None:
    with use_instruction_set(instruction_set):
        for value in VALUES.values():
            for scores in ("dot", "cosine"):
                if instruction_set.endswith("_bf16"):
                    check_in_bf16(scores, value)
                else:
                    test_an_item_that_everyone_excludes_spoils_nothing("cpu", scores, value)
                    test_an_item_that_some_exclude_is_seen_by_the_others("cpu", scores, value)
                    test_an_item_is_seen("cpu", scores, value)
                    test_a_query_stays_in_its_row("cpu", scores, value, HIDES)
            test_a_chosen_item_is_seen("cpu", value)
        precision = "bf16" if instruction_set.endswith("_bf16") else "fp32"
        for level in (-1000.0, 1024.0):  # which bfloat16 has
            problem = below_all(333, level, n_below=3, chosen=0, excluded=torch.full((ROWS, 1), 1))
            problem = problem.to(torch.bfloat16).to(torch.float32)
            wanted = results_by_hand(problem.to(torch.float64))
            if precision == "fp32":
                assert_right(problem, "cpu", wanted)
            else:
                found = problem.results("cpu", precision="bf16")
                for name, exact in wanted.items():
                    assert torch.equal(found[name].isfinite(), exact.isfinite()), name


def check_in_bf16(scores: str, value: float) -> None:
    """Rows that exclude what is broken get the same bits."""
    clean = catalogue(scores, HIDES).to(torch.float32)
    spoilt = broken(clean, value)
    found, wanted = (p.results("cpu", precision="bf16") for p in (spoilt, clean))
    assert_same(found, wanted, HIDES)
    exact = spoilt.to(torch.float64).results("reference")["log_probability"]
    assert not (~exact.isfinite() & found["log_probability"].isfinite()).any()
