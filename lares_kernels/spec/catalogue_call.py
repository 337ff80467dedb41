"""Define a checked call of a catalogue op: how items are scored, and which ones a row excludes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lares_kernels.common.whole import real_number, whole_numbers
from lares_kernels.spec.call import FLOAT_TYPES, check_floats
from lares_kernels.spec.choices import Scores

SCORES = Scores.texts()
# As torch.nn.functional.normalize: shorter vectors are divided by this instead of their length.
SHORTEST = 1e-12


class CatalogueOptions(NamedTuple):
    """Hold an operator's non-tensor arguments: its schema has these, in this order.

    Attributes:
        scores: ``dot`` or ``cosine``.
        temperature: scores are divided by it.
        backend: name of the backend to run, by :func:`lares_kernels.registry.backends.operators_name`.
        precision: of the products, one of ``PRECISIONS``.
    """

    scores: str
    temperature: float
    backend: str
    precision: str


class CatalogueRequest(NamedTuple):
    """Describe a call before there are any values, for the choice of a backend.

    Attributes:
        width: of an item.
        device_type: of the tensors.
        product_dtype: of the factors of products.
    """

    width: int
    device_type: str
    product_dtype: torch.dtype

    @property
    def width_in_words(self) -> str:
        """Describe the width as a part of a sentence."""
        return f"items are {self.width} wide"


@dataclass(frozen=True)
class CatalogueCall:
    """Define how rows score items: ``s_rv = q_r . e_v / temperature``, both normalised first for
    cosine.

    Attributes:
        scores: ``dot`` or ``cosine``.
        temperature: scores are divided by it.
        product_dtype: factors of products are rounded to it; sums are at least float32.
    """

    scores: str
    temperature: float
    product_dtype: torch.dtype

    @property
    def cosine(self) -> bool:
        """Return True if queries and items are normalised."""
        return self.scores == "cosine"


def working_dtype(queries: Tensor, items: Tensor) -> torch.dtype:
    """Return the type of everything but the factors of products: float64 for float64 input, else
    float32."""
    return torch.float64 if torch.float64 in (queries.dtype, items.dtype) else torch.float32


def check_options(scores: str, temperature: float) -> None:
    """Raise ``ValueError`` unless scores can be made so."""
    if scores not in SCORES:
        raise ValueError(f"scores is {scores!r}; it must be one of {', '.join(SCORES)}")
    real_number("temperature", temperature)
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; it must be a positive number")


def check_matrices(queries: Tensor, items: Tensor) -> None:
    """Raise unless ``queries`` (..., d) and ``items`` (V, d) are of types and shapes we serve."""
    for name, tensor in (("queries", queries), ("items", items)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is of type {type(tensor).__name__}; it must be a tensor")
    if items.dim() != 2 or items.shape[0] == 0 or items.shape[1] == 0:
        raise ValueError(f"items has shape {tuple(items.shape)}; it must be (V, d), not empty")
    if queries.dim() < 2 or queries.shape[-1] != items.shape[1]:
        raise ValueError(
            f"queries has shape {tuple(queries.shape)}; it must be (..., {items.shape[1]}), as wide "
            "as items"
        )
    for name, tensor in (("queries", queries), ("items", items)):
        if tensor.dtype not in FLOAT_TYPES:
            raise TypeError(
                f"{name} is {tensor.dtype}; it must be float64, float32, bfloat16 or float16"
            )
        if tensor.layout is not torch.strided:
            raise TypeError(f"{name} is {tensor.layout}; it must be a dense tensor")
    if queries.device != items.device:
        raise ValueError(f"queries are on {queries.device}, items on {items.device}")


def check_ids(name: str, ids: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return ``ids`` as contiguous int64. Raise unless integers of ``shape`` on ``device``."""
    found = whole_numbers(name, ids, (shape,))
    if ids.device != device:
        raise ValueError(f"{name} is on {ids.device}, queries are on {device}")
    return found


def check_excluded_shape(excluded: Tensor, n_rows: int, device: torch.device) -> Tensor:
    """Return ``excluded`` (R, H) as contiguous int64. Raise unless integers on ``device``."""
    if not isinstance(excluded, Tensor) or excluded.dim() != 2:
        shape = tuple(getattr(excluded, "shape", ()))
        raise ValueError(
            f"excluded has shape {shape}; it must be ({n_rows}, H), with -1 where there is none"
        )
    return check_ids("excluded", excluded, (n_rows, excluded.shape[1]), device)


