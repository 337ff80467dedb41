"""Finding numbers that are none: NaN and infinity in weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class NonFinite(NamedTuple):
    """Name of a tensor that holds a NaN or an infinity, and the first such place in it."""

    name: str
    place: tuple[int, ...]

    def __str__(self) -> str:
        where = f", first at {list(self.place)}" if self.place else ""
        return f"tensor {self.name!r} holds NaN or infinity{where}"


def first_non_finite(tensors: Mapping[str, Tensor]) -> NonFinite | None:
    """Return the first of floating tensors that holds a NaN or an infinity, if there is one."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _all_finite(tensor.detach()):
            place = (~torch.isfinite(tensor)).nonzero()[0].tolist()
            return NonFinite(name, tuple(place))
    return None


def _all_finite(tensor: Tensor) -> bool:
    """Return whether all of a tensor is finite; in one pass, without another tensor of its size."""
    if tensor.numel() == 0:
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())  # NaN comes through
