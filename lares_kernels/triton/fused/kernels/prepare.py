"""Prepare a call in one launch: the first half of the tile plan, and packing."""

import triton
import triton.language as tl

from lares_kernels.triton.fused.kernels import packing
from lares_kernels.triton.kernels import tiles


@triton.jit
def write_seed(seed, seed_given, seed_low, seed_high, seed_is_given):
    """Put the key of all draws where kernels find it, so that no launch is for it alone."""
    number = (seed_high.to(tl.int64) << 32) | (seed_low.to(tl.int64) & 0xFFFFFFFF)
    tl.store(seed, tl.where(seed_is_given != 0, tl.load(seed_given), number))


@triton.jit(
    do_not_specialize=[
        *("n_sequences", "rollouts", "longest", "max_steps", "n_blocks", "n_programs"),
        *("seed_given", "seed_low", "seed_high", "seed_is_given"),
    ]
)
def prepare_kernel(
    lengths,
    order,
    num_steps,
    sequences,
    sums,
    n_sequences,
    rollouts,
    longest,
    max_steps,
    n_blocks,
    n_programs,
    seed,
    seed_given,
    seed_low,
    seed_high,
    seed_is_given,
    places,
    matrices,
    vectors,
    parameters,
    AS_GIVEN: tl.constexpr,
    ROWS: tl.constexpr,
    ENDS: tl.constexpr,
    MATRICES: tl.constexpr,
    VECTORS: tl.constexpr,
    TF32: tl.constexpr,
):
    """Run :func:`tiles.cut` in the first ``n_programs`` programs and :func:`packing.pack` in the
    others; these are their arguments. ``places`` is None where nothing is packed. The first
    program writes ``seed`` () int64, from memory where ``seed_is_given``, else of its two
    halves."""
    program = tl.program_id(0)
    if program == 0:
        write_seed(seed, seed_given, seed_low, seed_high, seed_is_given)
    if program < n_programs:
        tiles.cut(
            program, lengths, order, num_steps, sequences, sums, n_sequences, rollouts, longest,
            max_steps, n_blocks, AS_GIVEN, ROWS,
        )  # fmt: skip
    elif places is not None:
        packing.pack(
            program - n_programs,
            places,
            matrices,
            vectors,
            parameters,
            ENDS,
            MATRICES,
            VECTORS,
            TF32,
        )
