"""How calls are laid out on a card, and parameters for the kernels: no library is needed."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch

from lares_kernels import CoreConfig
from lares_kernels.binding.cuda_library import Card
from lares_kernels.cuda.packing import fragments, places_of
from lares_kernels.cuda.plan import (
    SERVES,
    LaunchPlan,
    launch_plan,
    shapes_of,
    split_plan,
)
from lares_kernels.cuda.settings import Settings
from lares_kernels.spec.call import Request
from lares_kernels.spec.parameters import parameter_shapes

H200 = Card(132, 232448, (9, 0))
A100 = Card(108, 166912, (8, 0))
SMALL_CARD = Card(80, 101376, (8, 9))
PUBLISHED = CoreConfig()


def plan(config: CoreConfig, longest: int, card: Card, dropout: bool = False) -> LaunchPlan:
    found = launch_plan(shapes_of(config), longest, dropout, card)
    assert isinstance(found, LaunchPlan), found
    return found


def test_two_layers_stay_in_shared_memory_with_twelve_warps() -> None:
    found = plan(PUBLISHED, 20, H200)
    assert found == LaunchPlan(unit_warps=2, units=6, resident=True, shared_bytes=228_624)
    assert plan(PUBLISHED, 20, H200, dropout=True).units == 4
    assert plan(PUBLISHED, 50, H200) == LaunchPlan(4, 3, True, 228_624)


def test_smaller_cards_keep_less() -> None:
    assert not plan(PUBLISHED, 20, A100).resident
    assert plan(replace(PUBLISHED, n_layers=1), 20, A100).resident
    assert not plan(replace(PUBLISHED, n_layers=1), 20, SMALL_CARD).resident


@pytest.mark.parametrize("card", [H200, A100, SMALL_CARD])
@pytest.mark.parametrize("longest", [1, 16, 17, 64, 128])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_plan_fits(width: int, longest: int, card: Card) -> None:
    for heads in (width // 64 or 1, width // 32, width // 8):
        found = plan(CoreConfig(width, heads, 4 * width), longest, card)
        assert found.shared_bytes <= card.shared_limit
        assert found.tile_rows >= longest
        assert found.units * found.unit_warps <= 12


@pytest.mark.parametrize("card", [H200, A100, SMALL_CARD])
@pytest.mark.parametrize("heads", [2, 4, 8])
def test_wide_rows_wait_in_shared_memory(heads: int, card: Card) -> None:
    """8 KB a warp, where a branch is dropped from or backward runs."""
    shapes = shapes_of(CoreConfig(128, heads, 512))
    for backward, longest in ((False, 64), (True, 64), (True, 20)):
        found = launch_plan(shapes, longest, not backward, card, backward)
        assert isinstance(found, LaunchPlan), found
        warps = found.units * found.unit_warps
        room = 4 * shapes.vector_size + warps * (shapes.exchange_bytes + 8192)
        assert found.shared_bytes == room <= card.shared_limit
    assert launch_plan(shapes, 20, True, H200) == launch_plan(shapes, 20, False, H200, True)
    alone = launch_plan(shapes, 20, False, card)
    assert isinstance(alone, LaunchPlan)
    warps = alone.units * alone.unit_warps
    assert alone.shared_bytes == 4 * shapes.vector_size + warps * shapes.exchange_bytes


def test_a_tile_of_wide_rows_that_a_card_cannot_hold() -> None:
    shapes = shapes_of(CoreConfig(128, 2, 512))
    assert isinstance(launch_plan(shapes, 128, True, H200), LaunchPlan)
    found = launch_plan(shapes, 128, True, SMALL_CARD)
    assert isinstance(found, str)
    assert "a tile of 128 rows do not fit the 101376 bytes" in found


def test_too_many_layers_for_a_card() -> None:
    found = launch_plan(shapes_of(CoreConfig(d_model=32, n_layers=200)), 20, False, SMALL_CARD)
    assert isinstance(found, str)
    assert "200 layers" in found


STAGED = Settings(forward_staged=True, backward_staged=True)


def staged(
    config: CoreConfig, card: Card, longest: int = 20, dropout: bool = True, backward: bool = False
) -> LaunchPlan:
    found = launch_plan(shapes_of(config), longest, dropout, card, backward, STAGED)
    assert isinstance(found, LaunchPlan), found
    assert found.shared_bytes <= card.shared_limit
    return found


@pytest.mark.parametrize(
    ("width", "heads", "kilobytes"),
    [(64, 1, 64), (64, 2, 32), (64, 4, 16), (128, 2, 64), (128, 4, 32)],
)
def test_two_pieces_of_staged_weights(width: int, heads: int, kilobytes: int) -> None:
    """A piece is a head's weights, of wide rows half of them; all warps keep their room."""
    config = CoreConfig(width, heads, 4 * width, 3)
    found, alone = staged(config, H200), plan(config, 20, H200, dropout=True)
    assert found.staged
    assert not found.resident
    assert not alone.resident
    assert not alone.staged
    assert found.units == alone.units == 4
    assert found.shared_bytes == alone.shared_bytes + 1024 * kilobytes


