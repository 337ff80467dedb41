"""The tile plan against a plain first-fit packing."""

import random

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig
from lares_kernels.gpu import tiles
from lares_kernels.operators.refine import make_call
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.triton.fused.tile_plan import make_plan, most_tiles
from lares_kernels.triton.kernels import tiles as kernels
from tests.kernels.triton.plain_tiles import cut, lengths_of_mean, rows_of_tiles


def call_of(lengths: Tensor, depths: Tensor | None, rollouts: int, padded: bool, ids=None):
    longest = int(lengths.max())
    shape = (len(lengths), longest, 8) if padded else (int(lengths.sum()), 8)
    most = 5 if depths is None else int(depths.max())
    key = CoreConfig(d_model=8, n_heads=1).key
    options = CallOptions(key, "triton", "fp32", rollouts, most, differentiates=True)
    return make_call(torch.empty(shape), CallTensors(lengths, depths, ids, 0), options)


FIELDS = {
    "hidden_row": kernels.HIDDEN_ROW,
    "state_row": kernels.STATE_ROW,
    "stream": kernels.STREAM,
    "position": kernels.POSITION,
    "first": kernels.FIRST,
    "depth": kernels.DEPTH,
    "newest": kernels.NEWEST,
    "kept_row": kernels.KEPT_ROW,
}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("with_depths", [True, False])
@pytest.mark.parametrize(("n", "longest", "rows"), [(1, 1, 16), (37, 20, 32), (300, 33, 64)])
def test_plan(padded: bool, with_depths: bool, n: int, longest: int, rows: int) -> None:
    """Every row of every sequence once, whole sequences, the deepest of a tile first."""
    generator = torch.Generator().manual_seed(n)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    rollouts = 3 if n == 37 else 1
    depths = torch.randint(1, 6, (n * rollouts,), generator=generator) if with_depths else None
    ids = torch.randint(1 << 24, (n,), generator=generator) if n == 37 else None
    call = call_of(lengths, depths, rollouts, padded, ids)
    plan = make_plan(call, rows, longest)

    steps = [5] * (n * rollouts) if depths is None else depths.tolist()
    expected = rows_of_tiles(
        lengths.tolist(),
        steps,
        rows,
        rollouts,
        call.padded_length,
        None if ids is None else ids.tolist(),
    )
    assert plan.totals.tolist() == [len(expected), sum(map(len, expected))]
    assert len(expected) <= plan.max_tiles
    packed = 0
    for t, tile in enumerate(expected):
        assert int(plan.tile_start[t]) == packed
        for field, at in FIELDS.items():
            found = plan.rows[t, at.value, : len(tile)].tolist()
            assert found == [getattr(row, field) for row in tile], (t, field)
        assert plan.row_depth[packed : packed + len(tile)].tolist() == [row.depth for row in tile]
        rest = plan.rows[t, :, len(tile) :]
        for which, wanted in ((0, -1), (1, -1), (5, 0), (6, -1), (9, -1)):
            assert (rest[which] == wanted).all()
        assert (rest[4] == torch.arange(len(tile), rows)).all()
        packed += len(tile)


def test_many_sequences_to_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past so many blocks a program takes several, which changes nothing."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 5, (300,), generator=generator)
    depths = torch.randint(1, 3, (300,), generator=generator)
    call = call_of(lengths, depths, 1, False)  # of three blocks
    alone = make_plan(call, 16, 8)
    monkeypatch.setattr(tiles, "MAX_PROGRAMS", 2)
    together = make_plan(call, 16, 8)
    count, rows = alone.totals.tolist()
    assert together.totals.tolist() == [count, rows]
    assert (together.rows[:count] == alone.rows[:count]).all()
    assert (together.tile_start[:count] == alone.tile_start[:count]).all()
    assert (together.row_depth[:rows] == alone.row_depth[:rows]).all()


def test_a_batch_of_the_published_mean_is_one_wave() -> None:
    """Two programs on each of 132 multiprocessors hold 264 tiles; next-fit needs more than 290."""
    lengths = torch.tensor(lengths_of_mean(8.0, 20, 1024))
    plan = make_plan(call_of(lengths, None, 1, True), 32, 20)
    assert 254 <= int(plan.totals[0]) <= 264


def test_bad_lengths_stay_in_bounds() -> None:
    """Values are not checked on a GPU, which would wait for it; no address may leave an array."""
    lengths = torch.tensor([3, -7, 2**40, 5, 90])
    call = call_of(torch.tensor([3, 4, 5, 5, 1]), torch.tensor([1, 2, 9, 4, 3]), 1, False)
    call.lengths = lengths
    plan = make_plan(call, 16, 16)
    count = int(plan.totals[0])
    assert 0 < count <= plan.max_tiles
    rows = plan.rows[:count]
    assert int(rows[:, 0].max()) < call.n_hidden_rows
    assert int(rows[:, 1].max()) < call.n_hidden_rows
    assert int(rows[:, 9].max()) < call.n_hidden_rows
    assert int(plan.totals[1]) <= call.n_hidden_rows


def test_bad_ids_and_depths_stay_in_bounds() -> None:
    """An id's upper bits would address another rollout's gradients; no step would leave no result."""
    lengths = torch.tensor([3, 4, 5])
    ids = torch.tensor([2**24 + 2, -1, 2**40 + 5])
    call = call_of(lengths, torch.tensor([0, 9, -3]), 1, False, ids)
    call.options = call.options._replace(max_steps=5)
    plan = make_plan(call, 16, 5)
    at = {int(sequence): r for r, sequence in enumerate(plan.rows[0, 6]) if sequence >= 0}
    assert [int(plan.rows[0, 2, at[s]]) for s in range(3)] == [2, 2**24 - 1, 5]
    assert [int(plan.rows[0, 5, at[s]]) for s in range(3)] == [1, 5, 1]


@pytest.mark.parametrize("mixer", ["filter", "bsarec"])
def test_bad_lengths_of_windows_leave_each_a_newest_row(mixer: str) -> None:
    config = CoreConfig(d_model=8, n_heads=1, mixer=mixer, window=8)
    options = CallOptions(config.key, "triton", "fp32", max_steps=2, differentiates=True)
    tensors = CallTensors(torch.tensor([3, 4, 8]), None, None, 0)
    call = make_call(torch.empty(3, 8, 8), tensors, options)
    call.lengths = torch.tensor([0, 2**40, -5])
    rows = make_plan(call, 32, 8).rows[0]
    assert sorted(int(s) for s in rows[6] if s >= 0) == [0, 1, 2]


def test_most_tiles_is_a_bound() -> None:
    draw = random.Random(0)
    for _ in range(200):
        longest = draw.randint(1, 32)
        lengths = [draw.randint(1, longest) for _ in range(300)]
        for rows in (32, 64):
            needed = len(cut(lengths, [1] * len(lengths), rows))
            assert needed <= most_tiles(sum(lengths), len(lengths), longest, rows, 3)
    assert most_tiles(32 * 7, 7, 32, 32) == 7
