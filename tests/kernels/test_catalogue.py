"""The catalogue ops: every backend of this machine against dense scores in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import lares_kernels as lk
from lares_kernels.binding.cpu_library import load, use_instruction_set
from lares_kernels.reference import catalogue as reference
from lares_kernels.spec.call import FLOAT_TYPES
from tests.kernels.catalogues import (
    CatalogueProblem,
    make_catalogue,
    ranks_by_hand,
    top_k_by_hand,
    whole_numbers_catalogue,
)
from tests.kernels.tools import cpu_sets

BACKENDS = ["reference"] + ([] if isinstance(load(), str) else ["cpu"])
SETS = cpu_sets("bf16")
backends = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference then takes 64 items at a time."""
    monkeypatch.setattr(reference, "_SCORES_AT_ONCE", 1)


@st.composite
def problems(draw: Any) -> CatalogueProblem:
    n_items = draw(st.one_of(st.integers(1, 9), st.integers(10, 800)))
    return make_catalogue(
        draw(st.integers(1, 60)),
        n_items,
        draw(st.integers(1, 80)),
        steps=draw(st.integers(1, 3)),
        n_excluded=draw(st.sampled_from([0, 1, 7])) if n_items > 1 else 0,
        seed=draw(st.integers(0, 2**20)),
        scale=draw(st.sampled_from([0.2, 1.0, 8.0])),
        scores=draw(st.sampled_from(["dot", "cosine"])),
        temperature=draw(st.sampled_from([1.0, 0.25, 3.0])),
    )


def check(problem: CatalogueProblem, backend: str, **changes: Any) -> None:
    exact = problem.results("equations")
    found = problem.to(torch.float32).results(backend, **changes)
    for name, allowed in problem.tolerances().items():
        error = float((found[name].double() - exact[name]).norm())
        assert error <= allowed, (name, error, allowed)


@backends
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_any_shape(backend: str, problem: CatalogueProblem) -> None:
    check(problem, backend)


