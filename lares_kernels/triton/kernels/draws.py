"""Draw by address on the device, with the bits of ``lares_kernels/spec/noise.py``."""

import triton
import triton.language as tl

SITE_INITIAL_STATE: tl.constexpr = tl.constexpr(0)
SITE_ATTENTION: tl.constexpr = tl.constexpr(1)
SITE_RESIDUAL: tl.constexpr = tl.constexpr(2)
SITE_INNER: tl.constexpr = tl.constexpr(4)
SITE_BANDS: tl.constexpr = tl.constexpr(5)


@triton.jit
def site_word(site, layer, step):
    """Return the counter's third word."""
    return site | (layer << 8) | (step << 16)


@triton.jit
def keep_words(stream, position, site, pair, seed, THRESHOLD: tl.constexpr, PLANES: tl.constexpr):
    """Decide which elements of two neighbouring blocks of 64 survive dropout.

    A row's elements are compared with the threshold bit by bit, most significant first, 32 of them
    in a word.

    Args:
        stream, position: int32 of any shape, address of every row.
        site: :func:`site_word`.
        pair: ``i`` of blocks ``2 i`` and ``2 i + 1``.
        seed: pointer to the int64 key. It is loaded here, so that the compiler does not
            hoist the generator's twenty round keys into registers.
        THRESHOLD, PLANES: the rate as ``THRESHOLD / 2^PLANES`` in lowest terms.

    Returns:
        (low, high) of block ``2 i``, then of ``2 i + 1``: int32 of the rows' shape, bit ``j`` set
        where element ``j`` (low) or ``32 + j`` (high) is kept.
    """
    key = tl.load(seed)
    zero = position ^ position
    below0, below1, below2, below3 = zero, zero, zero, zero
    equal0, equal1, equal2, equal3 = ~zero, ~zero, ~zero, ~zero
    for plane in tl.static_range(PLANES):
        word0, word1, word2, word3 = tl.philox(key, stream, position, site, pair * 8 + plane)
        word0 = word0.to(tl.int32, bitcast=True)
        word1 = word1.to(tl.int32, bitcast=True)
        word2 = word2.to(tl.int32, bitcast=True)
        word3 = word3.to(tl.int32, bitcast=True)
        if (THRESHOLD >> (PLANES - 1 - plane)) & 1 == 1:
            below0 |= equal0 & ~word0
            below1 |= equal1 & ~word1
            below2 |= equal2 & ~word2
            below3 |= equal3 & ~word3
            equal0 &= word0
            equal1 &= word1
            equal2 &= word2
            equal3 &= word3
        else:
            equal0 &= ~word0
            equal1 &= ~word1
            equal2 &= ~word2
            equal3 &= ~word3
    return ~below0, ~below1, ~below2, ~below3


@triton.jit
def block_words(stream, position, site, block, seed, THRESHOLD: tl.constexpr, PLANES: tl.constexpr):
    """Return (low, high) of :func:`keep_words` for one block of 64 elements."""
    low, high, odd_low, odd_high = keep_words(
        stream, position, site, block // 2, seed, THRESHOLD, PLANES
    )
    return tl.where(block % 2 == 0, low, odd_low), tl.where(block % 2 == 0, high, odd_high)


@triton.jit
def kept(low, high, element):
    """Decide whether each ``element`` (1, C) of 0..63 of rows (R,) is kept, (R, C) bool."""
    word = tl.where(element < 32, low[:, None], high[:, None])
    return ((word >> (element & 31)) & 1) != 0


@triton.jit
def kept_columns(low, high, COLUMNS: tl.constexpr):
    """Decide whether elements 0 .. ``COLUMNS`` - 1 (16, 32 or 64) of rows (R,) are kept, (R,
    COLUMNS) bool."""
    EIGHTS: tl.constexpr = COLUMNS // 8 if COLUMNS < 32 else 4
    WORDS: tl.constexpr = COLUMNS // (8 * EIGHTS)
    word = low[:, None, None, None]
    if WORDS == 2:
        word = tl.where(tl.arange(0, 2)[None, :, None, None] == 0, word, high[:, None, None, None])
    word = word >> tl.arange(0, 8)[None, None, None, :]
    word = word >> (8 * tl.arange(0, EIGHTS))[None, None, :, None]
    return tl.reshape((word & 1) != 0, (low.shape[0], COLUMNS))


@triton.jit
def truncated_normal(words):
    """Convert 32-bit words to standard normal numbers truncated at +-3; ``noise.py`` derives the
    formula."""
    top = words.to(tl.int32, bitcast=True) >> 8  # the top 24 bits as a signed number
    t = (top.to(tl.float32) + 0.5) * 1.1920928955078125e-07
    distance = 1.0 - tl.abs(t)
    w = -tl.log(0.005392303227737183 + 0.9946076967722628 * (distance * (2.0 - distance))) - 2.5
    ratio = w * -1.1378691064497474e-08 + 3.356981301198966e-08
    ratio = ratio * w + 6.436343239046599e-07
    ratio = ratio * w - 4.893458986792137e-06
    ratio = ratio * w - 6.938310676230036e-06
    ratio = ratio * w + 0.0003079878408250641
    ratio = ratio * w - 0.0017669626249976484
    ratio = ratio * w - 0.005891808852105128
    ratio = ratio * w + 0.3478603869914019
    ratio = ratio * w + 2.117580972424287
    return ratio * t


@triton.jit
def initial_state(stream, position, scale, seed, R: tl.constexpr, D: tl.constexpr):
    """Draw ``s_0`` (R, D) float32 of rows (R,): truncated normal numbers times ``scale``.

    Columns ``4 i .. 4 i + 3`` are the four words of block ``i``; ``seed`` is a pointer to the key.
    """
    block = tl.arange(0, D // 4)[None, :]
    rows = tl.zeros((R, D // 4), tl.int32)
    word0, word1, word2, word3 = tl.philox(
        tl.load(seed), rows + stream[:, None], rows + position[:, None], rows + 0, rows + block
    )
    # join() puts its arguments side by side in a new last dimension.
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    return truncated_normal(tl.reshape(words, (R, D))) * scale
