"""Compute the constant matrices with which the fused plan mixes whole windows, and convert
gradients.

The coefficients of a window of ``L`` rows are its products with ``L`` orthonormal rows: the cosine of
frequency 0, then cosine and negative sine of each next one. Of those, frequency 0 and for even ``L``
``L / 2`` stand alone; of the others, cosine and sine are partners: a complex weight mixes the two.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lares_kernels.common.device_tables import to_device
from lares_kernels.gpu.scratch import zeroed
from lares_kernels.reference.mixing import fourier_basis, low_pass
from lares_kernels.spec.config import CoreConfig
from lares_kernels.triton.launch.constants import Constants
from lares_kernels.triton.launch.rounding import rounded_table


@cache
def tile_transforms(
    config: CoreConfig, rows: int, dtype: torch.dtype, device: torch.device, tf32: bool
) -> Tensor | None:
    """Return the matrices of ``kernels/mixing.py`` for tiles of ``rows``, or None.

    ``filter`` has two, coefficients and their partners; ``bsarec`` one, the low pass.

    Args:
        config: of the core.
        rows: of a tile.
        dtype: of the products with weights.
        device: where they are wanted.
        tf32: whether those products are in tf32, and so the matrices rounded to it.

    Returns:
        (n, rows, rows) float32; where ``dtype`` is of 16 bits (n, 2, rows, rows), two numbers of it
        for each, the rounded one and what that lacks.
    """
    if not config.mixes_window:
        return None
    length, cpu = config.window, torch.device("cpu")
    if config.mixer == "bsarec":
        matrices = [low_pass(length, config.cutoff, torch.float64, cpu)]
    else:
        number = torch.arange(length)
        frequency, sine = (number + 1) // 2, ((number > 0) & (number % 2 == 0)).to(torch.int64)
        basis = fourier_basis(length, torch.float64, cpu)
        partner = basis[1 - sine, frequency]
        alone = (2 * frequency) % length == 0
        matrices = [basis[sine, frequency], partner.masked_fill(alone[:, None], 0.0)]
    tiles = torch.zeros(len(matrices), rows, rows, dtype=torch.float64)
    used = rows // length * length
    for tile, matrix in zip(tiles, matrices, strict=True):
        tile[:used, :used] = torch.block_diag(*[matrix] * (rows // length))
    if dtype == torch.float32:
        (found,) = to_device(device, tiles.to(dtype))
        return rounded_table(found) if tf32 else found
    rounded = tiles.to(dtype)
    halves = torch.stack([rounded, (tiles - rounded.double()).to(dtype)], 1)
    return to_device(device, halves)[0]


def add_filter_gradient(c: Constants, sums: Tensor, g_vectors: Tensor) -> None:
    """Add the gradients of ``kernels/mixing.py``'s ``filter_weight`` where the packed vectors have it.

    Args:
        c: of the kernel that left them.
        sums: (layers 2 rows d,) float32, of all programs.
        g_vectors: (vector_size,) float32, added to.
    """
    length, windows = c.window, c.rows // c.window
    by_row = sums.view(c.layers, 2, c.rows, c.d)[:, :, : windows * length]
    coefficients = by_row.unflatten(2, (windows, length)).sum(2)
    # A frequency's cosine and sine share its weight; a cosine's partner counts with the imaginary part
    # negative, and frequency 0 has none.
    cosines, sines = coefficients[:, :, 1::2], coefficients[:, :, 2::2]
    found = zeroed(c.layers, 2, c.frequencies, c.d, dtype=sums.dtype, device=sums.device)
    found[:, 0, 0] = coefficients[:, 0, 0]
    found[:, 0, 1 : 1 + cosines.shape[2]] += cosines[:, 0]
    found[:, 1, 1 : 1 + cosines.shape[2]] -= cosines[:, 1]
    found[:, :, 1 : 1 + sines.shape[2]] += sines
    layers = g_vectors[: c.layers * c.layer_vector].view(c.layers, c.layer_vector)
    layers[:, c.mixing_at : c.mixing_at + 2 * c.frequencies * c.d] += found.flatten(1)
