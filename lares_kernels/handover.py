"""What forward leaves for backward beside what the operator returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class Handover:
    """What a backend's forward leaves for backward of the same call, where autograd hands it on.

    Nothing has to be there: backward makes it anew. It is saved as inputs are, so that it lives as long
    as they do, and is of the values that forward saw.

    Attributes:
        by: name of the backend, which alone can read it.
        tensors: saved for backward.
        numbers: likewise.
    """

    by: str = ""
    tensors: tuple[Tensor, ...] = ()
    numbers: tuple[int, ...] = ()
