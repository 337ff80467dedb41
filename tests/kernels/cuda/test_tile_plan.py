"""The CUDA kernels' tile plan, run by the emulator, against a plain first-fit packing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lares_kernels import CoreConfig
from lares_kernels.binding import cuda_library as lib
from lares_kernels.binding.structs import LARES_CUDA_FIELDS
from lares_kernels.cuda.backend import _Launch
from lares_kernels.operators.refine import make_call
from lares_kernels.spec.call import Given
from lares_kernels.spec.options import CallOptions, CallTensors
from lares_kernels.spec.parameters import parameter_shapes
from tests.kernels.triton.plain_tiles import BLOCK, lengths_of_mean, rows_of_tiles

pytestmark = pytest.mark.usefixtures("emulator", "poisoned_memory")

CORE = CoreConfig(d_model=32, n_heads=2, d_ff=32, n_layers=1)
FIELDS = ("hidden_row", "state_row", "stream", "position", "first", "depth", "newest", "kept_row")


def plan_of(
    lengths: Tensor,
    depths: Tensor | None = None,
    rollouts: int = 1,
    padded: bool = True,
    ids: Tensor | None = None,
    wrong: Tensor | None = None,
) -> tuple[list[int], list[list[list[int]]], int]:
    """Packed row of each tile's first, and what is known of its rows; rows of a tile.

    ``wrong`` are lengths that nobody looks at, in the place of ``lengths``.
    """
    longest = int(lengths.max())
    shape = (len(lengths), longest, 32) if padded else (int(lengths.sum()), 32)
    most = 2 if depths is None else int(depths.max())
    options = CallOptions(
        CORE.key, "cuda", "bf16", rollouts, most, zero_state=True, differentiates=True,
        keeps_padding=True,
    )  # fmt: skip
    call = make_call(torch.zeros(shape), CallTensors(lengths, depths, ids, 0), options)
    parameters = [torch.zeros(shape) for shape in parameter_shapes(CORE).values()]
    launch = _Launch(call, Given(torch.zeros(shape), None, parameters), backward=False)
    if wrong is not None:
        launch.c.lengths = wrong.data_ptr()
    trajectory = torch.empty(call.n_sequences, most, 32)
    kept = torch.empty(call.kept_size)
    launch.c.trajectory, launch.c.kept = trajectory.data_ptr(), kept.data_ptr()
    lib.run("lares_cuda_forward", launch.c)
    space = launch.space
    assert space is not None
    parts = dict(zip(space.sizes, space.numbers.split(list(space.sizes.values())), strict=True))
    tiles, rows = int(parts["tile_count"]), launch.plan.tile_rows
    info = parts["rows"].view(-1, rows, LARES_CUDA_FIELDS)[:tiles, :, : len(FIELDS)]
    assert tiles <= len(parts["tile_start"])
    return parts["tile_start"][:tiles].tolist(), info.tolist(), rows


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("with_depths", [True, False])
@pytest.mark.parametrize(("n", "longest"), [(150, 33), (37, 20), (1, 1), (20, 100)])
def test_plan(padded: bool, with_depths: bool, n: int, longest: int) -> None:
    """Every row of every sequence once, whole sequences, the deepest of a tile first."""
    generator = torch.Generator().manual_seed(n)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator)
    lengths[0] = longest
    rollouts = 3 if n == 37 else 1
    depths = torch.randint(1, 4, (n * rollouts,), generator=generator) if with_depths else None
    ids = torch.randint(1 << 24, (n,), generator=generator) if n == 37 else None
    starts, found, rows = plan_of(lengths, depths, rollouts, padded, ids)

    steps = [2] * (n * rollouts) if depths is None else depths.tolist()
    given = None if ids is None else ids.tolist()
    expected = rows_of_tiles(
        lengths.tolist(), steps, rows, rollouts, longest if padded else 0, given
    )
    assert len(found) == len(expected)
    packed = 0
    for tile, start, wanted in zip(found, starts, expected, strict=True):
        assert start == packed
        assert tile[: len(wanted)] == [[getattr(row, f) for f in FIELDS] for row in wanted]
        empty = [[-1, -1, 0, 0, r, 0, -1, -1] for r in range(len(wanted), rows)]
        assert tile[len(wanted) :] == empty
        packed += len(wanted)


def test_a_batch_of_the_published_mean() -> None:
    """One wave of tiles of 32 rows on 132 multiprocessors that hold two each."""
    starts, _, rows = plan_of(torch.tensor(lengths_of_mean(8.0, 20, 1024)))
    assert rows == 32
    assert 254 <= len(starts) <= 264


def test_bad_values_stay_in_bounds() -> None:
    """They are not looked at on a card, which would be waited for."""
    lengths = torch.tensor([3, 4, 5, 5, 16])
    wrong = torch.tensor([3, -7, 2**40, 5, 90])
    for padded in (True, False):
        starts, tiles, _ = plan_of(lengths, None, 2, padded, wrong=wrong)
        rows = 80 if padded else 33
        assert 0 < len(starts) <= 2 * BLOCK
        for hidden, state, *_, kept in (row for tile in tiles for row in tile):
            assert -1 <= hidden < rows
            assert -1 <= state < 2 * rows
            assert -1 <= kept < 2 * rows
