"""Random calls of the kernels, with neighbours, dropout and numbers that are not finite.

    python -m tests.fuzz.kernels --seconds 60 --seed 0

A case draws a core and lengths; a backend must give every sequence what it gets alone, be near the
equations in float64, and keep what is not finite in its sequence; or a catalogue, of which rows that
neither have nor see such a number must get the same bits as without it, and the others what plain
PyTorch has. Here it is the CPU kernel's instruction sets; :mod:`tests.fuzz.interpreted` has Triton's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from lares_kernels import CoreConfig
from lares_kernels.binding import cpu_library as lib
from tests.fuzz.runner import Failure, main
from tests.kernels.catalogues import CatalogueProblem, make_catalogue, whole_numbers_catalogue
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
    put,
)
from tests.kernels.problems import assert_equal_to_equations
from tests.kernels.test_catalogue_non_finite import order, order_by_hand

_SETS = [] if isinstance(lib.load(), str) else lib.instruction_sets()


@dataclass(frozen=True)
class Sizes:
    """Of random calls.

    Attributes:
        heads, head: of a core, each one of these.
        inner: most columns of its feed-forward.
        windows: of cores that mix whole windows.
        lengths: of a sequence, from one of these ranges.
        sequences: most of a call.
        rows, items, width: most of a catalogue.
        tolerance: relative error of a sequence in a batch by it alone; 0: the same bits.
    """

    heads: tuple[int, ...] = (1, 2, 4)
    head: tuple[int, ...] = (4, 5, 8)
    inner: int = 40
    windows: tuple[int, ...] = (9, 20, 33)
    # Short ones, ones near a block of 64 key positions, any.
    lengths: tuple[tuple[int, int], ...] = ((1, 16), (44, 66), (1, 130))
    sequences: int = 5
    rows: int = 20
    items: int = 400
    width: int = 70
    tolerance: float = 0.0


def _config(rng: Random, sizes: Sizes) -> CoreConfig:
    heads = rng.choice(sizes.heads)
    mixer = rng.choice(("attention", "attention", "attention", "filter", "bsarec"))
    windowed = mixer != "attention"
    return CoreConfig(
        d_model=heads * rng.choice(sizes.head),
        n_heads=heads,
        d_ff=rng.randint(1, sizes.inner),
        n_layers=rng.choice((1, 1, 2)),
        adapter=rng.choice(("add", "gate", "concat", "none")),
        mixer=mixer,
        window=rng.choice(sizes.windows) if windowed else 0,
        activation=rng.choice(("gelu", "gelu_tanh", "relu", "silu")),
        norm="post" if windowed else rng.choice(("post", "pre", "query")),
        padding="right" if windowed else rng.choice(("right", "right", "left-zeros")),
        dropout=rng.choice((0.0, 0.1, 0.5)),
        attn_dropout=rng.choice((0.0, 0.25, 0.5)),
        inner_dropout=rng.choice((0.0, 0.25)),
    )


def _lengths(rng: Random, sizes: Sizes, most: int | None) -> list[int]:
    count = rng.randint(2, sizes.sequences)
    drawn = [rng.randint(*rng.choice(sizes.lengths)) for _ in range(count)]
    return [n if most is None else min(n, most) for n in drawn]


def recurrence(rng: Random, backend: str, sizes: Sizes) -> None:
    """Check a random core; raises ``AssertionError``."""
    config = _config(rng, sizes)
    windowed = config.mixes_window
    lengths = _lengths(rng, sizes, config.window if windowed else None)
    kind = rng.randrange(4)
    if kind == 0 and config.padding == "right" and not windowed:
        seed = rng.randrange(1 << 64)
        return assert_as_alone(backend, config, lengths, tolerance=sizes.tolerance, seed=seed)
    if kind == 1 and not windowed:
        steps = rng.randint(1, 3) if config.is_recurrent else 1
        # Past the step in relu's slope a rounding error may be a large one.
        config = replace(
            config, activation="gelu" if config.activation == "relu" else config.activation
        )
        return assert_equal_to_equations(backend, config, lengths, num_steps=steps)
    given = config.is_recurrent and rng.random() < 0.5
    problem = make_problem(config, lengths, given)
    value = rng.choice(list(VALUES.values()))
    if kind == 2:
        name, tensor = rng.choice(list(problem.core.named_parameters()))
        return assert_a_parameter_is_seen(
            backend, problem, name, rng.randrange(tensor.numel()), value
        )
    name = "state" if given and rng.random() < 0.5 else "hidden"
    sequence = rng.randrange(len(lengths))
    return assert_stays_in_its_sequence(
        backend, problem, name, sequence, rng.randrange(lengths[sequence]), value
    )


def catalogue(rng: Random, backend: str, sizes: Sizes) -> None:
    """Check a random catalogue with some numbers that are not finite; raises ``AssertionError``."""
    shape = rng.randint(1, sizes.rows), rng.randint(1, sizes.items), rng.randint(1, sizes.width)
    n_rows, n_items, _ = shape
    n_excluded = rng.choice((0, 2, 9)) if n_items > 1 else 0
    seed = rng.randrange(1 << 32)
    clean = make_catalogue(
        *shape,
        steps=rng.choice((1, 1, 3)),
        n_excluded=n_excluded,
        seed=seed,
        scores=rng.choice(("dot", "cosine")),
        temperature=0.5,
    ).to(torch.float32)
    bad_items = rng.sample(range(n_items), min(n_items, rng.choice((0, 1, 3))))
    bad_rows = rng.sample(range(n_rows), min(n_rows, rng.choice((0, 0, 1))))
    clean, hides = _hiding(rng, clean, bad_items)
    spoilt = _broken(rng, clean, bad_items, bad_rows)
    found, without = spoilt.results(backend), clean.results(backend)
    exact = spoilt.to(torch.float64).results("equations")
    what = f"{shape} {clean.options} items {bad_items} rows {bad_rows} hidden {hides.tolist()}"
    alike = hides.clone()
    alike[bad_rows] = False
    for name in ("log_probability", "entropy", "g_queries"):
        assert torch.equal(found[name][alike], without[name][alike]), (what, name)
        same = found[name].isfinite() == exact[name].isfinite()
        assert same.all(), (what, name, (~same).nonzero()[:5].tolist())
    missed = ~exact["g_items"].isfinite() & found["g_items"].isfinite()
    assert not missed.any(), (what, "g_items")
    if not bad_rows:
        assert torch.equal(found["g_items"].isfinite(), exact["g_items"].isfinite()), what
    loss, wanted = found["log_probability"].double(), exact["log_probability"]
    finite = wanted.isfinite()
    torch.testing.assert_close(loss[finite], wanted[finite], rtol=1e-4, atol=1e-4)
    # Scores that are exact in every order of sums.
    ordered = whole_numbers_catalogue(*shape, n_excluded, seed).to(torch.float32)
    ordered = _broken(rng, _hiding(rng, ordered, bad_items)[0], bad_items, bad_rows)
    k = rng.randint(1, min(n_items, 20))
    ranks, ids, _ = order(ordered, backend, k)
    exact_ranks, exact_ids = order_by_hand(ordered, k)
    assert torch.equal(ranks, exact_ranks), (what, ranks, exact_ranks)
    assert torch.equal(ids, exact_ids), (what, ids, exact_ids)


def _hiding(
    rng: Random, problem: CatalogueProblem, items: list[int]
) -> tuple[CatalogueProblem, Tensor]:
    """The problem where some rows exclude ``items``, unless none excludes any; which ones (R,)."""
    n_rows = len(problem.queries)
    if problem.excluded is None or not items:
        return problem, torch.full((n_rows,), not items)
    share = rng.choice((0.0, 0.6, 1.0))
    hides = torch.tensor([rng.random() < share for _ in range(n_rows)])
    bad = torch.tensor(items)
    hides &= ~(problem.chosen[:, None] == bad).any(dim=1)
    more = bad.expand(n_rows, -1).where(hides[:, None], -1)
    excluded = torch.cat([problem.excluded, more], dim=1)
    return replace(problem, excluded=excluded), hides


def _broken(
    rng: Random, problem: CatalogueProblem, items: list[int], rows: list[int]
) -> CatalogueProblem:
    """The problem with a number of each of these that is not finite."""
    tensors = {"items": problem.items.clone(), "queries": problem.queries.clone()}
    for name, places in (("items", items), ("queries", rows)):
        for place in places:
            size = tensors[name][0].numel()
            number = place * size + rng.randrange(size)
            put(tensors[name], number, rng.choice(list(VALUES.values())))
    return replace(problem, **tensors)


def case(seed: int) -> None:
    """Run the case of a seed.

    Raises:
        Failure: something is wrong; the message says what.
    """
    rng = Random(seed)
    torch.manual_seed(seed)
    if not _SETS:
        return
    chosen = rng.choice(_SETS)
    try:
        with lib.use_instruction_set(chosen):
            rng.choice((recurrence, recurrence, recurrence, catalogue))(rng, "cpu", Sizes())
    except AssertionError as error:
        raise Failure(f"{chosen}: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main("tests.fuzz.kernels", case) > 0)