@backends
def test_defaults_of_new_tensors_change_nothing(backend: str, other_defaults: Any) -> None:
    problem = make_catalogue(n_excluded=3).to(torch.float32)
    queries, items = problem.queries.squeeze(1).requires_grad_(), problem.items.requires_grad_()
    options = {"excluded": problem.excluded}

    def run() -> list[torch.Tensor]:
        with lk.use_backend(backend):
            found = lk.catalogue_log_probability(queries, items, problem.chosen, **options)
            grads = torch.autograd.grad(found.sum(), [queries, items])
            top = lk.catalogue_top_k(queries, items, 5, **options)
            ranks = lk.catalogue_ranks(queries, items, problem.chosen, **options)
        return [found.detach(), *grads, *top, ranks]

    wanted = run()
    with other_defaults():
        found = run()
    for mine, exact in zip(found, wanted, strict=True):
        assert torch.equal(mine, exact)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_reference_is_the_equations_in_float64(scores: str) -> None:
    problem = make_catalogue(steps=3, n_excluded=5, scores=scores, temperature=0.3)
    exact, found = problem.results("equations"), problem.results("reference")
    for name, wanted in exact.items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_gradcheck(scores: str) -> None:
    problem = make_catalogue(3, 130, 4, steps=2, n_excluded=3, scores=scores, temperature=0.5)

    def run(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return lk.catalogue_log_probability(
            queries, items, problem.chosen, excluded=problem.excluded, **problem.options
        )

    inputs = (problem.queries.requires_grad_(), problem.items.requires_grad_())
    with lk.use_backend("reference"):
        assert torch.autograd.gradcheck(run, inputs)
    with lk.use_backend("equations"):
        assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("scores", ["dot", "cosine"])
@pytest.mark.usefixtures("poisoned_memory")
def test_every_instruction_set(name: str, scores: str) -> None:
    """In float32, past the end of blocks, tiles and vectors on every side."""
    if name.endswith("_bf16"):
        pytest.skip("it serves bfloat16 alone")
    with use_instruction_set(name):
        for n_rows, n_items, width in [(49, 193, 17), (97, 385, 64), (1, 100, 8), (5, 191, 130)]:
            check(make_catalogue(n_rows, n_items, width, n_excluded=9, scores=scores), "cpu")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("scores", ["dot", "cosine"])
@pytest.mark.usefixtures("poisoned_memory")
def test_bf16_keeps_to_twice_plain_pytorch(name: str, scores: str) -> None:
    problem = make_catalogue(101, 997, 63, steps=1, n_excluded=9, scores=scores, temperature=0.5)
    exact = problem.results("equations")
    single = problem.to(torch.float32)
    queries, items = (t.clone().requires_grad_() for t in (single.queries, single.items))
    parts = [queries[:, 0], items]
    if scores == "cosine":
        parts = [functional.normalize(part, dim=-1) for part in parts]
    dense = parts[0].bfloat16() @ parts[1].bfloat16().mT / 0.5
    assert problem.excluded is not None
    hidden = torch.zeros(101, 998, dtype=torch.bool)
    hidden.scatter_(1, problem.excluded.where(problem.excluded >= 0, 997), True)
    dense = dense.float().masked_fill(hidden[:, :-1], float("-inf"))
    plain = -functional.cross_entropy(dense, problem.chosen, reduction="none")
    weights = problem.weights(torch.Size((101, 1))).float()[:, 0]
    grads = torch.autograd.grad((plain * weights).sum(), [queries, items])
    with use_instruction_set(name):
        found = single.results("cpu", precision="bf16")
    for key, theirs in [
        ("log_probability", plain[:, None]),
        ("g_queries", grads[0]),
        ("g_items", grads[1]),
    ]:
        mine, yardstick = (
            float((t.detach().double() - exact[key]).norm()) for t in (found[key], theirs)
        )
        assert mine <= 2 * yardstick, key


@backends
def test_float32_keeps_to_twice_plain_pytorch(backend: str) -> None:
    problem = make_catalogue(200, 5003, 64, scale=2.0)
    exact = problem.results("equations")
    single = problem.to(torch.float32)
    plain, found = single.results("equations"), single.results(backend)
    for key, wanted in exact.items():
        mine, yardstick = (float((t[key].double() - wanted).norm()) for t in (found, plain))
        assert mine <= 2 * yardstick, key


@backends
@pytest.mark.parametrize("n_items", [1, 2, 191, 192, 193, 1000])
@pytest.mark.parametrize("n_excluded", [0, 6])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ranks_and_top_k_with_ties(
    backend: str, n_items: int, n_excluded: int, precision: str
) -> None:
    problem = whole_numbers_catalogue(50, n_items, 5, n_excluded if n_items > 1 else 0)
    queries, items = problem.queries[:, 0].float(), problem.items.float()
    options = {"excluded": problem.excluded, "precision": precision}
    with lk.use_backend(backend):
        ranks = lk.catalogue_ranks(queries, items, problem.chosen, **options)
        assert torch.equal(ranks, ranks_by_hand(problem))
        for k in {1, min(n_items, 10), n_items}:
            found = lk.catalogue_top_k(queries, items, k, **options)
            scores, ids = top_k_by_hand(problem, k)
            assert torch.equal(found.ids, ids)
            assert torch.equal(found.scores.double(), scores)


@backends
@pytest.mark.parametrize("scores", ["dot", "cosine"])
def test_equal_items_tie_wherever_they_lie(backend: str, scores: str) -> None:
    """Numbers that round: an item's copies must still score alike."""
    problem = make_catalogue(40, 7, 37).to(torch.float32)
    copies = 150
    items = problem.items.repeat(copies, 1)
    queries = problem.queries[:, 0]
    with lk.use_backend(backend):
        once = lk.catalogue_ranks(queries, problem.items, problem.chosen, scores=scores)
        chosen = problem.chosen + 7 * torch.arange(40)
        ranks = lk.catalogue_ranks(queries, items, chosen, scores=scores)
        assert torch.equal(ranks, once * copies + copies - 1)
        best = lk.catalogue_top_k(queries, items, 2 * copies, scores=scores).ids
    assert (best % 7 == best[:, :1] % 7).sum(1).eq(copies).all()
    assert torch.equal(best[:, :copies] // 7, torch.arange(copies).expand(40, -1))


@backends
def test_temperature_and_cosine_of_top_k(backend: str) -> None:
    problem = make_catalogue(9, 250, 20, n_excluded=4, scores="cosine", temperature=0.2)
    with lk.use_backend(backend):
        found = lk.catalogue_top_k(
            problem.queries[:, 0].float(),
            problem.items.float(),
            12,
            excluded=problem.excluded,
            **problem.options,
        )
    scores, ids = top_k_by_hand(problem, 12)
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close(found.scores.double(), scores, rtol=1e-5, atol=1e-5)


@backends
def test_everything_excluded(backend: str) -> None:
    queries, items = torch.randn(2, 4), torch.randn(3, 4)
    excluded = torch.tensor([[0, 1, 2, 2], [1, -1, -1, -1]])
    with lk.use_backend(backend):
        found = lk.catalogue_top_k(queries, items, 3, excluded=excluded)
        assert found.ids[0].tolist() == [-1, -1, -1]
        assert sorted(found.ids[1].tolist()) == [-1, 0, 2]
        assert found.scores[0].eq(float("-inf")).all()
        # The chosen item alone is left: certain, and nothing to gain.
        alone = torch.tensor([[0, 1, -1, -1], [0, 2, 2, 2]])
        queries.requires_grad_(), items.requires_grad_()
        loss = lk.catalogue_cross_entropy(
            queries, items, torch.tensor([2, 1]), excluded=alone, reduction="none"
        )
        assert loss.abs().max() < 1e-6
        grads = torch.autograd.grad(loss.sum(), [queries, items])
        assert max(float(g.abs().max()) for g in grads) < 1e-5
        assert lk.catalogue_ranks(
            queries, items, torch.tensor([2, 1]), excluded=alone
        ).tolist() == [0, 0]


@backends
def test_excluded_items_have_no_gradient(backend: str) -> None:
    problem = make_catalogue(6, 300, 8)
    items = problem.items.float().requires_grad_()
    left_out = torch.tensor([i for i in (3, 7, 250) if i not in problem.chosen.tolist()])
    with lk.use_backend(backend):
        lk.catalogue_cross_entropy(
            problem.queries[:, 0].float(),
            items,
            problem.chosen,
            excluded=left_out.expand(6, -1),
        ).backward()
    assert items.grad is not None
    assert not items.grad[left_out].any()
    assert items.grad[problem.chosen].abs().sum() > 0


@backends
@pytest.mark.parametrize("far", [60.0, 500.0])
def test_scores_far_apart(backend: str, far: float) -> None:
    """The chosen item far above or below the others, which come late in the catalogue."""
    items = torch.zeros(1000, 8, dtype=torch.float64)
    items[:, 0] = torch.linspace(0, 1, 1000)
    queries = torch.zeros(2, 1, 8, dtype=torch.float64)
    queries[:, 0, 0] = far
    problem = CatalogueProblem(queries, items, torch.tensor([0, 999]))
    check(problem, backend)


@backends
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(backend: str, bad: float) -> None:
    problem = make_catalogue(5, 300, 8).to(torch.float32)
    queries, items = problem.queries[:, 0].clone(), problem.items.clone()
    queries[3, 2] = bad
    with lk.use_backend(backend):
        loss = lk.catalogue_cross_entropy(queries, items, problem.chosen, reduction="none")
        assert loss.isfinite().tolist() == [True, True, True, False, True]
        ranks = lk.catalogue_ranks(queries, items, problem.chosen)
        if bad != bad:
            assert (ranks < 0).tolist() == [False, False, False, True, False]
            assert lk.catalogue_top_k(queries, items, 4).ids[3].tolist() == [-1] * 4
        items[(int(problem.chosen[0]) + 1) % 300, 0] = float("nan")
        loss = lk.catalogue_cross_entropy(queries, items, problem.chosen, reduction="none")
        assert not loss.isfinite().any()
        assert (lk.catalogue_ranks(queries, items, problem.chosen) < 0).all()


@backends
def test_rows_too_short_to_normalise(backend: str) -> None:
    problem = make_catalogue(4, 30, 6, scores="cosine")
    problem.queries[1] = 0.0
    problem.items[5] = 0.0
    exact = problem.results("equations")
    found = problem.to(torch.float32).results(backend)
    torch.testing.assert_close(found["log_probability"].double(), exact["log_probability"])
    # Divided by 1e-12 instead of a length; the other rows as always.
    others = [0, 2, 3]
    torch.testing.assert_close(
        found["g_queries"].double()[others], exact["g_queries"][others], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        found["g_queries"].double()[1], exact["g_queries"][1], rtol=1e-4, atol=1e6
    )


@pytest.mark.skipif("cpu" not in BACKENDS, reason="no CPU kernel")
def test_any_number_of_threads_gives_the_same_bits() -> None:
    problem = make_catalogue(300, 4001, 40, n_excluded=8).to(torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with lk.use_backend("cpu"):
                queries = problem.queries[:, 0]
                best = lk.catalogue_top_k(queries, problem.items, 25, excluded=problem.excluded)
                ranks = lk.catalogue_ranks(
                    queries, problem.items, problem.chosen, excluded=problem.excluded
                )
            found.append([*problem.results("cpu").values(), *best, ranks])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@backends
def test_items_in_bfloat16_are_read_as_they_are(backend: str) -> None:
    problem = make_catalogue(9, 200, 24).to(torch.float32)
    items = problem.items.bfloat16()
    with lk.use_backend(backend):
        given_half = items.clone().requires_grad_()
        loss = lk.catalogue_cross_entropy(problem.queries[:, 0], given_half, problem.chosen)
        given_single = items.float().requires_grad_()
        wanted = lk.catalogue_cross_entropy(problem.queries[:, 0], given_single, problem.chosen)
        assert torch.equal(loss, wanted)
        loss.backward(), wanted.backward()
    assert given_half.grad is not None
    assert given_half.grad.dtype == torch.bfloat16
    assert given_single.grad is not None
    assert torch.equal(given_half.grad, given_single.grad.bfloat16())


@backends
def test_reductions_and_inputs_without_gradient(backend: str) -> None:
    problem = make_catalogue(12, 100, 8).to(torch.float32)
    queries, items = problem.queries[:, 0], problem.items
    with lk.use_backend(backend):
        each = lk.catalogue_cross_entropy(queries, items, problem.chosen, reduction="none")
        for reduction, wanted in (("mean", each.mean()), ("sum", each.sum())):
            found = lk.catalogue_cross_entropy(queries, items, problem.chosen, reduction=reduction)
            assert torch.equal(found, wanted)
        assert not each.requires_grad
        full = problem.results(backend)
        for place, key in enumerate(("g_queries", "g_items")):
            inputs = [queries.clone(), items.clone()]
            inputs[place].requires_grad_()
            found = lk.catalogue_log_probability(*inputs, problem.chosen)
            (found * problem.weights(torch.Size((12, 1))).float()[:, 0]).sum().backward()
            grad = inputs[place].grad
            assert grad is not None
            assert torch.equal(grad.reshape(full[key].shape), full[key])


@pytest.mark.parametrize("queries_dtype", FLOAT_TYPES)
@pytest.mark.parametrize("items_dtype", FLOAT_TYPES)
@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (2, 0, 4)])
def test_no_rows_have_the_type_of_rows(
    shape: tuple[int, ...], queries_dtype: torch.dtype, items_dtype: torch.dtype
) -> None:
    items, none = torch.randn(5, 4, dtype=items_dtype), torch.zeros(shape[0], dtype=torch.int64)
    queries = torch.empty(shape, dtype=queries_dtype)
    some = torch.ones(1, 4, dtype=queries_dtype)
    one = torch.zeros(1, dtype=torch.int64)
    for backend in ("reference", "equations"):
        with lk.use_backend(backend):
            wanted = lk.catalogue_log_probability(some, items, one, return_entropy=True)
            found = lk.catalogue_log_probability(queries, items, none, return_entropy=True)
            for mine, theirs in zip(found, wanted, strict=True):
                assert mine.shape == shape[:-1]
                assert mine.dtype == theirs.dtype
            if len(shape) == 2:
                best, wanted = (lk.catalogue_top_k(q, items, 2) for q in (queries, some))
                assert [t.dtype for t in best] == [t.dtype for t in wanted]


def test_no_steps_of_rows_whose_items_do_not_fit() -> None:
    queries, items = torch.empty(2, 0, 4), torch.randn(5, 4)
    with pytest.raises(ValueError, match="chosen of row 1 is 99"):
        lk.catalogue_log_probability(queries, items, torch.tensor([0, 99]))
    excluded = torch.tensor([[1], [2]])
    with pytest.raises(ValueError, match="chosen of row 0 is 1, which the row excludes"):
        lk.catalogue_log_probability(queries, items, torch.tensor([1, 1]), excluded=excluded)


@backends
def test_no_rows(backend: str) -> None:
    queries, items = torch.empty(0, 3, 8, requires_grad=True), torch.randn(5, 8)
    none = torch.empty(0, dtype=torch.int64)
    with lk.use_backend(backend):
        found = lk.catalogue_log_probability(queries, items, none)
        assert found.shape == (0, 3)
        found.sum().backward()
        assert queries.grad is not None
        assert lk.catalogue_ranks(queries[:, 0], items, none).shape == (0,)
        assert lk.catalogue_cross_entropy(queries[:, 0], items, none, reduction="sum") == 0
        assert lk.catalogue_top_k(queries[:, 0], items, 2).ids.shape == (0, 2)
