"""Finding NaN and infinity in tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lares.finite import first_non_finite

KINDS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7, 100, 3), (1001,)], ids=str)
def test_wherever_it_stands(kind: torch.dtype, value: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    good = torch.randn(shape, dtype=torch.float64).to(kind)
    assert first_non_finite({"good": good}) is None
    size = good.numel()
    for place in {0, size // 2, size - 1}:
        bad = good.clone()
        bad.view(-1)[place] = value
        found = first_non_finite({"good": good, "bad": bad, "worse": bad})
        assert found is not None
        assert found.name == "bad"
        assert not torch.isfinite(bad[found.place])
        assert list(found.place) == [int(i) for i in np.unravel_index(place, shape)]


def test_what_has_no_nan() -> None:
    tensors = {
        "empty": torch.empty(0, 3),
        "numbers": torch.tensor([1, 2]),
        "flags": torch.tensor([True]),
        "largest": torch.tensor([torch.finfo(torch.float32).max] * 3),
        "strided": torch.tensor([[1.0, float("nan")], [2.0, float("nan")]])[:, 0],
    }
    assert first_non_finite(tensors) is None
