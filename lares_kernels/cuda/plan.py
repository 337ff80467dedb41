"""Plan how a call runs on a card, from its shapes and the card alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lares_kernels.binding.cuda_library import Card
from lares_kernels.cuda.device import PRECISIONS
from lares_kernels.cuda.settings import SHIPPED, WEIGHTS, Settings
from lares_kernels.own_kernels import served_by
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.serves import ServesCores

WIDTHS = (32, 64, 128)
SERVES = ServesCores(
    widths=dict.fromkeys(PRECISIONS, WIDTHS),
    inner_dropout=False,
    widest_head=64,
    longest=128,
    longest_dropping=64,  # a row's bits are one word
    **served_by("cuda"),
)
_FRAGMENT_BYTES = 512  # 16 x 16 numbers of 16 bits
_COLUMNS = 32  # what the feed-forward's width is padded to a multiple of
_TILE_ROWS = 16  # of a warp
_RESERVED = 1024  # bytes of shared memory that a block has for CUDA itself, beside the limit
SPLIT_LONGEST = 64  # tokens of a sequence that one block takes: four rows a warp
SPLIT_WARPS = 16  # of its block
_MAX_HELD_WIDTH = 64  # wider rows are spilled to shared memory while a dropped branch is summed
_MAX_RESIDENT_HEAD_TILES = 2  # of backward: wider ones are compiled for weights in memory alone


@dataclass(frozen=True)
class Shapes:
    """Describe a core's sizes as the kernels see them; csrc/cuda/core.hpp calls them ``Places``.

    Attributes:
        width: ``d``.
        heads: attention heads.
        head_tiles: width of a head in 16s, rounded up to what is compiled: 1, 2 and 4, of wide rows
            2 and 4.
        ff: width of the feed-forward, rounded up.
        layers: of the core.
        concat: the adapter has a matrix.
    """

    width: int
    heads: int
    head_tiles: int
    ff: int
    layers: int
    concat: bool

    @property
    def layer_fragments(self) -> int:
        """Count the fragments of a layer's matrices."""
        chunks = self.width // 16
        return 4 * self.heads * self.head_tiles * chunks + self.ff // 16 * 2 * chunks

    @property
    def layer_vector(self) -> int:
        """Return the size of a layer's vectors, in numbers."""
        return 48 * self.heads * self.head_tiles + 6 * self.width + self.ff

    @property
    def vector_size(self) -> int:
        """Return the size of all vectors in numbers: the layers', LayerNorm_core's, concat's
        bias, the gate."""
        return self.layers * self.layer_vector + 3 * self.width + 4

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of all layers' matrices."""
        return self.layers * self.layer_fragments * _FRAGMENT_BYTES

    @property
    def matrix_fragments(self) -> int:
        """Count the fragments of all matrices."""
        concat = 2 * (self.width // 16) ** 2 if self.concat else 0
        return self.layers * self.layer_fragments + concat

    @property
    def spill_bytes(self) -> int:
        """Return bytes that backward spills for 16 tokens of a layer and step (csrc/cuda/spill.hpp)."""
        units = 4 * self.heads * self.head_tiles + self.ff // 8
        return (units + self.width // 4) * _FRAGMENT_BYTES

    @property
    def concat_spill_bytes(self) -> int:
        """Return the bytes that backward spills for a step of the concat adapter's matrix."""
        return 3 * self.width // 16 * _FRAGMENT_BYTES if self.concat else 0

    @property
    def units(self) -> int:
        """Count the pieces that matrix gradients are made of (csrc/cuda/weight_gradients.hpp)."""
        of_layer = 4 * self.heads * self.head_tiles + self.ff // 8
        return self.layers * of_layer + (self.width // 8 if self.concat else 0)

    def scratch_bytes(self, unit_warps: int) -> int:
        """Return bytes of a warp's scratch in backward (``Scratch`` of csrc/cuda/spill.hpp)."""
        rows = (3 * self.layers + 2) * self.width // 8
        return (rows + 4 * self.head_tiles * (unit_warps - 1)) * _FRAGMENT_BYTES

    def staged_bytes(self, backward: bool) -> int:
        """Return bytes of shared memory of two pieces of staged weights (csrc/cuda/stage.hpp): a
        head's, of which forward takes those of wide rows by halves."""
        pieces_of_head = 2 if self.width > _MAX_HELD_WIDTH and not backward else 1
        head = 4 * self.head_tiles * (self.width // 16) * _FRAGMENT_BYTES
        return 2 * head // pieces_of_head

    @property
    def exchange_bytes(self) -> int:
        """Return bytes of shared memory through which a warp passes a head's keys and values."""
        return 2 * self.head_tiles * _FRAGMENT_BYTES

    def waiting_bytes(self, dropout: bool) -> int:
        """Return the bytes of shared memory that hold a warp's spilled rows
        (``kSpillsResidual``); backward takes those of dropout."""
        waits = dropout and self.width > _MAX_HELD_WIDTH
        return self.width // 8 * _FRAGMENT_BYTES if waits else 0


def shapes_of(config: CoreConfig) -> Shapes:
    """Return the sizes of ``config``, which must have passed ``SERVES``."""
    head_tiles = max(-(-config.head_dim // 16), 1 if config.d_model <= _MAX_HELD_WIDTH else 2)
    return Shapes(
        width=config.d_model,
        heads=config.n_heads,
        head_tiles=4 if head_tiles == 3 else head_tiles,
        ff=-(-config.d_ff // _COLUMNS) * _COLUMNS,
        layers=config.n_layers,
        concat=config.adapter == "concat",
    )


@dataclass(frozen=True)
class LaunchPlan:
    """Describe how a card runs a call.

    Attributes:
        unit_warps: warps that share a tile, 16 rows each.
        units: units of a block; each takes its own tiles.
        resident: all layers' weights stay in shared memory; else they are read by every layer.
        shared_bytes: of a block.
        split_parts: 0, or: a block for each sequence, whose warps share a layer's columns, and the
            feed-forward's second product in that many parts.
        staged: weights that are not resident pass through shared memory in pieces, once for the block.
    """

    unit_warps: int
    units: int
    resident: bool
    shared_bytes: int
    split_parts: int = 0
    staged: bool = False

    @property
    def tile_rows(self) -> int:
        return _TILE_ROWS * self.unit_warps


def most_warps(shapes: Shapes, dropout: bool) -> int:
    """Return the most warps of a block that the registers allow (``Shape::kMaxWarps``)."""
    return 8 if dropout or shapes.width > 64 or shapes.head_tiles > 2 else 12


def _places_of_weights(
    shapes: Shapes, backward: bool, settings: Settings
) -> Iterator[tuple[bool, bool]]:
    """Yield whether weights are resident and whether they are staged, for every kernel that is
    compiled, the preferred one first."""
    preferred = settings.backward_weights if backward else settings.forward_weights
    stages = settings.backward_staged if backward else settings.forward_staged
    for resident in (preferred == WEIGHTS[0], preferred != WEIGHTS[0]):
        if (shapes.width == 128 and resident) or (shapes.width == 32 and not resident):
            continue  # not compiled: the first never fits, the second is never needed
        if backward and resident and shapes.head_tiles > _MAX_RESIDENT_HEAD_TILES:
            continue
        if stages and not resident:
            yield False, True
        yield resident, False


def launch_plan(
    shapes: Shapes,
    longest: int,
    dropout: bool,
    card: Card,
    backward: bool = False,
    settings: Settings = SHIPPED,
) -> LaunchPlan | str:
    """Return the plan for sequences of up to ``longest`` tokens, or the reason why there is none.

    A block has as many units as fit, even for a small batch: those without a tile help to load weights.
    Weights are where ``settings`` prefers them, and come there as it prefers, if that can be.
    """
    unit_warps = 1
    while _TILE_ROWS * unit_warps < longest:
        unit_warps *= 2
    unit = unit_warps * (shapes.exchange_bytes + shapes.waiting_bytes(dropout or backward))
    most = most_warps(shapes, dropout or backward) // unit_warps
    for resident, staged in _places_of_weights(shapes, backward, settings):
        fixed = 4 * shapes.vector_size
        if resident:
            fixed += shapes.weight_bytes
        if staged:
            fixed += shapes.staged_bytes(backward)
        units = min(most, (card.shared_limit - fixed) // unit)
        if units > 0:
            return LaunchPlan(unit_warps, units, resident, fixed + units * unit, staged=staged)
    return (
        f"{shapes.layers} layers of width {shapes.width} and a tile of {_TILE_ROWS * unit_warps} rows "
        f"do not fit the {card.shared_limit} bytes of shared memory of this card"
    )


def carveout(shared_bytes: int, card: Card) -> int:
    """Return the percentage of a card's shared memory that one block's bytes take, rounded up."""
    return -(-100 * (shared_bytes + _RESERVED) // (card.shared_limit + _RESERVED))


def split_plan(shapes: Shapes, longest: int, steps: int, card: Card) -> LaunchPlan | None:
    """Return the low-latency plan (csrc/cuda/split.hpp) for inference without dropout, or None.

    It serves calls of at most as many sequences as multiprocessors, of any shape.
    """
    tiles = -(-longest // _TILE_ROWS)
    if longest > SPLIT_LONGEST:
        return None
    mixed, chunks, inner = shapes.heads * shapes.head_tiles, shapes.width // 16, shapes.ff // 16
    exchange = _FRAGMENT_BYTES * tiles * max(3 * mixed + max(mixed, chunks), inner)
    sums = 4 * _TILE_ROWS * tiles * (shapes.width + 8)
    # A warp a product, and an even number of 16 inputs for each part.
    parts = [n for n in (4, 2, 1) if inner % (2 * n) == 0 and chunks * tiles * n <= SPLIT_WARPS]
    for resident in (True, False):
        if (shapes.width == 128 and resident) or (shapes.width == 32 and not resident):
            continue  # as in launch_plan()
        if resident and steps == 1 and shapes.width > 32:
            continue  # what is read once need not be copied first
        fixed = 4 * shapes.vector_size + (shapes.weight_bytes if resident else 0) + exchange
        for n in parts or [1]:
            if fixed + n * sums <= card.shared_limit:
                return LaunchPlan(tiles, 1, resident, fixed + n * sums, n)
    return None
