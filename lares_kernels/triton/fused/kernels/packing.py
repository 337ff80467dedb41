"""Gather parameters into the arrays that kernels read, and their gradients back."""

import triton
import triton.language as tl

from lares_kernels.triton.kernels.rounding import operand

PACKED: tl.constexpr = tl.constexpr(512)  # numbers that a program packs
UNPACKED: tl.constexpr = tl.constexpr(128)  # and unpacks
PARTS: tl.constexpr = tl.constexpr(16)  # of a sum, read at a time


@triton.jit
def numbers_of(found, place, parameter, ENDS: tl.constexpr, INDEX: tl.constexpr):
    """Return ``found`` with the ``INDEX``-th parameter's numbers at its places in ``place``."""
    first: tl.constexpr = 1 if INDEX == 0 else ENDS[INDEX - 1]
    own = (place >= first) & (place < ENDS[INDEX])
    number = tl.load(parameter + (place - first), mask=own, other=0.0).to(tl.float32)
    return tl.where(own, number, found)


@triton.jit
def pack(
    program,
    places,
    matrices,
    vectors,
    parameters,
    ENDS: tl.constexpr,
    MATRICES: tl.constexpr,
    VECTORS: tl.constexpr,
    TF32: tl.constexpr,
):
    """Gather ``PACKED`` numbers, first those of all matrices, then those of all vectors.

    Args:
        places: (MATRICES + VECTORS,) int32, places in all parameters, one after the other from 1 on;
            0 is a zero.
        matrices: (MATRICES,) out, in the products' type.
        vectors: (VECTORS,) float32 out.
        parameters: tuple of pointers.
        ENDS: place after the last number of each.
        TF32: products round matrices to tf32.
    """
    at = program * PACKED + tl.arange(0, PACKED)
    is_matrix = at < MATRICES
    inside = at < MATRICES + VECTORS
    place = tl.load(places + at, mask=inside, other=0)
    found = tl.zeros((PACKED,), tl.float32)
    for i in tl.static_range(len(ENDS)):
        found = numbers_of(found, place, parameters[i], ENDS, i)
    tl.store(matrices + at, operand(found, matrices.dtype.element_ty, TF32), mask=is_matrix)
    tl.store(vectors + (at - MATRICES), found, mask=inside & ~is_matrix)


@triton.jit
def sum_of_parts(parts, at, mask, count, stride):
    """Sum the numbers ``at`` of ``count`` arrays of ``stride`` numbers."""
    total = tl.zeros((UNPACKED,), tl.float32)
    for first in range(0, count, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]
        here = (part < count) & mask[None, :]
        total += tl.sum(tl.load(parts + part * stride + at[None, :], mask=here, other=0.0), 0)
    return total


@triton.jit(do_not_specialize=["splits", "programs", "count"])
def unpack_kernel(
    places,
    matrices,
    vectors,
    gradients,
    out,
    splits,
    programs,
    count,
    SPOILT: tl.constexpr,
    GRADIENTS: tl.constexpr,
    MATRICES: tl.constexpr,
    VECTORS: tl.constexpr,
):
    """Add up what backward left of the parameters' gradients, ``UNPACKED`` numbers a program.

    Args:
        places: (count,) int32, where each number of ``out`` lies in matrices, then vectors, or -1.
        matrices, vectors: (splits, MATRICES) and (splits, VECTORS) float32, parts of sums.
        gradients: (programs, GRADIENTS) float32, parts of sums that are added to the vectors', of which
            number ``SPOILT`` is added to every matrix: zero, or NaN.
        out: (count,) float32, gradients of all parameters.
    """
    at = tl.program_id(0) * UNPACKED + tl.arange(0, UNPACKED)
    place = tl.load(places + at, mask=at < count, other=-1)
    is_matrix = (place >= 0) & (place < MATRICES)
    is_vector = place >= MATRICES
    total = sum_of_parts(matrices, place, is_matrix, splits, MATRICES)
    if tl.max(is_matrix.to(tl.int32), 0) > 0:
        total += sum_of_parts(gradients, place * 0 + SPOILT, is_matrix, programs, GRADIENTS)
    if tl.max(is_vector.to(tl.int32), 0) > 0:
        place -= MATRICES
        total += sum_of_parts(vectors, place, is_vector, splits, VECTORS)
        total += sum_of_parts(gradients, place, is_vector, programs, GRADIENTS)
    tl.store(out + at, total, mask=at < count)
