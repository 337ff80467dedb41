"""Hand over what a backend's forward leaves beside the operator's results."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class Handover:
    """Hold what a backend's forward leaves for backward of the same call, where autograd passes it
    on.

    Nothing has to be there: who wants it makes it anew. What is for backward is saved as inputs are, so
    that it lives as long as they do, and is of the values that forward saw.

    Attributes:
        by: name of the backend, which alone can read it.
        tensors: saved for backward.
        numbers: likewise.
        last: (S, d) float32, the trajectory's last states in memory of their own, for the caller.
    """

    by: str = ""
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()
    last: Tensor | None = None
