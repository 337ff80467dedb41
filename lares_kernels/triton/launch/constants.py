"""Define what a kernel knows when it is compiled: the core's padded shape, and its options.

Triton's blocks are powers of two, and its products take at least 16 along each side, so widths are
padded: columns past the real ones hold zeros in weights and activations alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lares_kernels.spec.choices import Adapter, Choice, DropoutOf, Mixer, Norm, Padding
from lares_kernels.spec.config import CoreConfig
from lares_kernels.spec.noise import threshold_and_planes

MIN_SIDE = 16
# Options of launches with products. Multiply and add are fused to one instruction, which is not the
# default of Triton 3.10. Integer overflow checks are off: without ``debug`` their result is unused, and
# they only cost compile time.
LAUNCH_OPTIONS = {"enable_fp_fusion": True, "sanitize_overflow": False}
_CHUNK = 64  # the feed-forward's width is padded to a multiple of it


def padded(width: int) -> int:
    """Return the least block side that holds ``width``."""
    return max(MIN_SIDE, 1 << (width - 1).bit_length())


def _has(option: str, *choices: Choice) -> Any:
    """Return a property of :class:`Constants`: True if the option is one of ``choices``."""
    return property(lambda self: getattr(self, option) in choices)


@dataclass(frozen=True)
class Constants:
    """Hold the compile-time constants of all kernels, which read its fields as ``C.d`` and so on.

    Matrices lie in one array of rows of ``d``, a layer after the other, each layer as: for every head
    query, key and value (``head`` rows of W each); for every head its rows of ``W_o^T``; the rows of
    ``W_1``; the rows of ``W_2^T``. After the layers, for ``concat``, the state's and ``H``'s halves of
    W. Vectors lie the same way in another array (``*_at`` are their places within a layer).

    Attributes:
        rows: of a tile.
        d, width: padded and real width of a token.
        heads, head, head_width: attention heads, padded and real width of one.
        ff: padded width of the feed-forward, a multiple of ``chunk``.
        chunk: columns of the feed-forward in registers at a time.
        layers: of the core.
        adapter, activation, norm: numbers of ``Adapter``, ``Activation`` and ``Norm``.
        eps: of every LayerNorm.
        threshold, planes: the dropout rate as ``threshold / 2^planes``; planes = 0 is none.
        attn_threshold, attn_planes: the same for attention probabilities.
        precision: of float32 products, ``ieee`` or ``tf32``; ``half`` if they are not float32.
        resident: forward reads all matrices once and keeps them on the chip.
        inner_threshold, inner_planes: the same inside the feed-forward.
        spares_attention: dropout leaves the attention's output out.
        zeros: padding counts among the rows, as zero tokens.
        mixer: number of ``Mixer``; ``filter`` has no heads.
        window: rows of every sequence where they mix as a whole, else 0.
        share: weight of the bands' branch, ``bsarec``.
    """

    rows: int
    d: int
    width: int
    heads: int
    head: int
    head_width: int
    ff: int
    chunk: int
    layers: int
    adapter: int
    activation: int
    norm: int
    eps: float
    threshold: int
    planes: int
    attn_threshold: int
    attn_planes: int
    precision: str
    resident: bool = False
    inner_threshold: int = 0
    inner_planes: int = 0
    spares_attention: bool = False
    zeros: bool = False
    mixer: int = 0
    window: int = 0
    share: float = 1.0

    def __hash__(self) -> int:
        return self._hash

    def __post_init__(self) -> None:
        # A launch looks its kernel up by these, so the hash is made once.
        values = tuple(getattr(self, name) for name in self.__dataclass_fields__)
        object.__setattr__(self, "_hash", hash(values))

    _hash = 0

    @property
    def recurrent(self) -> bool:
        return self.adapter != Adapter.NONE

    adds = _has("adapter", Adapter.ADD)
    gated = _has("adapter", Adapter.GATE)
    concat = _has("adapter", Adapter.CONCAT)
    post = _has("norm", Norm.POST)
    pre = _has("norm", Norm.PRE)
    query = _has("norm", Norm.QUERY)
    attends = _has("mixer", Mixer.ATTENTION, Mixer.BSAREC)  # alone or beside frequency bands
    filters = _has("mixer", Mixer.FILTER)  # a learned filter replaces attention
    bands = _has("mixer", Mixer.BSAREC)  # frequency bands stand beside attention

    @property
    def frequencies(self) -> int:
        """Return the number of frequencies of a window."""
        return self.window // 2 + 1

    @property
    def exact(self) -> bool:
        """Return True if functions are approximated to float32's own precision."""
        return self.precision != "half"

    @property
    def input_precision(self) -> str:
        """Return the input precision of ``tl.dot``."""
        return "tf32" if self.precision == "tf32" else "ieee"

    @property
    def tf32(self) -> bool:
        """Return True if products' operands are rounded to tf32."""
        return self.precision == "tf32"

    @property
    def keep_scale(self) -> float:
        """Return the scale of elements that dropout keeps."""
        return 1.0 / (1.0 - self.threshold / (1 << self.planes)) if self.planes else 1.0

    @property
    def attn_keep_scale(self) -> float:
        """Return the scale of attention probabilities that dropout keeps."""
        share = self.attn_threshold / (1 << self.attn_planes)
        return 1.0 / (1.0 - share) if self.attn_planes else 1.0

    @property
    def inner_keep_scale(self) -> float:
        """Return the scale of activations that dropout keeps."""
        share = self.inner_threshold / (1 << self.inner_planes)
        return 1.0 / (1.0 - share) if self.inner_planes else 1.0

    @property
    def sides(self) -> int:
        """Return how many inputs and output gradients backward spills for the matrices
        (``layer_backward.py``)."""
        return 5 if self.query else 4

    @property
    def score_scale(self) -> float:
        """Return the scale of ``Q K^T``."""
        return float(self.head_width**-0.5)

    # --- rows of the matrices of a layer ---

    @property
    def out_row(self) -> int:
        return 3 * self.heads * self.head

    @property
    def up_row(self) -> int:
        return 4 * self.heads * self.head

    @property
    def down_row(self) -> int:
        return self.up_row + self.ff

    @property
    def layer_rows(self) -> int:
        return self.down_row + self.ff

    @property
    def layers_size(self) -> int:
        """Return the size of all layers' matrices, in numbers."""
        return self.layers * self.layer_rows * self.d

    @property
    def concat_row(self) -> int:
        """Return the row of ``concat``'s matrix, after all layers: ``d`` rows for the state,
        then ``d`` for ``H``."""
        return self.layers * self.layer_rows

    @property
    def matrix_rows(self) -> int:
        return self.concat_row + (2 * self.d if self.concat else 0)

    # --- places in the vectors of a layer; LayerNorms are a weight and a bias of ``d`` each ---

    @property
    def out_bias_at(self) -> int:
        return 3 * self.heads * self.head

    @property
    def attn_norm_at(self) -> int:
        return self.out_bias_at + self.d

    @property
    def up_bias_at(self) -> int:
        return self.attn_norm_at + 2 * self.d

    @property
    def down_bias_at(self) -> int:
        return self.up_bias_at + self.ff

    @property
    def ffn_norm_at(self) -> int:
        return self.down_bias_at + self.d

    @property
    def mixing_at(self) -> int:
        """Return where the mixing's vectors begin; of ``filter``, its weight: real parts of
        ``frequencies`` rows of ``d``, then imaginary ones.

        Its LayerNorm is where attention's is.
        """
        return self.ffn_norm_at + 2 * self.d

    @property
    def bands_norm_at(self) -> int:
        """Return where ``bsarec``'s LayerNorm of its bands begins."""
        return self.mixing_at

    @property
    def band_scale_at(self) -> int:
        """Return where ``bsarec``'s band scale begins."""
        return self.bands_norm_at + 2 * self.d

    @property
    def layer_vector(self) -> int:
        if self.filters:
            return self.mixing_at + 2 * self.frequencies * self.d
        return self.band_scale_at + self.d if self.bands else self.mixing_at

    @property
    def core_norm_at(self) -> int:
        """Return where the core's LayerNorm begins, after all layers."""
        return self.layers * self.layer_vector

    @property
    def concat_bias_at(self) -> int:
        return self.core_norm_at + 2 * self.d

    @property
    def gate_at(self) -> int:
        return self.concat_bias_at + self.d

    @property
    def spoilt_at(self) -> int:
        """Return where backward's gradients hold their mark: zero, or NaN where all are
        (``kernels/apart.py``)."""
        return self.gate_at + 1

    @property
    def vector_size(self) -> int:
        return self.gate_at + MIN_SIDE

    @property
    def gradient_size(self) -> int:
        """Return the numbers that a program of backward gathers: gradients of vectors, then of
        filters' rows."""
        return self.vector_size + (self.layers * self.filter_sums if self.filters else 0)

    @property
    def filter_sums(self) -> int:
        """Return a layer's sums for the filter: real and imaginary parts of the weight of every
        row of a tile."""
        return 2 * self.rows * self.d

    @property
    def tapes(self) -> int:
        """Count the blocks that a layer leaves for its backward: its input, its residual sums."""
        return 4 if self.bands else 3

    @property
    def row_block(self) -> int:
        """Return the matrix rows of one product among those of the same kind
        (``kernels/weight_gradients.py``)."""
        # Queries' rows have a side of their own, so there a block is of one head.
        return math.gcd(_CHUNK, self.head if self.query else self.heads * self.head, self.ff)

    @property
    def concat_block(self) -> int:
        """Return the same of the rows of ``concat``'s matrix."""
        return min(_CHUNK, self.d)


