// Dropout decisions and initial states by address (docs/reference/random.md), rows in vectors.
#pragma once

#include "math.hpp"

namespace lares::LARES_ISA {

// Purpose of a draw, in the third counter word.
enum Site : uint32_t {
    kSiteState = 0,
    kSiteAttention = 1,
    kSiteResidual = 2,
    kSiteInner = 4,
    kSiteBands = 5
};

LARES_INLINE uint32_t site_word(Site site, int layer, int step) {
    return uint32_t(site) | uint32_t(layer) << 8 | uint32_t(step) << 16;
}

struct Words {
    UVec w[4];
};

// High and low half of the 64-bit products of a lane with a constant.
LARES_INLINE void multiply(UVec a, uint32_t by, UVec& high, UVec& low) {
    low = a * by;
#if defined(__AVX512F__)
    const __m512i m = _mm512_set1_epi32(int(by));
    const __m512i even = _mm512_mul_epu32((__m512i)a, m);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), m);
    high = (UVec)_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
#elif defined(__AVX2__)
    const __m256i m = _mm256_set1_epi32(int(by));
    const __m256i even = _mm256_mul_epu32((__m256i)a, m);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), m);
    high = (UVec)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
#elif defined(LARES_NEON)
    const uint32x4_t x = (uint32x4_t)a;
    const uint64x2_t first = vmull_n_u32(vget_low_u32(x), by), last = vmull_high_n_u32(x, by);
    high = (UVec)vuzp2q_u32(vreinterpretq_u32_u64(first), vreinterpretq_u32_u64(last));
#else
    for (int i = 0; i < kLanes; ++i) high[i] = uint32_t((uint64_t(a[i]) * by) >> 32);
#endif
}

// Philox4x32-10 (Salmon et al., SC 2011) of one counter a lane.
LARES_INLINE Words philox(UVec c0, UVec c1, UVec c2, UVec c3, uint64_t seed) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
        UVec high0, low0, high1, low1;
        multiply(c0, 0xD2511F53u, high0, low0);
        multiply(c2, 0xCD9E8D57u, high1, low1);
        c0 = high1 ^ c1 ^ broadcast(k0);
        c1 = low1;
        c2 = high0 ^ c3 ^ broadcast(k1);
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A dropout rate as `threshold / 2^planes`, in lowest terms; planes = 0 is no dropout.
struct Rate {
    int threshold = 0, planes = 0;
    bool on() const { return planes > 0; }
    float scale() const { return 1.0f / (1.0f - float(threshold) / float(1 << planes)); }
};

// Decides which elements of a row's 64-element blocks survive: keep[(block * 2 + half) * stride +
// row], bit i of half k for element 32 k + i. A lane's number is compared with the threshold bit by
// bit, most significant first.
inline void keep_words(const uint32_t* streams, const uint32_t* positions, int rows, uint32_t site,
                       int blocks, Rate rate, uint64_t seed, uint32_t* keep, ptrdiff_t stride) {
    for (int pair = 0; pair < (blocks + 1) / 2; ++pair) {
        for (int r = 0; r < rows; r += kLanes) {
            const UVec stream = load(streams + r), position = load(positions + r);
            UVec below[4] = {}, equal[4];
            for (auto& e : equal) e = broadcast(~0u);
            for (int plane = 0; plane < rate.planes; ++plane) {
                const Words words = philox(stream, position, broadcast(site),
                                           broadcast(uint32_t(pair * 8 + plane)), seed);
                const bool bit = rate.threshold >> (rate.planes - 1 - plane) & 1;
                for (int k = 0; k < 4; ++k) {
                    if (bit) {
                        below[k] |= equal[k] & ~words.w[k];
                        equal[k] &= words.w[k];
                    } else {
                        equal[k] &= ~words.w[k];
                    }
                }
            }
            for (int k = 0; k < 4; ++k) {
                const int half = pair * 4 + k;  // blocks 2 pair and 2 pair + 1, two halves each
                if (half < 2 * blocks) store(keep + half * stride + r, UVec(~below[k]));
            }
        }
    }
}

// Standard normal numbers cut at three sigma from words; lares_kernels/spec/noise.py derives the
// formula.
LARES_INLINE Vec truncated_normal(UVec words) {
    constexpr float c[] = {2.117580972424287f,      0.3478603869914019f,    -0.005891808852105128f,
                           -0.0017669626249976484f, 0.0003079878408250641f, -6.938310676230036e-06f,
                           -4.893458986792137e-06f, 6.436343239046599e-07f, 3.356981301198966e-08f,
                           -1.1378691064497474e-08f};
    const IVec top = bits_as<IVec>(words) >> 8;  // the top 24 bits as a signed number
    const Vec t = (__builtin_convertvector(top, Vec) + broadcast(0.5f)) * broadcast(0x1p-23f);
    const Vec distance = broadcast(1.0f) - max(t, -t);
    const Vec w = -log(broadcast(0.9946076967722628f) * (distance * (broadcast(2.0f) - distance)) +
                       broadcast(0.005392303227737183f));
    return polynomial(c, w - broadcast(2.5f)) * t;
}

// s_0 of one row: `width` columns into `out`, which has room for a multiple of 4 kLanes.
inline void initial_state(uint32_t stream, uint32_t position, int width, float scale, uint64_t seed,
                          float* out) {
    const UVec lane = bits_as<UVec>(lane_numbers());
    for (int first = 0; first < width; first += 4 * kLanes) {
        const Words words =
            philox(broadcast(stream), broadcast(position), broadcast(uint32_t(kSiteState)),
                   lane + broadcast(uint32_t(first / 4)), seed);
        float z[4][kLanes];
        for (int k = 0; k < 4; ++k) store(z[k], truncated_normal(words.w[k]) * broadcast(scale));
        for (int i = 0; i < kLanes; ++i)
            for (int k = 0; k < 4; ++k) out[first + 4 * i + k] = z[k][i];
    }
}

}  // namespace lares::LARES_ISA
