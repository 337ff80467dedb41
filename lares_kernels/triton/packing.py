"""Parameters as kernels read them: padded, matrices in one array and vectors in another.

Packing is a gather. Its index is found once for each shape, by packing addresses instead of values,
and read the other way it unpacks gradients.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lares_kernels.config import CoreConfig
from lares_kernels.device_tables import to_device
from lares_kernels.parameters import parameter_shapes
from lares_kernels.scratch import unfilled
from lares_kernels.triton.constants import LEAST_SIDE, Constants, constants
from lares_kernels.triton.rounding import round_to_tf32


class Packed(NamedTuple):
    """``matrices`` (``C.matrix_rows``, ``C.d``) in the products' type, ``vectors``
    (``C.vector_size``,) float32, as :class:`Constants` lays them out."""

    matrices: Tensor
    vectors: Tensor


def pack(
    config: CoreConfig, parameters: list[Tensor], product_dtype: torch.dtype, tf32: bool
) -> Packed:
    """Pack ``parameters``, in the order of :func:`parameter_shapes`; rounded, where so are products."""
    index = _index(config, parameters[0].device)
    flat = torch.cat([index.zero, *(p.reshape(-1).to(torch.float32) for p in parameters)])
    matrices = flat.to(product_dtype)[index.matrices]
    return Packed(round_to_tf32(matrices) if tf32 else matrices, flat[index.vectors])


def unpack_gradients(config: CoreConfig, matrices: Tensor, vectors: Tensor) -> list[Tensor]:
    """Gradients of the parameters from those of the packed arrays, float32."""
    index = _index(config, matrices.device)
    flat = torch.cat([matrices.reshape(-1), vectors])[index.parameters]
    shapes = parameter_shapes(config).values()
    parts = flat.split([_numel(shape) for shape in shapes])
    grads = [unfilled(shape, dtype=flat.dtype, device=flat.device) for shape in shapes]
    torch._foreach_copy_(grads, [p.view(g.shape) for p, g in zip(parts, grads, strict=True)])
    return grads


class _Index(NamedTuple):
    """Where packed numbers come from in the flat parameters, of which number 0 is a zero."""

    zero: Tensor  # (1,) float32
    matrices: Tensor  # int64, shaped like the packed matrices
    vectors: Tensor
    parameters: Tensor  # the way back: place of each parameter's number in both packed arrays


def _numel(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


@cache
def _index(config: CoreConfig, device: torch.device) -> _Index:
    shapes = parameter_shapes(config)
    size = sum(_numel(shape) for shape in shapes.values())
    addresses = torch.arange(1, size + 1).split([_numel(shape) for shape in shapes.values()])
    by_name = {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), addresses, strict=True)
    }
    c = constants(config, LEAST_SIDE, False, "ieee")
    matrices, vectors = _arrange_matrices(c, by_name), _arrange_vectors(c, by_name)
    both = torch.cat([matrices.flatten(), vectors])
    places = torch.zeros(size, dtype=torch.int64)
    real = both > 0
    places[both[real] - 1] = torch.arange(len(both))[real]
    return _Index(*to_device(device, torch.zeros(1), matrices, vectors, places))


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
