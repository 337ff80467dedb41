"""Parameters as kernels read them: padded, matrices in one array and vectors in another.

Packing is a gather. Its index is found once for each shape, by packing addresses instead of values,
and read the other way it unpacks gradients.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lares_kernels.arrays import aligned, parts_of
from lares_kernels.config import CoreConfig
from lares_kernels.device_tables import to_device
from lares_kernels.parameters import parameter_shapes
from lares_kernels.scratch import unfilled
from lares_kernels.triton.constants import LEAST_SIDE, Constants, constants


class Packed(NamedTuple):
    """``matrices`` (``C.matrix_rows``, ``C.d``) in the products' type, ``vectors``
    (``C.vector_size``,) float32, as :class:`Constants` lays them out."""

    matrices: Tensor
    vectors: Tensor


class Packing(NamedTuple):
    """Packing that is still to be done, as :func:`kernels.packing.pack` is told of it.

    Attributes:
        packed: where to.
        pointers: places, matrices, vectors, parameters.
        sizes: compile-time arguments.
        programs: to launch.
    """

    packed: Packed
    pointers: tuple[Any, ...]
    sizes: dict[str, Any]
    programs: int


# Compile-time arguments where nothing is packed.
NOTHING = {"ENDS": (), "MATRICES": 0, "VECTORS": 0, "TF32": False}


def packing(
    config: CoreConfig, parameters: list[Tensor], product_dtype: torch.dtype, tf32: bool
) -> Packing:
    """Find room for ``parameters``, in the order of :func:`parameter_shapes`, packed; rounded where
    products are in ``tf32``."""
    from lares_kernels.triton.kernels.packing import PACKED

    index = _index(config, parameters[0].device)
    new = partial(unfilled, device=parameters[0].device)
    packed = Packed(
        new(index.matrices, dtype=product_dtype), new(index.vectors, dtype=torch.float32)
    )
    given = tuple(parameter.contiguous() for parameter in parameters)
    return Packing(
        packed,
        (index.places, *packed, given),
        {
            "ENDS": index.ends,
            "MATRICES": packed.matrices.numel(),
            "VECTORS": index.vectors,
            "TF32": tf32,
        },
        -(-len(index.places) // PACKED.value),
    )


def unpack_gradients(
    config: CoreConfig, c: Constants, matrices: Tensor, vectors: Tensor, gradients: Tensor
) -> list[Tensor]:
    """Gradients of the parameters from parts of those of the packed arrays.

    Args:
        matrices: (splits, ``C.matrix_rows``, ``C.d``) float32.
        vectors: (splits, ``C.vector_size``) float32.
        gradients: (programs, ``C.gradient_size``) float32, of which the first are of vectors, too.

    Returns:
        float32, views of one array, each of whose parts begins at 128 bytes.
    """
    from lares_kernels.triton.kernels.packing import UNPACKED, unpack_kernel

    index = _index(config, matrices.device)
    flat = unfilled(len(index.gradients), dtype=torch.float32, device=vectors.device)
    unpack_kernel[(-(-len(flat) // UNPACKED.value),)](
        index.gradients,
        matrices,
        vectors,
        gradients,
        flat,
        matrices.shape[0],
        gradients.shape[0],
        len(flat),
        SPOILT=c.spoilt_at,
        GRADIENTS=gradients.shape[1],
        MATRICES=matrices[0].numel(),
        VECTORS=vectors.shape[1],
        num_warps=4,
    )
    return parts_of(flat, tuple(parameter_shapes(config).values()))


class _Index(NamedTuple):
    """Where packed numbers come from: places in all parameters, one after the other from 1 on."""

    matrices: tuple[int, ...]  # shape of the packed matrices
    vectors: int  # numbers of the packed vectors
    ends: tuple[int, ...]  # place behind each parameter's last number
    places: Tensor  # int32, of all matrices' numbers, then of all vectors'; 0: a zero
    gradients: Tensor  # int32, the way back, parameters aligned; -1: between them


def _numel(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


@cache
def _index(config: CoreConfig, device: torch.device) -> _Index:
    shapes = parameter_shapes(config)
    sizes = [_numel(shape) for shape in shapes.values()]
    addresses = torch.arange(1, sum(sizes) + 1).split(sizes)
    by_name = {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), addresses, strict=True)
    }
    c = constants(config, LEAST_SIDE, False, "ieee")
    matrices, vectors = _arrange_matrices(c, by_name), _arrange_vectors(c, by_name)
    both = torch.cat([matrices.flatten(), vectors])
    places = torch.zeros(sum(sizes), dtype=torch.int64)
    real = both > 0
    places[both[real] - 1] = torch.arange(len(both))[real]
    gradients = torch.cat(
        [pad(part, (0, aligned(len(part)) - len(part)), value=-1) for part in places.split(sizes)]
    )
    return _Index(
        tuple(matrices.shape),
        len(vectors),
        tuple(1 + end for end in accumulate(sizes)),
        *to_device(device, both.int(), gradients.int()),
    )


def _rows(part: Tensor, rows: int, width: int) -> Tensor:
    """(..., r, c) padded with zeros to (..., rows, width)."""
    return pad(part, (0, width - part.shape[-1], 0, rows - part.shape[-2]))


def _arrange_matrices(c: Constants, p: dict[str, Tensor]) -> Tensor:
    """All matrices of ``p`` in the order of :class:`Constants`."""
    layers, heads = c.layers, c.heads
    by_layer = [_rows(p["up_weight"], c.ff, c.d), _rows(p["down_weight"].mT, c.ff, c.d)]
    if not c.filters:
        qkv = p["qkv_weight"].reshape(layers, 3, heads, c.head_width, c.width).transpose(1, 2)
        out = p["out_weight"].mT.reshape(layers, heads, c.head_width, c.width)
        of_heads = (_rows(part, c.head, c.d).reshape(layers, -1, c.d) for part in (qkv, out))
        by_layer = [*of_heads, *by_layer]
    rows = [torch.cat(by_layer, dim=1).reshape(-1, c.d)]
    if c.concat:
        rows += [_rows(half, c.d, c.d) for half in p["concat_weight"].chunk(2, dim=1)]
    return torch.cat(rows)


def _arrange_vectors(c: Constants, p: dict[str, Tensor]) -> Tensor:
    """All vectors of ``p`` in the order of :class:`Constants`."""

    def wide(part: Tensor, size: int) -> Tensor:
        return pad(part, (0, size - part.shape[-1]))

    def norm(name: str) -> list[Tensor]:
        return [wide(p[f"{name}_{part}"], c.d) for part in ("weight", "bias")]

    by_layer = [wide(p["up_bias"], c.ff), wide(p["down_bias"], c.d), *norm("ffn_norm")]
    if c.filters:
        no_bias = torch.zeros(c.layers, c.d, dtype=torch.int64)
        parts = wide(p["filter_weight"].movedim(-1, 1), c.d)  # (layers, 2, frequencies, d)
        by_layer = [no_bias, *norm("filter_norm"), *by_layer, parts.flatten(1)]
    else:
        heads = p["qkv_bias"].reshape(c.layers, 3, c.heads, c.head_width).transpose(1, 2)
        of_heads = wide(heads, c.head).reshape(c.layers, -1)
        by_layer = [of_heads, wide(p["out_bias"], c.d), *norm("attn_norm"), *by_layer]
    if c.bands:
        by_layer += [*norm("filter_norm"), wide(p["band_scale"], c.d)]
    vectors = [torch.cat(by_layer, dim=1).flatten()]
    nothing = torch.zeros(c.width, dtype=torch.int64)
    for name in ("core_norm_weight", "core_norm_bias", "concat_bias"):
        vectors.append(wide(p.get(name, nothing), c.d))
    gate = p.get("gate", torch.zeros((), dtype=torch.int64)).reshape(1)
    vectors.append(wide(gate, c.vector_size - c.gate_at))
    return torch.cat(vectors)
