// Sequences of a tile kept apart from what is not finite in one of them.
//
// In products of a tile's rows another sequence's numbers are multiplied by zero, and zero times
// NaN or infinity is NaN. A row that enters attention is finite or NaN throughout: LayerNorm makes
// it so, and whole() what comes without one. One that is NaN makes all scores so of queries that
// see it; for those of other sequences, whose share of it is zero, its value is made zero, too.
//
// Infinity that arises inside, such as in fp16, reaches the tile's other sequences as NaN.
#pragma once

#include "math.hpp"

namespace lares::cuda {

// Rows with NaN throughout those that are not finite.
template <class S>
LARES_DEVICE void whole(Rows<S>& x) {
    Float trace[2] = {};
    LARES_UNROLL
    for (int i = 0; i < 4 * S::kBlocks; ++i)
        trace[i / 2 % 2] = multiply_add(x[i / 4][i % 4], wide(0.0f), trace[i / 2 % 2]);
    trace[0] = quad_sum(trace[0]);
    trace[1] = quad_sum(trace[1]);
    LARES_UNROLL
    for (int i = 0; i < 4 * S::kBlocks; ++i) x[i / 4][i % 4] += trace[i / 2 % 2];
}

template <class T>
constexpr uint32_t kExponent = 0x7f80;
template <>
constexpr uint32_t kExponent<Fp16> = 0x7c00;

// Whether the lower number of two in 16 bits each is NaN or infinite.
template <class T>
LARES_DEVICE Mask not_finite(Word word) {
    return (word & kExponent<T>) == kExponent<T>;
}

// A bit for each of 16 rows of an operand that is not finite; of such a row every number is not.
template <class T>
LARES_DEVICE int spoilt_rows(const Word (&operand)[4]) {
    const Mask upper = not_finite<T>(operand[0]), lower = not_finite<T>(operand[1]);
    int rows = 0;
    if (any(upper) || any(lower)) {
        LARES_ROLLED
        for (int g = 0; g < 8; ++g) {
            const Mask own = (lane_number() >> 2) == g;
            rows |= int(any(both(upper, own))) << g | int(any(both(lower, own))) << (8 + g);
        }
    }
    return rows;
}

// Zeros in place of spoilt rows' values, of one head's as head_keys() has just left them.
template <class S>
LARES_DEVICE void clear_values(unsigned char* keys, int rows) {
    const Int first = 2 * (lane_number() & 3);
    LARES_ROLLED
    for (int c = S::kHead; c < 2 * S::kHead; ++c) {
        Word words[4];
        load_shared(words, keys + c * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 8; ++i) {
            Word& word = words[i / 2];
            const Mask spoilt = ((wide(rows) >> (first + (8 * (i / 2 % 2) + i % 2))) & 1) != 0;
            word = select(spoilt, word & (0xffffu << (16 * (1 - i % 2))), word);
        }
        store_shared(keys + c * kFragment, words);
    }
}

}  // namespace lares::cuda
