"""Draw dropout masks and initial states, addressed by what they are for (docs/reference/random.md).

The counter of a Philox call is ``(stream, position, site, block)``:

* ``stream``: sequence number in bits 0-23, rollout in bits 24-31;
* ``position``: of the token in its sequence, from 0;
* ``site``: kind of draw in bits 0-7, layer in bits 8-15, step in bits 16-31 (0 outside the recurrence);
* ``block``: which part of the token's row.

Nothing depends on where a row lies in memory, so packed and padded runs, forward and backward's
recomputation, and all backends make the same decisions from the same seed.
"""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor

from lares_kernels.spec.config import DROPOUT_LEVELS
from lares_kernels.spec.philox import philox4x32

STREAM_BITS = 24
MAX_SEQUENCES = 1 << STREAM_BITS
MAX_ROLLOUTS = 1 << (32 - STREAM_BITS)
MAX_STEPS = (1 << 16) - 1

_BLOCK_ELEMENTS = 64  # elements that share one 64-bit word
_WORDS_PER_CALL = 2  # a call's 128 bits serve two neighbouring blocks
_MAX_PLANES = 8  # bits of an element's number


class Site(enum.IntEnum):
    """Number what a draw is for."""

    INITIAL_STATE = 0
    ATTENTION = 1
    RESIDUAL = 2
    EMBEDDING = 3
    INNER = 4
    BANDS = 5
    TEXT = 6
    TEXT_GATE = 7


def site_word(site: Site, layer: int = 0, step: int = 0) -> int:
    """Return the counter's third word."""
    return int(site) | layer << 8 | step << 16


def quantised_rate(rate: float) -> float:
    """Return the dropout rate in effect: ``round(256 p) / 256``."""
    return round(DROPOUT_LEVELS * rate) / DROPOUT_LEVELS


def threshold_and_planes(rate: float) -> tuple[int, int]:
    """Return ``p`` as ``m / 2^n`` in lowest terms: ``(m, n)``."""
    level = round(DROPOUT_LEVELS * rate)
    divisor = math.gcd(level, DROPOUT_LEVELS)
    return level // divisor, (DROPOUT_LEVELS // divisor).bit_length() - 1


