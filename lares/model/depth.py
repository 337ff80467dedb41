"""Draw how many reasoning steps a training forward takes (LARES, arXiv 2505.16865, section 3.2.3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from lares.plain import one_of, whole

if TYPE_CHECKING:
    import numpy as np

_LOG_SIGMA = 0.5
MOST_OVER_MEAN = 3  # poisson-lognormal draws are cut at this multiple of the mean


def _poisson_lognormal(mean: int, generator: np.random.Generator) -> int:
    rate = generator.lognormal(math.log(mean) - _LOG_SIGMA**2 / 2, _LOG_SIGMA)
    return min(int(generator.poisson(rate)) + 1, MOST_OVER_MEAN * mean)


_SAMPLERS: dict[str, Callable[[int, np.random.Generator], int]] = {
    "poisson-lognormal": _poisson_lognormal,
    "uniform": lambda mean, generator: int(generator.integers(1, 2 * mean, endpoint=True)),
    "poisson-unbounded": lambda mean, generator: int(generator.poisson(mean)),
    "poisson-bounded": lambda mean, generator: min(int(generator.poisson(mean)), 2 * mean),
    "constant": lambda mean, generator: mean,
    "non-recurrent": lambda mean, generator: 1,
}
DEPTH_SAMPLERS = tuple(_SAMPLERS)
DepthSampler: TypeAlias = Literal[DEPTH_SAMPLERS]  # type: ignore[valid-type]


def sample_depth(sampler: str, mean: int, generator: np.random.Generator) -> int:
    """Draw one depth, at least 1 (the Poisson samplers' zeros become 1).

    Args:
        sampler: one of ``DEPTH_SAMPLERS``.
        mean: mean depth ``r``, at least 1.
        generator: source of the draw.

    Raises:
        ConfigError: there is no such sampler, or the mean is below 1.
    """
    one_of("depth_sampler", sampler, DEPTH_SAMPLERS)
    return max(1, _SAMPLERS[sampler](whole("mean_depth", mean, 1), generator))
