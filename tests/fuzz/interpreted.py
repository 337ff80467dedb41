"""The random calls of :mod:`tests.fuzz.kernels` over Triton's kernels, under its interpreter.

    python -m tests.fuzz.interpreted --seconds 60 --seed 0

Widths decide the plan: multiples of 8 are the fused one's, all else goes layer by layer.
"""

from __future__ import annotations

import os
import warnings
from random import Random

import numpy as np
import torch

from tests.fuzz import kernels
from tests.fuzz.runner import Failure, main
from tests.kernels.triton.interpreted.quicker import spare_time

# Every function of the interpreter takes as long as a thousand of PyTorch's.
SMALL = kernels.Sizes(
    heads=(1, 2),
    inner=20,
    windows=(5, 8),
    lengths=((1, 4), (1, 12)),
    sequences=3,
    rows=5,
    items=70,
    width=64,
    tolerance=1e-6,
)


def case(seed: int) -> None:
    """Run the case of a seed, in a process whose Triton interprets.

    Raises:
        Failure: something is wrong; the message says what.
    """
    rng = Random(seed)
    torch.manual_seed(seed)
    kind = rng.choice((kernels.recurrence, kernels.recurrence, kernels.catalogue))
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of numbers that are not finite
            kind(rng, "triton", SMALL)
    except AssertionError as error:
        raise Failure(str(error)) from error


if __name__ == "__main__":
    # Before Triton is imported, and without checks of every core by itself.
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["LARES_SELF_CHECK"] = "0"
    spare_time()
    raise SystemExit(main("tests.fuzz.interpreted", case) > 0)