class Operands(NamedTuple):
    """Hold an operator's tensors as kernels can read them: contiguous, ids in int64.

    ``N / R`` queries of each of ``R`` rows, one row's after the other.

    Attributes:
        queries: (N, d).
        items: (V, d).
        chosen: (R,) ids, called targets for ranks; empty for an operator that takes
            none.
        excluded: (R, H) ids, -1 where there is none; or None.
    """

    queries: Tensor
    items: Tensor
    chosen: Tensor
    excluded: Tensor | None


class AskedGradients(NamedTuple):
    """Hold what gradients of the log-probabilities are made of, beside the operands.

    Attributes:
        normaliser: (N,) log-normalisers that ``log_probability`` gave.
        g_log_probability: (N,) gradient of its result.
        wants_queries, wants_items: which gradients to compute.
    """

    normaliser: Tensor
    g_log_probability: Tensor
    wants_queries: bool = True
    wants_items: bool = True


def operands(
    name: str, queries: Tensor, items: Tensor, chosen: Tensor | None, excluded: Tensor | None
) -> Operands:
    """Check an operator's tensors against each other: R rows of as many queries each, (N, d) in
    all.

    Args:
        name: of ``chosen``.
        queries, items, chosen, excluded: as :class:`Operands` has them, of any layout and whole type.
    """
    check_matrices(queries, items)
    if queries.dim() != 2:
        raise ValueError(f"queries has shape {tuple(queries.shape)}; it must be (N, d)")
    n_rows = queries.shape[0]
    if chosen is None:
        chosen = queries.new_empty(0, dtype=torch.int64)
    else:
        n_queries, n_rows = n_rows, chosen.numel()
        chosen = check_ids(name, chosen, (n_rows,), queries.device)
        if n_queries % n_rows if n_rows else n_queries:
            raise ValueError(
                f"{name} has shape ({n_rows},), but there are {n_queries} queries; each row must have "
                "as many as the others"
            )
    if excluded is not None:
        excluded = check_excluded_shape(excluded, n_rows, queries.device)
    return Operands(queries.contiguous(), items.contiguous(), chosen, excluded)


def check_per_query(name: str, value: Tensor, queries: Tensor) -> Tensor:
    """Return ``value`` contiguous. Raise unless it has a real number for each query (N, d)."""
    check_floats(name, value, queries.device, (queries.shape[0],))
    return value.contiguous()


def check_k(k: int, n_items: int) -> None:
    """Raise ``ValueError`` unless ``k`` is within the size of the catalogue."""
    if not 1 <= k <= n_items:
        raise ValueError(f"k is {k}; it must be in 1..{n_items}, the size of the catalogue")


def checks_values(tensor: Tensor) -> bool:
    """Return True if ids are checked by value: reading them would wait for a GPU."""
    return tensor.device.type == "cpu" or os.environ.get("LARES_CHECK_VALUES") == "1"


def check_chosen(name: str, chosen: Tensor, excluded: Tensor | None, n_items: int) -> None:
    """Raise ``ValueError`` unless each id (R,) is an item that its row does not exclude."""
    wrong = (chosen < 0) | (chosen >= n_items)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} of row {row} is {int(chosen[row])}; it must be in 0..{n_items - 1}"
        )
    if excluded is None or excluded.numel() == 0:
        return
    hit = (excluded == chosen[:, None]).any(dim=1)
    if bool(hit.any()):
        row = int(hit.nonzero()[0])
        raise ValueError(
            f"{name} of row {row} is {int(chosen[row])}, which the row excludes; take it out of "
            "excluded (-1 in its place) where it is to be scored"
        )


def check_excluded(excluded: Tensor, n_items: int) -> None:
    """Raise ``ValueError`` unless ids (R, H) are items or -1."""
    wrong = (excluded < -1) | (excluded >= n_items)
    if bool(wrong.any()):
        row, place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"excluded[{row}, {place}] is {int(excluded[row, place])}; it must be an item in "
            f"0..{n_items - 1}, or -1 for none"
        )


def in_order(excluded: Tensor, n_items: int) -> Tensor:
    """Sort excluded ids (R, H) ascending in every row, with ``n_items`` where there is none.

    A pass over the catalogue then needs one place in each row, never a search. Unchecked ids that are
    no item's count as none.
    """
    items = (excluded >= 0) & (excluded < n_items)
    return excluded.where(items, n_items).sort(dim=1).values
