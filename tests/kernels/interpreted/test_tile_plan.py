"""The tile plan against a plain next-fit packing."""

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig
from lares_kernels.ops import make_call
from lares_kernels.triton.tile_plan import make_plan, most_tiles


def call_of(lengths: Tensor, depths: Tensor | None, rollouts: int, padded: bool, ids=None):
    longest = int(lengths.max())
    shape = (len(lengths), longest, 8) if padded else (int(lengths.sum()), 8)
    most = 5 if depths is None else int(depths.max())
    return make_call(
        torch.empty(shape), lengths, depths, ids, CoreConfig(d_model=8, n_heads=1).key, "fp32",
        rollouts, most, 0, 0, False, False, False, True, False,
    )  # fmt: skip


def plain_tiles(lengths: list[int], rows: int) -> list[list[int]]:
    """Sequences of every tile."""
    tiles: list[list[int]] = [[]]
    for i, length in enumerate(lengths):
        if sum(lengths[j] for j in tiles[-1]) + length > rows:
            tiles.append([])
        tiles[-1].append(i)
    return tiles


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("with_depths", [True, False])
@pytest.mark.parametrize(("n", "longest", "rows"), [(1, 1, 16), (37, 20, 32), (300, 33, 64)])
def test_plan(padded: bool, with_depths: bool, n: int, longest: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(n)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    rollouts = 3 if n == 37 else 1
    depths = torch.randint(1, 6, (n * rollouts,), generator=generator) if with_depths else None
    ids = torch.randint(1 << 24, (n,), generator=generator) if n == 37 else None
    call = call_of(lengths, depths, rollouts, padded, ids)
    plan = make_plan(call, rows, longest)

    steps = torch.full((n * rollouts,), 5) if depths is None else depths
    order = torch.argsort(steps, descending=True, stable=True)
    sizes = lengths.repeat_interleave(rollouts)
    tiles = plain_tiles(sizes[order].tolist(), rows)
    assert int(plan.tile_count) == len(tiles) <= plan.max_tiles
    hidden_starts = lengths.cumsum(0) - lengths
    packed = 0
    for t, members in enumerate(tiles):
        assert int(plan.tile_start[t]) == packed
        r = 0
        for member in members:
            s = int(order[member])
            b, g, length = s // rollouts, s % rollouts, int(sizes[s])
            here = plan.rows[t, :, r : r + length]
            position = torch.arange(length)
            hidden = int(hidden_starts[b]) + position
            state = rollouts * int(hidden_starts[b]) + g * length + position
            if padded:
                width = call.padded_length
                hidden, state = b * width + position, s * width + position
            stream = (b if ids is None else int(ids[b])) | g << 24
            newest = torch.full((length,), -1)
            newest[-1] = s
            expected = [hidden, state, stream, position, r, int(steps[s]), newest]
            for field, wanted in enumerate(expected):
                assert (here[field] == wanted).all(), field
            assert (plan.row_depth[packed : packed + length] == steps[s]).all()
            r, packed = r + length, packed + length
        rest = plan.rows[t, :, r:]
        for field, wanted in ((0, -1), (5, 0), (6, -1)):
            assert (rest[field] == wanted).all()
        assert (rest[4] == torch.arange(r, rows)).all()
    assert int(plan.starts[-1]) == packed


def test_bad_lengths_stay_in_bounds() -> None:
    """Values are not checked on a GPU, which would wait for it; no address may leave an array."""
    lengths = torch.tensor([3, -7, 2**40, 5, 90])
    call = call_of(torch.tensor([3, 4, 5, 5, 1]), torch.tensor([1, 2, 9, 4, 3]), 1, False)
    call.lengths = lengths
    plan = make_plan(call, 16, 16)
    count = int(plan.tile_count)
    assert 0 < count <= plan.max_tiles
    rows = plan.rows[:count]
    assert int(rows[:, 0].max()) < call.n_hidden_rows
    assert int(rows[:, 1].max()) < call.n_hidden_rows


def test_bad_ids_and_depths_stay_in_bounds() -> None:
    """An id's upper bits would address another rollout's gradients; no step would leave no result."""
    lengths = torch.tensor([3, 4, 5])
    ids = torch.tensor([2**24 + 2, -1, 2**40 + 5])
    call = call_of(lengths, torch.tensor([0, 9, -3]), 1, False, ids)
    call.max_steps = 5
    plan = make_plan(call, 16, 5)
    at = {int(sequence): r for r, sequence in enumerate(plan.rows[0, 6]) if sequence >= 0}
    assert [int(plan.rows[0, 2, at[s]]) for s in range(3)] == [2, 2**24 - 1, 5]
    assert [int(plan.rows[0, 5, at[s]]) for s in range(3)] == [1, 5, 1]


@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_bad_lengths_of_windows_leave_each_a_newest_row(mixer: str) -> None:
    config = CoreConfig(d_model=8, n_heads=1, mixer=mixer, window=8)
    call = make_call(
        torch.empty(3, 8, 8), torch.tensor([3, 4, 8]), None, None, config.key, "fp32",
        1, 2, 0, 0, False, False, False, True, False,
    )  # fmt: skip
    call.lengths = torch.tensor([0, 2**40, -5])
    rows = make_plan(call, 32, 8).rows[0]
    assert sorted(int(s) for s in rows[6] if s >= 0) == [0, 1, 2]


def test_most_tiles_is_a_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        longest = int(torch.randint(1, 33, (), generator=generator))
        lengths = torch.randint(1, longest + 1, (50,), generator=generator).tolist()
        for rows in (32, 64):
            tiles = plain_tiles(lengths, rows)
            assert len(tiles) <= most_tiles(sum(lengths), len(lengths), longest, rows)
    assert most_tiles(32 * 7, 7, 32, 32) == 7
