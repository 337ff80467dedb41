"""Mixing along whole windows in a tile: products with constant (rows, rows) matrices, as in attention.

A tile holds as many windows of ``C.window`` rows as fit it, from its first row, so its transforms are
block-diagonal and the same for every tile; ``lares_kernels/triton/tile_transforms.py`` makes them. What
they multiply is float32, and so is the result: where weights are rounded to half precision the products
here are taken of both halves of each number, which leaves float32's own error but for the last bits.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import tiles
from lares_kernels.triton.kernels.rows import field

COEFFICIENTS: tl.constexpr = tl.constexpr(0)  # of a window in the real Fourier basis
PARTNERS: tl.constexpr = tl.constexpr(1)  # its sine for each cosine's, and the other way round
LOW_PASS: tl.constexpr = tl.constexpr(0)


@triton.jit
def transform(transforms, which: tl.constexpr, C: tl.constexpr):
    """One of the tile's matrices, (rows, rows) float32."""
    at = tl.arange(0, C.rows)[:, None] * C.rows + tl.arange(0, C.rows)[None, :]
    return tl.load(transforms + which * (C.rows * C.rows) + at)


@triton.jit
def product(a, b, HALF: tl.constexpr, C: tl.constexpr):
    """``a b`` of float32 blocks; ``HALF`` is the type of the weights' products."""
    if C.exact:
        return tl.dot(a, b, input_precision=C.input_precision)
    else:
        a_high, b_high = a.to(HALF), b.to(HALF)
        a_low = (a - a_high.to(tl.float32)).to(HALF)
        b_low = (b - b_high.to(tl.float32)).to(HALF)
        found = tl.dot(a_high, b_low)
        found = tl.dot(a_low, b_high, found)
        return tl.dot(a_high, b_high, found)


@triton.jit
def filter_weight(vectors, info, C: tl.constexpr):
    """(real, imaginary) parts (rows, d) of the weight of every coefficient of the tile's windows.

    The coefficients of a window are the cosine of frequency 0, then cosine and sine of each next one.
    A cosine's partner counts with the imaginary part negative. A row's position says which coefficient
    is its own: read, not worked out from its number, for then it would wait in registers.
    """
    coefficient = field(info, tiles.POSITION, C)[:, None]
    sine = (coefficient > 0) & (coefficient % 2 == 0)
    at = vectors + C.mixing_at + (coefficient + 1) // 2 * C.d + tl.arange(0, C.d)[None, :]
    real, imaginary = tl.load(at), tl.load(at + C.frequencies * C.d)
    return real, tl.where(sine, imaginary, -imaginary)


@triton.jit
def filtered(x, transforms, vectors, info, HALF: tl.constexpr, C: tl.constexpr):
    """``irfft(rfft(x) W)`` along every window."""
    own = product(transform(transforms, COEFFICIENTS, C), x, HALF, C)
    real, imaginary = filter_weight(vectors, info, C)
    # Where a partner counts with one sign, it is counted with the other.
    y = product(tl.trans(transform(transforms, PARTNERS, C)), -imaginary * own, HALF, C)
    return y + product(tl.trans(transform(transforms, COEFFICIENTS, C)), real * own, HALF, C)


@triton.jit
def filtered_backward(g_y, x, transforms, vectors, info, sums, HALF: tl.constexpr, C: tl.constexpr):
    """Gradient of the filter's input.

    ``sums`` (2, rows, d) of the program's own get the gradients of :func:`filter_weight`'s parts.
    """
    basis = transform(transforms, COEFFICIENTS, C)
    partners = transform(transforms, PARTNERS, C)
    g = product(basis, g_y, HALF, C)
    at = sums + tl.arange(0, C.rows)[:, None] * C.d + tl.arange(0, C.d)[None, :]
    tl.store(at, tl.load(at) + g * product(basis, x, HALF, C))
    at += C.rows * C.d
    tl.store(at, tl.load(at) + g * product(partners, x, HALF, C))
    real, imaginary = filter_weight(vectors, info, C)
    g_x = product(tl.trans(basis), g * real, HALF, C)
    return g_x + product(tl.trans(partners), g * imaginary, HALF, C)


@triton.jit
def rescaled(x, transforms, vectors, HALF: tl.constexpr, C: tl.constexpr):
    """(``low + b^2 high``, ``high``) along every window, ``x = low + high``.

    The first is its own transpose, so backward is the same.
    """
    low = product(transform(transforms, LOW_PASS, C), x, HALF, C)
    scale = tl.load(vectors + C.band_scale_at + tl.arange(0, C.d))[None, :]
    high = x - low
    return low + scale * scale * high, high
