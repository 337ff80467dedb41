"""What a call does before its first step, in one launch: the tile plan's first half, and packing."""

import triton
import triton.language as tl

from lares_kernels.triton.kernels import packing, tiles


@triton.jit(
    do_not_specialize=["n_sequences", "rollouts", "longest", "max_steps", "n_blocks", "n_programs"]
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
    """The first ``n_programs`` programs are those of :func:`tiles.cut`, the others of
    :func:`packing.pack`, whose arguments these are; ``places`` is None where nothing is packed."""
    program = tl.program_id(0)
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
