"""Several arrays in one."""

from __future__ import annotations

import torch

from lares_kernels.gpu.arrays import parts_of, zeros_at_once


def test_zeros_at_once() -> None:
    shapes = ((3, 5), (), (0,), (2, 33), (1, 32))
    made = zeros_at_once(torch.device("cpu"), *shapes)
    assert [tuple(part.shape) for part in made] == [*shapes]
    assert len({part.untyped_storage().data_ptr() for part in made}) == 1
    for i, part in enumerate(made):
        assert part.is_contiguous()
        assert part.dtype == torch.float32
        assert part.storage_offset() * part.element_size() % 128 == 0
        assert not part.any()
        part.fill_(i + 1)
    for i, part in enumerate(made):  # nothing lies over anything else
        assert bool((part == i + 1).all())


def test_parts_are_those_of_the_whole() -> None:
    whole = torch.arange(64, dtype=torch.int32)
    first, second = parts_of(whole, ((2, 2), (3,)))
    assert first.tolist() == [[0, 1], [2, 3]]
    assert second.tolist() == [32, 33, 34]
