"""Round the operands of products: to the products' type, or to tf32's eleven bits.

Tensor cores drop the last 13 bits of float32: twice to four times the error of rounding. Numbers that
are rounded before lose nothing there.
"""

import triton
import triton.language as tl


@triton.jit
def to_tf32(x):
    """Round float32 to the nearest tf32, ties away from zero; what is not finite stays."""
    # Of the magnitude, whose bits order like it. NaN may be all ones, and would pass over to zero.
    bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), float("nan"))


@triton.jit
def operand(x, DTYPE: tl.constexpr, TF32: tl.constexpr):
    """Return ``x`` as products in ``DTYPE`` read it."""
    if TF32:
        if x.dtype == tl.float32:
            return to_tf32(x)
        else:
            return x.to(tl.float32)  # of 16 bits, which tf32 holds
    else:
        return x.to(DTYPE)


@triton.jit
def to_store(x, TF32: tl.constexpr):
    """Return ``x`` float32 as products will read it once it is stored in their type.

    Without tf32 the store itself rounds: an earlier conversion would take more registers.
    """
    if TF32:
        return to_tf32(x)
    else:
        return x


@triton.jit(do_not_specialize=["size"])
def round_kernel(numbers, size, BLOCK: tl.constexpr):
    """Round ``numbers`` (size,) float32 to tf32 where they are."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(
        numbers + at, to_tf32(tl.load(numbers + at, mask=at < size, other=0.0)), mask=at < size
    )
