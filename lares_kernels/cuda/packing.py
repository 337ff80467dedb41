"""Pack parameters as the kernels read them: matrices in 16 x 16 fragments, vectors concatenated.

The order is that of csrc/cuda/core.hpp. Packing is a gather (csrc/cuda/pack.hpp), one launch.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lares_kernels.binding import cuda_library as lib
from lares_kernels.binding.structs import LaresCudaPack, LaresCudaUnpack
from lares_kernels.cuda.device import PRECISIONS, index_of, stream_of
from lares_kernels.cuda.plan import Shapes, shapes_of
from lares_kernels.gpu.arrays import parts_of
from lares_kernels.gpu.packing import Places, find_places
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.parameters import parameter_shapes


class Packed(NamedTuple):
    """Hold ``matrices`` (fragments, 256) in the products' type and ``vectors``
    (``Shapes.vector_size``,) in float32."""

    matrices: Tensor
    vectors: Tensor


class Packing(NamedTuple):
    """Describe a packing that the library still has to do, and its destination."""

    packed: Packed
    call: ctypes.Structure
    alive: list[Tensor]  # what the struct points to

    def run(self) -> None:
        """Do it, in a launch of its own."""
        lib.run("lares_cuda_pack", self.call)


def packing(config: CoreConfig, parameters: list[Tensor], product_dtype: torch.dtype) -> Packing:
    """Find room for ``parameters``, in the order of :func:`parameter_shapes`, packed.

    Raises:
        BackendError: the library cannot be used.
    """
    device = parameters[0].device
    index = places_of(config, device)
    floats = [p.to(torch.float32).contiguous() for p in parameters]
    matrices = unfilled(index.matrices, dtype=product_dtype, device=device)
    vectors = unfilled(index.vectors, dtype=torch.float32, device=device)
    call = LaresCudaPack(index_of(device), 1, PRECISIONS[product_dtype], matrices.numel())
    call.vector_numbers = len(vectors)
    for i, part in enumerate(floats):
        call.sizes[i], call.parameters[i] = part.numel(), part.data_ptr()
    call.places, call.matrices = index.places.data_ptr(), matrices.data_ptr()
    call.vectors, call.stream = vectors.data_ptr(), stream_of(device)
    return Packing(Packed(matrices, vectors), call, floats)


def unpack_gradients(
    config: CoreConfig, matrices: Tensor, vectors: Tensor, gradients: Tensor
) -> list[Tensor]:
    """Return gradients of the parameters from partial gradients of the packed arrays.

    Args:
        matrices: (splits, fragments, 256) float32.
        vectors: (splits, ``Shapes.vector_size``) float32.
        gradients: (warps, ``Shapes.vector_size``) float32, added to those of vectors.

    Returns:
        float32, views of one array, each of which begins at 128 bytes.
    """
    device = matrices.device
    index = places_of(config, device)
    flat = unfilled(len(index.gradients), dtype=torch.float32, device=vectors.device)
    call = LaresCudaUnpack(index_of(device), 1, matrices.shape[0], gradients.shape[0])
    call.matrix_numbers, call.vector_numbers = matrices[0].numel(), vectors.shape[1]
    call.count, call.places = len(flat), index.gradients.data_ptr()
    call.g_matrices, call.g_vectors = matrices.data_ptr(), vectors.data_ptr()
    call.gradients, call.out = gradients.data_ptr(), flat.data_ptr()
    call.stream = stream_of(device)
    lib.run("lares_cuda_unpack", call)
    return parts_of(flat, tuple(parameter_shapes(config).values()))


@cache
def places_of(config: CoreConfig, device: torch.device) -> Places:
    """Return where each packed number of a core comes from."""
    shapes = shapes_of(config)
    return find_places(
        config, device, lambda p: (_arrange_matrices(shapes, p), _arrange_vectors(shapes, p))
    )


def _padded(part: Tensor, rows: int, columns: int) -> Tensor:
    """Pad (..., r, c) with zeros to (..., rows, columns)."""
    return pad(part, (0, columns - part.shape[-1], 0, rows - part.shape[-2]))


def fragments(matrix: Tensor) -> Tensor:
    """Reorder (..., 16 n, 16 k) to (..., n, k, 256): outputs by inputs in the order of the lanes.

    Lane ``4 g + t`` holds 8 numbers: rows ``g`` and ``8 + g``, of each columns ``2 t, 2 t + 1`` and
    ``2 t + 8, 2 t + 9``.
    """
    *outer, rows, columns = matrix.shape
    # (row half, g) x (column half, t, pair)
    split = matrix.reshape(*outer, rows // 16, 2, 8, columns // 16, 2, 4, 2)
    n = len(outer)
    order = [n, n + 3, n + 2, n + 5, n + 1, n + 4, n + 6]
    return split.permute(*range(n), *order).reshape(*outer, rows // 16, columns // 16, 256)


def _arrange_matrices(shapes: Shapes, p: dict[str, Tensor]) -> Tensor:
    """Arrange all matrices of ``p``: each layer's heads and feed-forward, then concat's.

    A head is its query, key and value (outputs first, inputs fastest), then its columns of ``W_o`` (16
    inputs after the other, outputs fastest). The feed-forward goes by 16 columns of the inner layer:
    rows of ``W_1``, then columns of ``W_2``.
    """
    layers, heads, width = shapes.layers, shapes.heads, shapes.width
    head = 16 * shapes.head_tiles
    qkv = p["qkv_weight"].reshape(layers, 3, heads, width // heads, width).transpose(1, 2)
    qkv = fragments(_padded(qkv, head, width)).reshape(layers, heads, -1, 256)
    out = p["out_weight"].reshape(layers, width, heads, width // heads).transpose(1, 2)
    out = fragments(_padded(out, width, head)).transpose(2, 3).reshape(layers, heads, -1, 256)
    up = fragments(_padded(p["up_weight"], shapes.ff, width))
    down = fragments(_padded(p["down_weight"], width, shapes.ff)).transpose(1, 2)
    by_layer = [
        torch.cat([qkv, out], dim=2).reshape(layers, -1, 256),
        torch.cat([up, down], dim=2).reshape(layers, -1, 256),
    ]
    parts = [torch.cat(by_layer, dim=1).reshape(-1, 256)]
    if shapes.concat:
        parts += [fragments(half).reshape(-1, 256) for half in p["concat_weight"].chunk(2, dim=1)]
    return torch.cat(parts)


def _arrange_vectors(shapes: Shapes, p: dict[str, Tensor]) -> Tensor:
    """Arrange all vectors of ``p`` in the order of ``Places``."""

    def wide(part: Tensor, size: int) -> Tensor:
        return pad(part, (0, size - part.shape[-1]))

    layers, heads, width = shapes.layers, shapes.heads, shapes.width
    by_head = p["qkv_bias"].reshape(layers, 3, heads, width // heads).transpose(1, 2)
    by_layer = [
        wide(by_head, 16 * shapes.head_tiles).reshape(layers, -1),
        p["out_bias"],
        p["attn_norm_weight"],
        p["attn_norm_bias"],
        wide(p["up_bias"], shapes.ff),
        p["down_bias"],
        p["ffn_norm_weight"],
        p["ffn_norm_bias"],
    ]
    nothing = torch.zeros(width, dtype=torch.int64)
    rest = [p.get(n, nothing) for n in ("core_norm_weight", "core_norm_bias", "concat_bias")]
    gate = p.get("gate", torch.zeros((), dtype=torch.int64)).reshape(1)
    return torch.cat([torch.cat(by_layer, dim=1).flatten(), *rest, wide(gate, 4)])
