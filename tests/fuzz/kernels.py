"""Random calls of the kernels, with neighbours, dropout and numbers that are not finite.

    python -m tests.fuzz.kernels --seconds 60 --seed 0

A case draws a core and lengths; a backend must give every sequence what it gets alone, be near the
equations in float64, and keep what is not finite in its sequence; or a catalogue, of which an item that
a row excludes must change nothing for it.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch

from lares_kernels import CoreConfig
from lares_kernels import cpu_library as lib
from tests.fuzz.runner import Failure, main
from tests.kernels import test_catalogue_non_finite as catalogue
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_stays_in_its_sequence,
    make_problem,
)
from tests.kernels.problems import assert_equal_to_equations

_SETS = [] if isinstance(lib.load(), str) else lib.instruction_sets()


def _config(rng: Random) -> CoreConfig:
    heads = rng.choice((1, 2, 4))
    mixer = rng.choice(("attention", "attention", "attention", "filter", "bsarec"))
    windowed = mixer != "attention"
    return CoreConfig(
        d_model=heads * rng.choice((4, 5, 8)),
        n_heads=heads,
        d_ff=rng.randint(1, 40),
        n_layers=rng.choice((1, 1, 2)),
        adapter=rng.choice(("add", "gate", "concat", "none")),
        mixer=mixer,
        window=rng.choice((9, 20, 33)) if windowed else 0,
        activation=rng.choice(("gelu", "gelu_tanh", "relu", "silu")),
        norm="post" if windowed else rng.choice(("post", "pre", "query")),
        padding="right" if windowed else rng.choice(("right", "right", "left-zeros")),
        dropout=rng.choice((0.0, 0.1, 0.5)),
        attn_dropout=rng.choice((0.0, 0.25, 0.5)),
        inner_dropout=rng.choice((0.0, 0.25)),
    )


def _lengths(rng: Random, most: int) -> list[int]:
    """Short ones, ones near a block of 64 key positions, any."""
    drawn = (
        rng.choice((rng.randint(1, 16), rng.randint(44, 66), rng.randint(1, 130))) for _ in "abcde"
    )
    return [min(n, most) for n in drawn][: rng.randint(2, 5)]


def _recurrence(rng: Random) -> None:
    config = _config(rng)
    windowed = config.mixes_window
    lengths = _lengths(rng, config.window if windowed else 130)
    kind = rng.randrange(4)
    if kind == 0 and config.padding == "right" and not windowed:
        return assert_as_alone("cpu", config, lengths, seed=rng.randrange(1 << 64))
    if kind == 1 and not windowed:
        steps = rng.randint(1, 3) if config.is_recurrent else 1
        # Past the step in relu's slope a rounding error may be a large one.
        config = replace(
            config, activation="gelu" if config.activation == "relu" else config.activation
        )
        return assert_equal_to_equations("cpu", config, lengths, num_steps=steps)
    given = config.is_recurrent and rng.random() < 0.5
    problem = make_problem(config, lengths, given)
    value = rng.choice(list(VALUES.values()))
    if kind == 2:
        name, tensor = rng.choice(list(problem.core.named_parameters()))
        return assert_a_parameter_is_seen(
            "cpu", problem, name, rng.randrange(tensor.numel()), value
        )
    name = "state" if given and rng.random() < 0.5 else "hidden"
    sequence = rng.randrange(len(lengths))
    return assert_stays_in_its_sequence(
        "cpu", problem, name, sequence, rng.randrange(lengths[sequence]), value
    )


def _catalogue(rng: Random) -> None:
    scores = rng.choice(("dot", "cosine"))
    value = rng.choice(list(VALUES.values()))
    hides = torch.tensor([rng.random() < 0.6 for _ in range(catalogue.ROWS)])
    rng.choice(
        (
            lambda: catalogue.test_an_item_that_everyone_excludes_spoils_nothing(
                "cpu", scores, value
            ),
            lambda: catalogue.test_an_item_is_seen("cpu", scores, value),
            lambda: catalogue.test_a_chosen_item_is_seen("cpu", value),
            lambda: catalogue.test_a_query_stays_in_its_row("cpu", scores, value, hides),
        )
    )()


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
            rng.choice((_recurrence, _recurrence, _recurrence, _catalogue))(rng)
    except AssertionError as error:
        raise Failure(f"{chosen}: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main("tests.fuzz.kernels", case) > 0)
