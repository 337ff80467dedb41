"""Mix along whole windows in the layered plan: to the Fourier basis and back, block by block.

The basis (2, L//2+1, L) float32, cosines and negative sines with orthonormal rows, is that of
``reference/mixing.py``; a spectrum (S, 2, F, width) float32 holds the first ``F`` frequencies of
every window and column. Rows of a window are contiguous; nothing else is assumed about them.
"""

import triton
import triton.language as tl

from lares_kernels.triton.kernels.rounding import operand


@triton.jit
def basis_block(basis, frequency, n_frequencies, row, length):
    """Load cosines and negative sines, (frequencies, rows) each, with zeros where there are
    none."""
    at = basis + frequency[:, None] * length + row[None, :]
    real = (frequency < n_frequencies)[:, None] & (row < length)[None, :]
    sines = (length // 2 + 1) * length
    return tl.load(at, mask=real, other=0.0), tl.load(at + sines, mask=real, other=0.0)


@triton.jit
def own_columns(COLUMNS: tl.constexpr, C: tl.constexpr):
    """Return this program's columns, (1, COLUMNS), and which ones exist."""
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return column, column < C.width


@triton.jit(do_not_specialize=["length", "n_frequencies"])
def spectrum_kernel(
    x,
    basis,
    spectrum,
    length,
    n_frequencies,
    FREQUENCIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    C: tl.constexpr,
):
    """Compute the spectrum of every window of ``x`` (S L, width); the grid is (S, frequencies,
    columns).

    Args:
        x: float32.
        basis: (2, L//2+1, L) float32, as products read it.
        spectrum: (S, 2, n_frequencies, width) float32 out.
        length: ``L``.
    """
    window = tl.program_id(0).to(tl.int64)
    frequency = tl.program_id(1) * FREQUENCIES + tl.arange(0, FREQUENCIES)
    column, has_column = own_columns(COLUMNS, C)
    x += window * length * C.width
    real = tl.zeros((FREQUENCIES, COLUMNS), tl.float32)
    imaginary = tl.zeros((FREQUENCIES, COLUMNS), tl.float32)
    for first_row in range(0, length, ROWS):
        row = first_row + tl.arange(0, ROWS)
        cosine, sine = basis_block(basis, frequency, n_frequencies, row, length)
        mask = (row < length)[:, None] & has_column
        rows = tl.load(x + row[:, None] * C.width + column, mask=mask, other=0.0)
        rows = operand(rows, tl.float32, C.tf32)
        real += tl.dot(cosine, rows, input_precision=C.input_precision)
        imaginary += tl.dot(sine, rows, input_precision=C.input_precision)
    spectrum += window * (2 * n_frequencies * C.width)
    at = spectrum + frequency[:, None] * C.width + column
    mask = (frequency < n_frequencies)[:, None] & has_column
    tl.store(at, real, mask=mask)
    tl.store(at + n_frequencies * C.width, imaginary, mask=mask)


@triton.jit(do_not_specialize=["length", "n_frequencies"])
def window_kernel(
    spectrum,
    basis,
    weight,
    x,
    band_scale,
    out,
    high,
    length,
    n_frequencies,
    SIGN: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    C: tl.constexpr,
):
    """Compute windows (S L, width) from their spectra; the grid is (S, rows, columns).

    With a ``weight`` the spectrum is multiplied by it first: the filter. With a ``band_scale``
    ``b`` the spectrum gives the low band of ``x``, and the result is ``low + b^2 (x - low)``, which
    is its own transpose.

    Args:
        spectrum: (S, 2, n_frequencies, width) float32.
        basis: (2, L//2+1, L) float32, as products read it.
        weight: (L//2+1, width, 2) real and imaginary parts, or None.
        x: (S L, width) float32; band_scale: (width,); or None.
        out: (S L, width) float32 out.
        high: (S L, width) float32 out, ``x - low``, or None.
        length: ``L``.
        SIGN: -1 multiplies by the weight's conjugate.
    """
    window = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column, has_column = own_columns(COLUMNS, C)
    spectrum += window * (2 * n_frequencies * C.width)
    value = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first_frequency in range(0, n_frequencies, FREQUENCIES):
        frequency = first_frequency + tl.arange(0, FREQUENCIES)
        cosine, sine = basis_block(basis, frequency, n_frequencies, row, length)
        mask = (frequency < n_frequencies)[:, None] & has_column
        at = frequency[:, None] * C.width + column
        real = tl.load(spectrum + at, mask=mask, other=0.0)
        imaginary = tl.load(spectrum + n_frequencies * C.width + at, mask=mask, other=0.0)
        if weight is not None:
            w_real = tl.load(weight + 2 * at, mask=mask, other=0.0).to(tl.float32)
            w_imaginary = tl.load(weight + 2 * at + 1, mask=mask, other=0.0).to(tl.float32) * SIGN
            turned = real * w_imaginary + imaginary * w_real
            real = real * w_real - imaginary * w_imaginary
            imaginary = turned
        real = operand(real, tl.float32, C.tf32)
        imaginary = operand(imaginary, tl.float32, C.tf32)
        value += tl.dot(tl.trans(cosine), real, input_precision=C.input_precision)
        value += tl.dot(tl.trans(sine), imaginary, input_precision=C.input_precision)
    mask = (row < length)[:, None] & has_column
    at = window * length * C.width + row[:, None] * C.width + column
    if band_scale is not None:
        b = tl.load(band_scale + column, mask=has_column, other=0.0).to(tl.float32)
        rest = tl.load(x + at, mask=mask, other=0.0) - value
        if high is not None:
            tl.store(high + at, rest, mask=mask)
        value += b * b * rest
    tl.store(out + at, value, mask=mask)


@triton.jit(do_not_specialize=["n_windows", "size"])
def filter_gradient_kernel(
    spectrum, g_spectrum, parts, n_windows, size, BLOCK: tl.constexpr, C: tl.constexpr
):
    """Compute the gradient of the filter's weight from the spectra of its input and of its output's
    gradient.

    The grid is (blocks, parts): a part takes every n-th window, so that sums have a fixed order.

    Args:
        spectrum, g_spectrum: (n_windows, 2, size) float32, ``size`` frequencies and columns.
        parts: (parts, size, 2) float32 out, to be added up.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    sum_real = tl.zeros((BLOCK,), tl.float32)
    sum_imaginary = tl.zeros((BLOCK,), tl.float32)
    for window in range(tl.program_id(1), n_windows, tl.num_programs(1)):
        place = at + window * (2 * size)
        real = tl.load(spectrum + place, mask=mask, other=0.0)
        imaginary = tl.load(spectrum + place + size, mask=mask, other=0.0)
        g_real = tl.load(g_spectrum + place, mask=mask, other=0.0)
        g_imaginary = tl.load(g_spectrum + place + size, mask=mask, other=0.0)
        sum_real += real * g_real + imaginary * g_imaginary
        sum_imaginary += real * g_imaginary - imaginary * g_real
    parts += tl.program_id(1).to(tl.int64) * (2 * size)
    tl.store(parts + 2 * at, sum_real, mask=mask)
    tl.store(parts + 2 * at + 1, sum_imaginary, mask=mask)
