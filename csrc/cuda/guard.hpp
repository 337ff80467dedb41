// Sequences of a tile kept apart from what is not finite in one of them.
//
// In products of a tile's rows another sequence's numbers are multiplied by zero, and zero times
// NaN or infinity is NaN. That such numbers stay in their sequence costs much where they are, and
// next to nothing where they are not: a tile is computed as it comes, and only if its result is not
// finite a second time, guarded. Then what is not finite counts as zero in products, and NaN is put
// where it would have led to.
#pragma once

#include "attention.hpp"

namespace lares::cuda {

// Whether no number of a warp's rows is NaN or infinite.
template <class S>
LARES_DEVICE bool all_finite(const Rows<S>& x) {
    Float sum{};
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) sum = multiply_add(x[j][i], wide(0.0f), sum);
    }
    return !any(sum != 0.0f);
}

// Guards a tile from now on if one of the unit's warps, which all meet here, has found its rows
// spoilt, now or before; says whether it was not and is.
LARES_DEVICE bool guard(const Unit& unit, const Tile& tile, bool spoilt) {
    if (tile.guarded()) return false;
    if (spoilt) tile.set(Tile::kSpoilt);
    unit.block.fence();
    unit.barrier();
    bool found = false;
    LARES_ROLLED
    for (int warp = 0; warp < unit.warps; ++warp)
        found = found || tile.state_of(warp) == Tile::kSpoilt;
    if (!found) return false;
    unit.barrier();  // before a warp's state is another
    tile.set(Tile::kIsGuarded);
    unit.block.fence();
    return true;
}

template <class T>
constexpr uint32_t kExponent = 0x7f80;
template <>
constexpr uint32_t kExponent<Fp16> = 0x7c00;

// Whether the lower (0) or the upper (1) number of a word of 16 bits each is NaN or infinite.
template <class T>
LARES_DEVICE Mask not_finite(Word word, int half) {
    return ((word >> (16 * half)) & kExponent<T>) == kExponent<T>;
}

// Zeros in place of numbers that are.
template <class T>
LARES_DEVICE void clear_not_finite(Word (&words)[4]) {
    LARES_UNROLL
    for (int i = 0; i < 4; ++i) {
        LARES_UNROLL
        for (int half = 0; half < 2; ++half) {
            const Word cleared = words[i] & (0xffffu << (16 * (1 - half)));
            words[i] = select(not_finite<T>(words[i], half), cleared, words[i]);
        }
    }
}

// Of one head's 16 keys and values, as head_keys() has just left them: zeros in place of values
// that are not finite, and NaN in place of their keys. Scores of keys that a query may not see are
// never looked at, so NaN is the query's that sees it.
template <class S>
LARES_DEVICE void set_apart(unsigned char* keys) {
    using T = typename S::Type;
    int spoilt = 0;  // a bit for each key
    Word words[4];
    LARES_ROLLED
    for (int c = S::kHead; c < 2 * S::kHead; ++c) {
        load_shared(words, keys + c * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 8; ++i) {
            const Mask bad = not_finite<T>(words[i / 2], i % 2);
            LARES_UNROLL
            for (int t = 0; t < 4; ++t)
                if (any(both(bad, (lane_number() & 3) == t)))
                    spoilt |= 1 << (8 * (i / 2 % 2) + 2 * t + i % 2);
        }
        clear_not_finite<T>(words);
        store_shared(keys + c * kFragment, words);
    }
    const Int key = lane_number() >> 2;
    LARES_ROLLED
    for (int c = 0; c < S::kHead; ++c) {
        load_shared(words, keys + c * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) {
            const Mask is_spoilt = ((wide(spoilt) >> (key + 8 * (i / 2))) & 1) != 0;
            words[i] = select(is_spoilt, wide(0x7fff7fffu), words[i]);
        }
        store_shared(keys + c * kFragment, words);
    }
}

}  // namespace lares::cuda
