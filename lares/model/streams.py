"""Which random draws samples have that are numbered one after the other, however many there are.

A draw's address has 24 bits for the number of its sequence (docs/reference/random.md). Samples beyond
2^24 are numbered anew under another seed: those from ``k 2^24`` on are chunk ``k``, and chunk 0 has the
seed itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lares_kernels.spec.noise import MAX_SEQUENCES, STREAM_BITS

_CHUNKS = 0x6368756E6B << 24  # keeps these draws apart from every other use of the seed


def chunk_of(number: int) -> int:
    """Return the chunk of a sample."""
    return number >> STREAM_BITS


def chunk_seed(seed: int, chunk: int) -> int:
    """Return the 64-bit seed under which the samples of a chunk draw."""
    if chunk == 0:
        return seed
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, _CHUNKS + chunk], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw()) >> 1  # 63 bits, as every seed has room for


def batches(n: int, batch_size: int, first_number: int = 0) -> Iterator[tuple[int, int]]:
    """Give first and end of each batch of ``n`` samples; none holds samples of two chunks.

    Args:
        n: samples.
        batch_size: most of a batch.
        first_number: of the first sample.
    """
    first = 0
    while first < n:
        left_in_chunk = MAX_SEQUENCES - (first_number + first) % MAX_SEQUENCES
        end = min(n, first + min(batch_size - first % batch_size, left_in_chunk))
        yield first, end
        first = end
