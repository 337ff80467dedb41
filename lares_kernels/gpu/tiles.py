"""Share what the GPU backends' tile plans have in common."""

from __future__ import annotations

import os
from functools import cache

import torch

from lares_kernels.spec.call import RefineCall

MIN_SPILL = 1 << 30
_SHARE = 16  # of a card's memory


@cache
def spill_bytes(device: torch.device) -> int:
    """Return the bytes for what backward spills for weight gradients; a launch runs as many steps
    as fit.

    It is a sixteenth of the card's memory, at least 1 GiB. The host does not know how many tokens there
    are, so it counts padding; kernels touch only what tokens need.
    """
    if device.type != "cuda":
        return MIN_SPILL
    total = int(torch.cuda.get_device_properties(device).total_memory)
    return max(MIN_SPILL, total // _SHARE)


MAX_PROGRAMS = 512


def divided(n_sequences: int, block: int) -> tuple[int, int, int]:
    """Divide blocks of sequences, each cut into tiles on its own, among programs.

    Returns:
        (blocks, programs, blocks of a program): one each as far as ``MAX_PROGRAMS`` goes.
    """
    blocks = -(-n_sequences // block)
    of_program = -(-blocks // MAX_PROGRAMS)
    return blocks, -(-blocks // of_program), of_program


def most_tiles(
    n_rows: int, n_sequences: int, longest: int, tile_rows: int, n_blocks: int = 1
) -> int:
    """Bound the tiles that sequences of at most ``longest`` tokens, ``n_rows`` in all, can need.

    They are put into tiles in ``n_blocks`` blocks, each on its own and first-fit. A tile of a block
    that another follows holds more than ``tile_rows - longest`` rows, and two neighbours together more
    than ``tile_rows``.
    """
    by_fill = n_rows // (tile_rows - longest + 1) + n_blocks
    by_pairs = 2 * (n_rows // tile_rows) + 2 * n_blocks
    return min(n_sequences, by_fill, by_pairs)


def longest_of(call: RefineCall, device: torch.device, backend: str) -> int:
    """Return an upper bound of the sequences' lengths, which a backend's forward leaves for backward.

    Values are checked first on a CPU, and where ``LARES_CHECK_VALUES`` asks for it.
    """
    if device.type == "cpu" or os.environ.get("LARES_CHECK_VALUES") == "1":
        call.check_values()
    handover = call.handover_of(backend)
    if handover is not None:
        return handover.numbers[0]
    # Lengths of packed sequences are only on the device: this synchronises.
    longest = call.padded_length or call.options.max_length or int(call.lengths.max())
    if call.handover is not None:
        call.handover.by, call.handover.numbers = backend, (longest,)
    return longest
