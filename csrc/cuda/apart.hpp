// Sequences of a tile kept apart from what is not finite in one of them.
//
// Only attention multiplies rows of different sequences: by zero, and zero times NaN or infinity is
// NaN. So it multiplies no such numbers. A key or value that has one makes the key NaN, and with it
// the scores of the queries that see it, and the value zero; to other queries both are as good as
// any. Backward, where keys, queries and their gradients are multiplied, too, these are zeros and
// NaN comes from the probabilities.
#pragma once

#include "math.hpp"

namespace lares::cuda {

// A key that is NaN, two numbers at a time. Rounding gives NaN of other bits.
constexpr uint32_t kSpoiltKey = ~0u;

// True where a lane's trace (add_trace) met a number that is not finite.
LARES_DEVICE Mask spoilt(Word trace) { return trace != 0u; }

// One head's keys and values of 16 rows, as head_keys() has just left them, of which some are not
// finite. Rows that are not lose both.
template <class S>
LARES_DEVICE void set_keys_apart(unsigned char* keys) {
    using T = typename S::Type;
    // A fragment's word i has numbers of key row + 8 (i / 2), or of values of rows column + 8 (i %
    // 2) and the next.
    const Int row = lane_number() >> 2, column = first_column();
    Word found{};  // a bit for each row, as far as this lane knows
    LARES_ROLLED
    for (int c = 0; c < 2 * S::kHead; ++c) {
        Word words[4];
        load_shared(words, keys + c * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) {
            const Word trace = add_trace<T>(wide(0u), words[i]);
            const Word low = select(spoilt(trace & 0xffffu), wide(1u), wide(0u));
            const Word high = select(spoilt(trace >> 16), wide(1u), wide(0u));
            if (c < S::kHead)
                found = found | (low | high) << as_word(row + 8 * (i / 2));
            else
                found = found | (low | high << 1) << as_word(column + 8 * (i % 2));
        }
    }
    uint32_t rows = 0;
    LARES_ROLLED
    for (int r = 0; r < 16; ++r) rows |= uint32_t(any((found >> r & 1u) != 0u)) << r;
    LARES_ROLLED
    for (int c = 0; c < 2 * S::kHead; ++c) {
        Word words[4];
        load_shared(words, keys + c * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) {
            if (c < S::kHead) {
                const Word own = wide(rows) >> as_word(row + 8 * (i / 2));
                words[i] = select((own & 1u) != 0u, wide(kSpoiltKey), words[i]);
            } else {
                const Word own = wide(rows) >> as_word(column + 8 * (i % 2));
                words[i] = words[i] & select((own & 1u) != 0u, wide(0xffff0000u), wide(~0u));
                words[i] = words[i] & select((own & 2u) != 0u, wide(0x0000ffffu), wide(~0u));
            }
        }
        store_shared(keys + c * kFragment, words);
    }
}

}  // namespace lares::cuda