def dropout_words(
    streams: Tensor, positions: Tensor, site: int, n_blocks: int, n_planes: int, seed: int | Tensor
) -> Tensor:
    """Generate the 64-bit words of ``n_blocks`` blocks of every row.

    Args:
        streams, positions: (N,) int64.
        site: third counter word, :func:`site_word`.
        n_blocks: blocks of 64 elements in a row.
        n_planes: words for each block, most significant bit first.
        seed: 64-bit key.

    Returns:
        (N, n_blocks, n_planes) int64 bit patterns. Blocks ``2i`` and ``2i + 1`` are the two halves
        of the call whose fourth counter word is ``8 i + plane``.
    """
    device = streams.device
    pairs = torch.arange((n_blocks + 1) // _WORDS_PER_CALL, device=device)
    planes = torch.arange(n_planes, device=device)
    block = (pairs[:, None] * _MAX_PLANES + planes[None, :])[None]
    x0, x1, x2, x3 = philox4x32(
        streams[:, None, None],
        positions[:, None, None],
        torch.full((), site, dtype=torch.int64, device=device),
        block,
        seed,
    )
    words = torch.stack((x0 | x1 << 32, x2 | x3 << 32), dim=2)  # (N, pairs, 2, planes)
    return words.flatten(1, 2)[:, :n_blocks]


def keep_from_words(words: Tensor, rate: float) -> Tensor:
    """Decide dropout of the words' elements.

    Element ``j``'s number has bit ``j`` of word ``k`` as its ``k``-th most significant bit; it is
    dropped if the number is below ``round(256 p)``. Only the leading ``n`` bits can matter when
    ``p = m / 2^n``.

    Args:
        words: (..., n_planes) int64.
        rate: dropout rate that ``n_planes`` was chosen for.

    Returns:
        (..., 64) bool, True where the element is kept.
    """
    threshold, n_planes = threshold_and_planes(rate)
    # Bytes of a little-endian word hold its bits in order, eight elements each.
    words_as_bytes = words.contiguous().unsqueeze(-1).view(torch.uint8)
    shifts = torch.arange(8, dtype=torch.uint8, device=words.device)
    bits = ((words_as_bytes.unsqueeze(-1) >> shifts) & 1).flatten(-2)  # (..., n_planes, 64)
    number = bits[..., 0, :]
    for plane in range(1, n_planes):
        number = (number << 1) | bits[..., plane, :]
    return number >= threshold


def row_keep(
    streams: Tensor,
    positions: Tensor,
    site: int,
    rate: float,
    width: int,
    seed: int | Tensor,
    first_block: int = 0,
) -> Tensor:
    """Decide which columns of every row survive dropout.

    Args:
        streams, positions: (N,) int64 address of every row.
        site: :func:`site_word`.
        rate: dropout probability, above 0 once quantised.
        width: columns in a row.
        seed: 64-bit key.
        first_block: block of column 0.

    Returns:
        (N, width) bool.
    """
    n_blocks = -(-width // _BLOCK_ELEMENTS)
    _, n_planes = threshold_and_planes(rate)
    words = dropout_words(streams, positions, site, first_block + n_blocks, n_planes, seed)
    return keep_from_words(words[:, first_block:], rate).flatten(1)[:, :width]


def residual_keep(
    streams: Tensor,
    positions: Tensor,
    *,
    layer: int,
    step: int,
    rate: float,
    width: int,
    seed: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """Decide which elements of a layer's two residual branches are kept, (attention output,
    feed-forward output).

    Both share one site (their blocks follow each other), so that at ``d = 64`` and ``p = .5`` one
    Philox call serves a row of the whole layer. Each result is (N, width) bool.
    """
    n_blocks = -(-width // _BLOCK_ELEMENTS)
    _, n_planes = threshold_and_planes(rate)
    site = site_word(Site.RESIDUAL, layer, step)
    words = dropout_words(streams, positions, site, 2 * n_blocks, n_planes, seed)
    keep = keep_from_words(words, rate)
    return (keep[:, :n_blocks].flatten(1)[:, :width], keep[:, n_blocks:].flatten(1)[:, :width])


def attention_keep(
    streams: Tensor,
    positions: Tensor,
    *,
    layer: int,
    step: int,
    rate: float,
    n_heads: int,
    n_keys: int,
    seed: int | Tensor,
) -> Tensor:
    """Decide which attention probabilities of every query row are kept.

    Elements are key *positions*; the block of keys ``64 k ..`` of head ``i`` is ``k h + i``.

    Returns:
        (N, n_heads, n_keys) bool.
    """
    key_blocks = -(-n_keys // _BLOCK_ELEMENTS)
    _, n_planes = threshold_and_planes(rate)
    site = site_word(Site.ATTENTION, layer, step)
    words = dropout_words(streams, positions, site, key_blocks * n_heads, n_planes, seed)
    keep = keep_from_words(words, rate).reshape(-1, key_blocks, n_heads, _BLOCK_ELEMENTS)
    return keep.transpose(1, 2).flatten(2)[..., :n_keys]


# Inverse normal distribution function restricted to +-3 sigma. With t uniform on (-1, 1) and
# K = erf(3 / sqrt 2), z = sqrt 2 erfinv(K t). As in Giles (2010), z / t is smooth in
# w = -log(1 - K^2 t^2), here on [0, 5.23]: a degree-9 Chebyshev fit in w - 2.5, absolute error of
# the fit below 3e-8. 1 - K^2 t^2 is formed from the exactly known distance 1 - |t|, since forming it
# from t would lose the digits that the tail needs.
_ONE_MINUS_K2 = 0.005392303227737183
_K2 = 0.9946076967722628
_W_CENTRE = 2.5
_RATIO_COEFFICIENTS = (
    2.117580972424287,
    0.3478603869914019,
    -0.005891808852105128,
    -0.0017669626249976484,
    0.0003079878408250641,
    -6.938310676230036e-06,
    -4.893458986792137e-06,
    6.436343239046599e-07,
    3.356981301198966e-08,
    -1.1378691064497474e-08,
)


def truncated_normal_from_words(words: Tensor) -> Tensor:
    """Convert 32-bit words to standard normal numbers truncated at +-3, in float32.

    Args:
        words: int64 with values in ``[0, 2^32)``; the top 24 bits are used.

    Returns:
        float32 of the same shape, in (-3, 3).
    """
    signed = (words >> 8) - ((words >> 31) << 24)  # the top 24 bits as a signed number
    half_integer = signed.to(torch.float32) + 0.5
    t = half_integer * 2.0**-23
    distance = 1.0 - t.abs()  # exact
    w = -torch.log(_ONE_MINUS_K2 + _K2 * (distance * (2.0 - distance)))
    centred = w - _W_CENTRE
    ratio = torch.full_like(centred, _RATIO_COEFFICIENTS[-1])
    for coefficient in reversed(_RATIO_COEFFICIENTS[:-1]):
        ratio = ratio * centred + coefficient
    return ratio * t


def normal_rows(
    streams: Tensor, positions: Tensor, site: int, width: int, seed: int | Tensor
) -> Tensor:
    """Draw standard normal numbers truncated at three deviations, (N, width) float32.

    Columns ``4 i .. 4 i + 3`` are the four words of block ``i``; arguments as :func:`row_keep`'s.
    """
    device = streams.device
    block = torch.arange(-(-width // 4), device=device)[None]
    words = philox4x32(
        streams[:, None],
        positions[:, None],
        torch.full((), site, dtype=torch.int64, device=device),
        block,
        seed,
    )
    return truncated_normal_from_words(torch.stack(words, dim=-1).flatten(1)[:, :width])


def initial_state(
    streams: Tensor, positions: Tensor, *, width: int, scale: float, seed: int | Tensor
) -> Tensor:
    """Draw ``s_0 = scale * TruncatedNormal(0, 1)`` of every row, truncated at three.

    Args:
        streams, positions: (N,) int64 address of every row.
        width: columns ``d``; columns ``4 i .. 4 i + 3`` are the four words of block ``i``.
        scale: omega sigma, as a call has it.
        seed: 64-bit key.

    Returns:
        (N, width) float32.
    """
    z = normal_rows(streams, positions, site_word(Site.INITIAL_STATE), width, seed)
    return z * scale
