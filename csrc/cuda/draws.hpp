// Random decisions by address, with the bits of spec/noise.py (docs/reference/random.md).
#pragma once

#include "math.hpp"

namespace lares::cuda {

enum Site : int { kSiteState = 0, kSiteAttention = 1, kSiteResidual = 2 };

struct Seed {
    uint32_t low, high;
};

// The key of all draws. It lies in memory, where a captured graph finds another at each replay.
LARES_DEVICE Seed seed_at(const int64_t* key) {
    const uint64_t bits = uint64_t(*key);
    return {uint32_t(bits), uint32_t(bits >> 32)};
}

LARES_DEVICE uint32_t site_word(int site, int layer, int step) {
    return uint32_t(site) | uint32_t(layer) << 8 | uint32_t(step) << 16;
}

// Philox4x32-10 (Salmon et al., SC 2011) of the counter in `c`, in place.
LARES_DEVICE void philox(Word (&c)[4], Seed seed) {
    LARES_UNROLL
    for (int round = 0; round < 10; ++round) {
        const Word high0 = multiply_high(c[0], 0xD2511F53u), low0 = c[0] * 0xD2511F53u;
        const Word high1 = multiply_high(c[2], 0xCD9E8D57u), low1 = c[2] * 0xCD9E8D57u;
        c[0] = high1 ^ c[1] ^ seed.low;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ seed.high;
        c[3] = low0;
        seed.low += 0x9E3779B9u;
        seed.high += 0xBB67AE85u;
    }
}

// Decides which elements of two neighbouring blocks of 64 survive: bit i of keep[0], keep[1] for
// elements i and 32 + i of block 2 pair, keep[2], keep[3] likewise of the next. All of it may
// differ between lanes but `pair` and `planes`: bits of the rate past its own are zeros and change
// nothing.
LARES_DEVICE void keep_words(Word (&keep)[4], Word stream, Word position, Word site, int pair,
                             Word bits, int planes, Seed seed) {
    Word below[4] = {}, equal[4];
    LARES_UNROLL
    for (int k = 0; k < 4; ++k) equal[k] = wide(~0u);
    LARES_ROLLED
    for (int plane = 0; plane < planes; ++plane) {
        Word word[4] = {stream, position, site, wide(uint32_t(8 * pair + plane))};
        philox(word, seed);
        const Word bit = as_word(as_int(bits << plane) >> 31);  // all ones or zeros
        LARES_UNROLL
        for (int k = 0; k < 4; ++k) {
            below[k] = below[k] | (equal[k] & ~word[k] & bit);
            equal[k] = equal[k] & ~(word[k] ^ bit);
        }
    }
    LARES_UNROLL
    for (int k = 0; k < 4; ++k) keep[k] = ~below[k];
}

// Standard normal numbers cut at three sigma from words; lares_kernels/spec/noise.py derives the
// formula.
LARES_DEVICE Float truncated_normal(Word word) {
    const Float t = (to_float(as_int(word) >> 8) + 0.5f) * 1.1920928955078125e-07f;
    const Float distance = 1.0f - larger(t, -t);
    const Float w =
        -logarithm(0.9946076967722628f * (distance * (2.0f - distance)) + 0.005392303227737183f) -
        2.5f;
    Float r = multiply_add(w, wide(-1.1378691064497474e-08f), wide(3.356981301198966e-08f));
    r = multiply_add(r, w, wide(6.436343239046599e-07f));
    r = multiply_add(r, w, wide(-4.893458986792137e-06f));
    r = multiply_add(r, w, wide(-6.938310676230036e-06f));
    r = multiply_add(r, w, wide(0.0003079878408250641f));
    r = multiply_add(r, w, wide(-0.0017669626249976484f));
    r = multiply_add(r, w, wide(-0.005891808852105128f));
    r = multiply_add(r, w, wide(0.3478603869914019f));
    r = multiply_add(r, w, wide(2.117580972424287f));
    return r * t;
}

// s_0 of a tile's rows. A lane calls the generator for one of the quad's two rows and both halves
// of a block of four columns, and changes halves with its neighbour. `stream` and `position` are
// those of row g for even lanes, of row g + 8 for odd ones.
template <class S>
LARES_DEVICE void initial_state(Rows<S>& x, Word stream, Word position, float scale, Seed seed) {
    const Int lane = lane_number();
    const Mask odd = (lane & 1) == 1;
    const Word half = as_word((lane & 3) >> 1);
    // A loop that stays one, or the compiler mixes calls and runs out of registers.
    LARES_ROLLED
    for (int j = 0; j < S::kBlocks; ++j) {
        Float(&made)[4] = next_block<S>(x);
        Word c[4] = {stream, position, wide(site_word(kSiteState, 0, 0)), half + uint32_t(2 * j)};
        philox(c, seed);
        const Word first = swap_neighbours(select(odd, c[0], c[2]));
        const Word second = swap_neighbours(select(odd, c[1], c[3]));
        made[0] = truncated_normal(select(odd, first, c[0])) * scale;
        made[1] = truncated_normal(select(odd, second, c[1])) * scale;
        made[2] = truncated_normal(select(odd, c[2], first)) * scale;
        made[3] = truncated_normal(select(odd, c[3], second)) * scale;
    }
}

// Keep the columns of which the bits of `upper` (of row g) and `lower` (of
// row g + 8) are set, times `scale`; add them to `x`.
template <class S>
LARES_DEVICE void add_dropped(Rows<S>& x, const Rows<S>& branch, const Word (&upper)[S::kKeepWords],
                              const Word (&lower)[S::kKeepWords], float scale) {
    const Int column = first_column();
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        const Word high = upper[j / 4] >> as_word(column), low = lower[j / 4] >> as_word(column);
        LARES_UNROLL
        for (int e = 0; e < 2; ++e) {
            const uint32_t bit = 1u << (8 * (j % 4) + e);
            // A factor of zero, as dropout is defined: NaN that is dropped stays.
            x[j][e] += branch[j][e] * select((high & bit) != 0u, wide(scale), wide(0.0f));
            x[j][2 + e] += branch[j][2 + e] * select((low & bit) != 0u, wide(scale), wide(0.0f));
        }
    }
}

}  // namespace lares::cuda