def test_backward_takes_whole_heads() -> None:
    for config, kilobytes, units in (
        (CoreConfig(64, 2, 256, 3), 32, 4),
        (CoreConfig(128, 4, 512), 64, 4),
        (CoreConfig(128, 2, 512), 128, 3),
    ):
        found = staged(config, H200, backward=True)
        assert found.staged
        assert found.units == units
        shapes = shapes_of(config)
        room = found.units * 2 * (shapes.exchange_bytes + shapes.waiting_bytes(True))
        assert found.shared_bytes == 4 * shapes.vector_size + room + 1024 * kilobytes
    # Of heads of 64 they do not fit a smaller card; there each warp reads for itself.
    assert staged(CoreConfig(128, 4, 512), A100, backward=True).units == 4
    wide = CoreConfig(128, 2, 512)
    for card in (A100, SMALL_CARD):
        assert not staged(wide, card, backward=True).staged
    for backward in (False, True):  # each pass has a setting of its own
        one = Settings(forward_staged=not backward, backward_staged=backward)
        for other in (False, True):
            there = launch_plan(shapes_of(wide), 20, True, H200, other, one)
            assert isinstance(there, LaunchPlan)
            assert there.staged == (other == backward)


def test_weights_are_staged_where_that_can_be() -> None:
    wide = CoreConfig(128, 2, 512)
    # Resident as before, unless they do not fit, or are not to be.
    assert not staged(PUBLISHED, H200).staged
    assert not staged(replace(PUBLISHED, d_model=32), SMALL_CARD).staged
    assert staged(PUBLISHED, A100).staged
    assert staged(replace(PUBLISHED, n_layers=1), SMALL_CARD).staged
    streams = replace(STAGED, forward_weights="streamed")
    assert launch_plan(shapes_of(PUBLISHED), 20, True, H200, settings=streams) == LaunchPlan(
        unit_warps=2, units=4, resident=False, shared_bytes=56_592, staged=True
    )
    # Fewer warps beside the pieces, and none: then each reads for itself.
    assert staged(wide, A100).units == 3
    assert plan(wide, 20, A100, dropout=True).units == 4
    assert not staged(wide, SMALL_CARD).staged
    assert staged(wide, SMALL_CARD, longest=16).units == 1
    assert staged(wide, SMALL_CARD, longest=16).staged
    low_latency = split_plan(shapes_of(wide), 20, 4, H200)  # knows no such thing
    assert low_latency is not None
    assert not low_latency.staged


@pytest.mark.parametrize("card", [H200, A100, SMALL_CARD])
@pytest.mark.parametrize("longest", [1, 17, 64, 128])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_staged_plan_fits(width: int, longest: int, card: Card) -> None:
    for heads in (width // 64 or 1, width // 32, width // 8):
        config = CoreConfig(width, heads, 4 * width)
        found = staged(config, card, longest, dropout=False)
        assert found.staged == (width > 32 and not found.resident) or card is SMALL_CARD
        assert found.units * found.unit_warps <= 12


def test_widths_that_are_not_compiled() -> None:
    def reason(config: CoreConfig) -> str | None:
        return SERVES.reason(Request(config, "cuda", torch.bfloat16))

    assert "d_model is 48; it serves 32, 64, 128" in str(reason(CoreConfig(d_model=48, n_heads=2)))
    assert "128 wide" in str(reason(CoreConfig(d_model=128, n_heads=1)))
    assert reason(PUBLISHED) is None


def test_a_fragment_is_in_the_order_of_the_lanes() -> None:
    matrix = torch.arange(256).reshape(16, 16)
    packed = fragments(matrix).reshape(32, 4, 2)
    for lane in range(32):
        g, t = divmod(lane, 4)
        rows, columns = (g, g, g + 8, g + 8), (2 * t, 2 * t + 8, 2 * t, 2 * t + 8)
        for pair, (row, column) in enumerate(zip(rows, columns, strict=True)):
            assert packed[lane, pair].tolist() == matrix[row, column : column + 2].tolist()


@pytest.mark.parametrize("adapter", ["add", "gate", "concat", "none"])
def test_every_parameter_is_packed_once(adapter: str) -> None:
    config = CoreConfig(d_model=32, n_heads=4, d_ff=40, n_layers=2, adapter=adapter)
    numbers = sum(prod(shape) for shape in parameter_shapes(config).values())
    index = places_of(config, torch.device("cpu"))
    assert sorted(index.places[index.places > 0].tolist()) == list(range(1, numbers + 1))
    shapes = shapes_of(config)
    assert len(index.places) == prod(index.matrices) + shapes.vector_size
    assert prod(index.matrices) * 2 >= shapes.weight_bytes


def test_few_sequences_get_a_block_each() -> None:
    """The published core: what crosses shared memory fits beside two layers' weights on an H200."""
    shapes = shapes_of(PUBLISHED)
    found = split_plan(shapes, 20, 4, H200)
    assert found == LaunchPlan(2, 1, True, 229_648, split_parts=1)
    assert found.tile_rows == 32
    assert split_plan(shapes, 16, 4, H200) == LaunchPlan(1, 1, True, 230_672, split_parts=4)
    once = split_plan(shapes, 20, 1, H200)
    assert once is not None
    assert not once.resident  # what is read once need not be copied
    small = split_plan(shapes, 20, 4, SMALL_CARD)
    assert small is not None
    assert not small.resident
    assert split_plan(shapes, 65, 4, H200) is None


@pytest.mark.parametrize("card", [H200, A100, SMALL_CARD])
@pytest.mark.parametrize("longest", [1, 17, 64])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_every_split_plan_fits(width: int, longest: int, card: Card) -> None:
    for heads in (width // 64 or 1, width // 16 if width > 64 else width // 8):
        shapes = shapes_of(CoreConfig(width, heads, 4 * width))
        found = split_plan(shapes, longest, 4, card)
        if found is None:
            assert longest == 64  # four tiles' exchange and sums
            assert card is not H200
            continue
        assert found.shared_bytes <= card.shared_limit
        assert shapes.ff // 16 % (2 * found.split_parts) == 0
