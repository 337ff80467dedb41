"""Random calls of the CUDA kernels on the emulator, with neighbours and numbers that are not finite.

    LARES_CUDA_LIBRARY=libemulator.so python -m tests.fuzz.emulated --seconds 60 --seed 0

A case draws a core of the narrowest width and lengths: every sequence gets what it gets alone, and what
is not finite stays in its sequence and is seen.
"""

from __future__ import annotations

import os
from random import Random

import torch

from lares_kernels import CoreConfig
from tests.fuzz.runner import Failure, main
from tests.kernels.neighbours import assert_as_alone
from tests.kernels.non_finite import (
    VALUES,
    assert_a_parameter_is_seen,
    assert_others_are_the_same,
    assert_stays_in_its_sequence,
    make_problem,
)


def _config(rng: Random) -> CoreConfig:
    return CoreConfig(
        d_model=32,
        n_heads=rng.choice((1, 2, 4)),
        d_ff=rng.randint(1, 70),
        n_layers=rng.choice((1, 1, 2)),
        adapter=rng.choice(("add", "gate", "concat", "none")),
        activation=rng.choice(("gelu", "gelu_tanh", "relu", "silu")),
        norm=rng.choice(("post", "pre")),
        dropout=rng.choice((0.0, 0.1, 0.5)),
        attn_dropout=rng.choice((0.0, 0.0, 0.25, 0.5)),
    )


def _call(rng: Random) -> None:
    config = _config(rng)
    most = 64 if config.attn_dropout > 0 else 128
    lengths = [
        min(most, rng.choice((rng.randint(1, 16), rng.randint(1, 40), rng.randint(1, 128))))
        for _ in range(rng.randint(2, 6))
    ]
    kind = rng.randrange(5)
    if kind == 0 and config.activation != "relu":  # at whose step rounding may be a large error
        seed = rng.randrange(1 << 64)
        return assert_as_alone("cuda", config, lengths, 4e-3, 4e-2, precision="fp16", seed=seed)
    given = config.is_recurrent and rng.random() < 0.5
    problem = make_problem(config, lengths, given, seed=rng.randrange(1 << 64))
    value = rng.choice(list(VALUES.values()))
    precision = rng.choice(("bf16", "fp16"))
    if kind == 1:
        name, tensor = rng.choice(list(problem.core.named_parameters()))
        place = rng.randrange(tensor.numel())
        return assert_a_parameter_is_seen("cuda", problem, name, place, value, precision=precision)
    sequence = rng.randrange(len(lengths))
    token = rng.randrange(lengths[sequence])
    if kind == 2:  # becomes infinite on the way, or not
        value = rng.choice((-1, 1)) * 10.0 ** rng.uniform(3, 38)
        clean = problem.results("cuda", torch.float32, precision=precision)
        problem.hidden[sequence, token] = value
        found = problem.results("cuda", torch.float32, precision=precision)
        return assert_others_are_the_same(found, clean, sequence, f"{value} in {sequence}")
    name = "state" if given and rng.random() < 0.5 else "hidden"
    return assert_stays_in_its_sequence(
        "cuda", problem, name, sequence, token, value, precision=precision
    )


def case(seed: int) -> None:
    """Run the case of a seed, where ``LARES_CUDA_LIBRARY`` names the emulator.

    Raises:
        Failure: something is wrong; the message says what.
    """
    # Of a core with ReLU in fp16 rounding alone may fail it.
    os.environ.setdefault("LARES_SELF_CHECK", "0")
    torch.manual_seed(seed)
    try:
        _call(Random(seed))
    except AssertionError as error:
        raise Failure(str(error)) from error


if __name__ == "__main__":
    raise SystemExit(main("tests.fuzz.emulated", case) > 0)