@cache
def constants(
    config: CoreConfig,
    rows: int,
    dropout: bool,
    precision: str,
    chunk: int = _CHUNK,
    resident: bool = False,
) -> Constants:
    """Return the constants of ``config`` for tiles of ``rows``, with dropout or without.

    Args:
        config: of the core.
        rows: of a tile, a power of two of at least 16.
        dropout: apply dropout.
        precision: ``ieee``, ``tf32`` or ``half``.
        chunk: most columns of the feed-forward at a time, a power of two of at least 16.
        resident: forward keeps all matrices on the chip.
    """
    all_rates = (config.dropout, config.attn_dropout, config.inner_dropout)
    rates = all_rates if dropout else (0.0, 0.0, 0.0)
    threshold, planes = threshold_and_planes(rates[0])
    attn_threshold, attn_planes = threshold_and_planes(rates[1])
    inner_threshold, inner_planes = threshold_and_planes(rates[2])
    side = min(_CHUNK, padded(config.d_ff))
    ff = -(-config.d_ff // side) * side
    return Constants(
        rows=rows,
        d=padded(config.d_model),
        width=config.d_model,
        heads=config.n_heads if config.attends else 0,
        head=padded(config.head_dim if config.attends else 1),
        head_width=config.head_dim,
        ff=ff,
        chunk=math.gcd(chunk, ff),
        layers=config.n_layers,
        adapter=int(config.number("adapter")),
        activation=int(config.number("activation")),
        norm=int(config.number("norm")),
        eps=config.eps,
        threshold=threshold,
        planes=planes,
        attn_threshold=attn_threshold,
        attn_planes=attn_planes,
        precision=precision,
        resident=resident,
        inner_threshold=inner_threshold,
        inner_planes=inner_planes,
        spares_attention=config.number("dropout_of") == DropoutOf.FEED_FORWARD,
        zeros=config.number("padding") == Padding.LEFT_ZEROS,
        mixer=int(config.number("mixer")),
        window=config.window,
        share=config.band_share if config.mixer == "bsarec" else 1.0,
    )


class CompileTime:
    """Wrap constants as a kernel's argument: every field reads as Triton's ``constexpr``.

    Triton gives a compile-time object's plain attributes to its own functions, but not to ours.
    """

    def __init__(self, c: Hashable) -> None:
        self._c = c

    def __getattr__(self, name: str) -> Any:
        import triton.language as tl

        return tl.constexpr(getattr(self._c, name))

    def __hash__(self) -> int:
        return hash(self._c)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CompileTime) and self._c == other._c

    def __repr__(self) -> str:
        return repr(self._c)  # Triton finds compiled kernels on disk by it


def interpreted() -> bool:
    """Return True if Triton interprets kernels on the CPU instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def compile_time(c: Hashable) -> Any:
    """Return ``c`` as the argument ``C`` of kernels; the interpreter takes plain values."""
    return c if interpreted() else CompileTime(c)
