"""Depth samplers (spec: every sampler of the released program)."""

from __future__ import annotations

import numpy as np
import pytest

from lares.errors import ConfigError
from lares.model.depth import DEPTH_SAMPLERS, sample_depth


def draws(sampler: str, mean: int, n: int = 20000) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.array([sample_depth(sampler, mean, generator) for _ in range(n)])


@pytest.mark.parametrize("sampler", DEPTH_SAMPLERS)
def test_at_least_one(sampler: str) -> None:
    assert draws(sampler, 1, 500).min() >= 1


def test_distributions() -> None:
    lognormal = draws("poisson-lognormal", 4)
    assert lognormal.max() <= 12
    assert abs(lognormal.mean() - 5) < 0.15  # Poisson with mean 4, plus one, cut at 12
    uniform = draws("uniform", 4)
    assert (uniform.min(), uniform.max()) == (1, 8)
    assert abs(uniform.mean() - 4.5) < 0.1
    bounded = draws("poisson-bounded", 4)
    assert bounded.max() == 8
    assert draws("poisson-unbounded", 4).max() > 8
    assert set(draws("constant", 4, 50)) == {4}
    assert set(draws("non-recurrent", 4, 50)) == {1}


def test_errors() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="depth_sampler is 'x'"):
        sample_depth("x", 4, generator)
    with pytest.raises(ConfigError, match="mean_depth is 0"):
        sample_depth("uniform", 0, generator)
