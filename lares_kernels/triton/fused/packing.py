"""Pack parameters as kernels read them: padded, matrices in one array and vectors in another."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lares_kernels.gpu.arrays import parts_of
from lares_kernels.gpu.packing import Places, find_places
from lares_kernels.gpu.scratch import unfilled
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.parameters import parameter_shapes
from lares_kernels.triton.launch.constants import MIN_SIDE, Constants, constants


class Packed(NamedTuple):
    """Hold ``matrices`` (``C.matrix_rows``, ``C.d``) in the products' type and ``vectors``
    (``C.vector_size``,) in float32, as :class:`Constants` lays them out."""

    matrices: Tensor
    vectors: Tensor


class Packing(NamedTuple):
    """Describe a packing that is still to be done, as arguments of :func:`kernels.packing.pack`.

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
    from lares_kernels.triton.fused.kernels.packing import PACKED

    index = places_of(config, parameters[0].device)
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
    """Return gradients of the parameters from partial gradients of the packed arrays.

    Args:
        matrices: (splits, ``C.matrix_rows``, ``C.d``) float32.
        vectors: (splits, ``C.vector_size``) float32.
        gradients: (programs, ``C.gradient_size``) float32, of which the first are of vectors, too.

    Returns:
        float32, views of one array, each of whose parts begins at 128 bytes.
    """
    from lares_kernels.triton.fused.kernels.packing import UNPACKED, unpack_kernel

    index = places_of(config, matrices.device)
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


@cache
def places_of(config: CoreConfig, device: torch.device) -> Places:
    """Return where each packed number of a core comes from."""
    c = constants(config, MIN_SIDE, False, "ieee")
    return find_places(config, device, lambda p: (_arrange_matrices(c, p), _arrange_vectors(c, p)))


def _rows(part: Tensor, rows: int, width: int) -> Tensor:
    """Pad (..., r, c) with zeros to (..., rows, width)."""
    return pad(part, (0, width - part.shape[-1], 0, rows - part.shape[-2]))


def _arrange_matrices(c: Constants, p: dict[str, Tensor]) -> Tensor:
    """Arrange all matrices of ``p`` in the order of :class:`Constants`."""
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
    """Arrange all vectors of ``p`` where :class:`Constants` has them."""
    found = torch.zeros(c.vector_size, dtype=torch.int64)
    layers = found[: c.core_norm_at].view(c.layers, c.layer_vector)

    def put(whole: Tensor, at: int, *names: str) -> None:
        """Put those that there are one after the other, padded to ``d``."""
        for first, name in enumerate(names):
            if name in p:
                part = torch.atleast_1d(p[name])
                whole[..., at + first * c.d :][..., : part.shape[-1]] = part

    put(layers, c.out_bias_at, "out_bias")
    put(layers, c.attn_norm_at, "attn_norm_weight", "attn_norm_bias")
    put(layers, c.up_bias_at, "up_bias")
    put(layers, c.down_bias_at, "down_bias")
    put(layers, c.ffn_norm_at, "ffn_norm_weight", "ffn_norm_bias")
    filter_norm_at = c.bands_norm_at if c.bands else c.attn_norm_at
    put(layers, filter_norm_at, "filter_norm_weight", "filter_norm_bias")
    put(layers, c.band_scale_at, "band_scale")
    put(found, c.core_norm_at, "core_norm_weight", "core_norm_bias")
    put(found, c.concat_bias_at, "concat_bias")
    put(found, c.gate_at, "gate")
    if c.filters:
        parts = pad(p["filter_weight"].movedim(-1, 1), (0, c.d - c.width))
        layers[:, c.mixing_at :] = parts.flatten(1)  # of (layers, 2, frequencies, d)
    else:
        heads = p["qkv_bias"].reshape(c.layers, 3, c.heads, c.head_width).transpose(1, 2)
        of_heads = pad(heads, (0, c.head - c.head_width))
        layers[:, : c.out_bias_at] = of_heads.reshape(c.layers, -1)
    return found
