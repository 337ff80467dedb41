"""Hand over what a backend's forward leaves beside the operator's results."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class Handover:
    """Hold what a backend's forward leaves for backward of the same call, where autograd passes it
    on.

    All of it is optional and can be recomputed. Tensors for backward are saved like inputs: they live
    as long as those do, and hold the values that forward saw.

    Attributes:
        by: name of the backend, the only one that can read it.
        tensors: saved for backward.
        numbers: saved for backward.
        last: (S, d) float32, the trajectory's last states in memory of their own, for the caller.
    """

    by: str = ""
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()
    last: Tensor | None = None
