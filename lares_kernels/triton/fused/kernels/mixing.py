"""Mix along whole windows in a tile: products with constant (rows, rows) matrices, as in attention.

A tile holds as many windows of ``C.window`` rows as fit it, from its first row, so its transforms are
block-diagonal and the same for every tile; ``tile_transforms.py`` makes them. Operands and results are
float32: where weights are rounded to half precision, the products here are taken of both halves of each
number, which keeps float32's error but for the last bits.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import tiles
from lares_kernels.triton.kernels.rounding import operand
from lares_kernels.triton.kernels.rows import field

COEFFICIENTS: tl.constexpr = tl.constexpr(0)  # of a window in the real Fourier basis
PARTNERS: tl.constexpr = tl.constexpr(1)  # its sine for each cosine's, and the other way round
LOW_PASS: tl.constexpr = tl.constexpr(0)


@triton.jit
def transform(transforms, number: tl.constexpr, BACK: tl.constexpr, C: tl.constexpr):
    """Load (rows, rows) matrix ``number`` of those at ``transforms``, or its transpose."""
    at = tl.arange(0, C.rows)[:, None] * C.rows + tl.arange(0, C.rows)[None, :]
    found = tl.load(transforms + number * (C.rows * C.rows) + at)
    if BACK:
        return tl.trans(found)
    else:
        return found


@triton.jit
def mixed(transforms, which: tl.constexpr, x, BACK: tl.constexpr, onto, C: tl.constexpr):
    """Return ``onto`` plus the tile's transform ``which``, or its transpose, times ``x``; all
    float32."""
    if C.exact:
        matrix = transform(transforms, which, BACK, C)
        x = operand(x, tl.float32, C.tf32)
        return tl.dot(matrix, x, onto, input_precision=C.input_precision)
    else:
        # Both halves of a transform lie there as such.
        half = transforms.dtype.element_ty
        x_high = x.to(half)
        x_low = (x - x_high.to(tl.float32)).to(half)
        found = tl.dot(transform(transforms, 2 * which, BACK, C), x_low, onto)
        found = tl.dot(transform(transforms, 2 * which + 1, BACK, C), x_high, found)
        return tl.dot(transform(transforms, 2 * which, BACK, C), x_high, found)


@triton.jit
def filter_weight(vectors, info, C: tl.constexpr):
    """Load (real, imaginary) parts (rows, d) of the weight of every coefficient of the tile's
    windows.

    The coefficients of a window are the cosine of frequency 0, then cosine and sine of each next
    one. A cosine's partner has the imaginary part negated. A row's position selects its
    coefficient: loaded, since one computed from its number would be held in registers.
    """
    coefficient = field(info, tiles.POSITION, C)[:, None]
    sine = (coefficient > 0) & (coefficient % 2 == 0)
    at = vectors + C.mixing_at + (coefficient + 1) // 2 * C.d + tl.arange(0, C.d)[None, :]
    real, imaginary = tl.load(at), tl.load(at + C.frequencies * C.d)
    return real, tl.where(sine, imaginary, -imaginary)


@triton.jit
def filtered(x, transforms, vectors, info, C: tl.constexpr):
    """Compute ``irfft(rfft(x) W)`` along every window."""
    own = mixed(transforms, COEFFICIENTS, x, False, None, C)
    tl.debug_barrier()  # no weight is loaded before this, to be held in registers
    real, imaginary = filter_weight(vectors, info, C)
    # Where a partner counts with one sign, it is counted with the other.
    y = mixed(transforms, PARTNERS, -imaginary * own, True, None, C)
    return mixed(transforms, COEFFICIENTS, real * own, True, y, C)


@triton.jit
def filtered_backward(g_y, x, transforms, vectors, info, sums, C: tl.constexpr):
    """Return the gradient of the filter's input.

    ``sums`` (2, rows, d) of the program's own get the gradients of :func:`filter_weight`'s parts.
    """
    g = mixed(transforms, COEFFICIENTS, g_y, False, None, C)
    at = sums + tl.arange(0, C.rows)[:, None] * C.d + tl.arange(0, C.d)[None, :]
    tl.store(at, tl.load(at) + g * mixed(transforms, COEFFICIENTS, x, False, None, C))
    at += C.rows * C.d
    tl.store(at, tl.load(at) + g * mixed(transforms, PARTNERS, x, False, None, C))
    real, imaginary = filter_weight(vectors, info, C)
    g_x = mixed(transforms, COEFFICIENTS, g * real, True, None, C)
    return mixed(transforms, PARTNERS, g * imaginary, True, g_x, C)


@triton.jit
def rescaled(x, transforms, vectors, C: tl.constexpr):
    """Compute (``low + b^2 high``, ``high``) along every window, ``x = low + high``.

    The first is its own transpose, so backward is the same.
    """
    low = mixed(transforms, LOW_PASS, x, False, None, C)
    scale = tl.load(vectors + C.band_scale_at + tl.arange(0, C.d))[None, :]
    high = x - low
    return low + scale * scale * high, high
