// Vectors of the instruction set this file is compiled for, by the compiler's own vector types.
//
// Every kernel source is compiled once for each instruction set, with that set's flags and its own
// LARES_ISA namespace; nothing here is chosen at run time.
#pragma once

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LARES_NEON 1
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define LARES_NEON_BF16 1
#endif
#endif

#ifndef LARES_ISA
#error "compile with -DLARES_ISA=<name of the instruction set>"
#endif

#include "support.hpp"

#define LARES_INLINE inline __attribute__((always_inline))
#define LARES_APART inline __attribute__((noinline))
#define LARES_INLINE_LAMBDA __attribute__((always_inline))

#define LARES_TEXT2(x) #x
#define LARES_TEXT(x) LARES_TEXT2(x)

namespace lares::LARES_ISA {

constexpr const char* kIsaName = LARES_TEXT(LARES_ISA);

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kPanelVectors = 4;  // 6 x 4 accumulators, 4 panel vectors: 28 of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kPanelVectors = 2;  // 6 x 2 accumulators, 2 panel vectors: 14 of 16 registers
#else
constexpr int kLanes = 4;
constexpr int kPanelVectors = 4;  // all but 3 of NEON's 32 registers
#endif
constexpr int kBlockRows = 6;
constexpr int kPanel = kPanelVectors * kLanes;  // columns of a weight panel

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IVec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t UVec __attribute__((vector_size(4 * kLanes)));

// The same vectors at any address: unlike memcpy, they keep strict-aliasing information, so a store
// of floats is known to change no pointer or size that a loop holds.
typedef float VecAt __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef int32_t IVecAt __attribute__((vector_size(4 * kLanes), aligned(4)));
typedef uint32_t UVecAt __attribute__((vector_size(4 * kLanes), aligned(4)));

LARES_INLINE Vec load(const float* p) { return *reinterpret_cast<const VecAt*>(p); }
LARES_INLINE UVec load(const uint32_t* p) { return *reinterpret_cast<const UVecAt*>(p); }
LARES_INLINE IVec load(const int32_t* p) { return *reinterpret_cast<const IVecAt*>(p); }
LARES_INLINE void store(float* p, Vec v) { *reinterpret_cast<VecAt*>(p) = v; }
LARES_INLINE void store(uint32_t* p, UVec v) { *reinterpret_cast<UVecAt*>(p) = v; }
LARES_INLINE void add_to(float* p, Vec v) { store(p, load(p) + v); }

LARES_INLINE Vec broadcast(float x) {
#if defined(__AVX512F__)
    return (Vec)_mm512_set1_ps(x);
#elif defined(__AVX2__)
    return (Vec)_mm256_set1_ps(x);
#else
    return Vec{x, x, x, x};
#endif
}

LARES_INLINE IVec broadcast(int32_t x) { return IVec{} + x; }
LARES_INLINE UVec broadcast(uint32_t x) { return UVec{} + x; }

// Lane i of the result is lane pick(i) of a followed by b.
template <class Pick, int... I>
LARES_INLINE Vec shuffle(Vec a, Vec b, Pick pick, Indices<I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, pick(I)...);
#else
    return __builtin_shuffle(a, b, IVec{pick(I)...});
#endif
}

// Constant vectors, as arrays: compilers build them lane by lane otherwise.
struct LaneTables {
    alignas(64) int32_t numbers[kLanes];  // 0, 1, 2, ...
    alignas(64) uint32_t bits[kLanes];    // 1, 2, 4, ...
    constexpr LaneTables() : numbers(), bits() {
        for (int i = 0; i < kLanes; ++i) {
            numbers[i] = i;
            bits[i] = 1u << i;
        }
    }
};
inline constexpr LaneTables kLaneTables;

LARES_INLINE IVec lane_numbers() { return load(kLaneTables.numbers); }
LARES_INLINE UVec lane_bits() { return load(kLaneTables.bits); }

LARES_INLINE Vec select(IVec mask, Vec yes, Vec no) { return mask ? yes : no; }
// The greater and the lesser; where one of them is NaN, b. So a bound goes first, and a number that
// may be NaN second: NaN passes. By name where there is one: of `a > b ? a : b` compilers make a
// comparison and a blend.
LARES_INLINE Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}
LARES_INLINE Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

LARES_INLINE IVec max(IVec a, IVec b) { return a > b ? a : b; }

template <class To, class From>
LARES_INLINE To bits_as(From v) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To out;
    std::memcpy(&out, &v, sizeof out);
    return out;
}

// Sum of all lanes, always in the same order.
LARES_INLINE float sum_lanes(Vec v) {
#if defined(__AVX512F__)
    __m512 x = (__m512)v;
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x),
                             _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
#elif defined(__AVX2__)
    __m256 y = (__m256)v;
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
#endif
#if defined(__AVX2__) || defined(__AVX512F__)
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    z = _mm_add_ss(z, _mm_shuffle_ps(z, z, 1));
    return _mm_cvtss_f32(z);
#elif defined(LARES_NEON)
    const float32x4_t x = (float32x4_t)v;
    return vpadds_f32(vadd_f32(vget_low_f32(x), vget_high_f32(x)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

LARES_INLINE float max_lanes(Vec v) {
    float best = v[0];
    for (int i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
    return best;
}

// True if `rows` rows of `width` numbers, whole vectors, hold neither NaN nor infinity.
inline bool all_finite(const float* from, ptrdiff_t stride, int rows, int width) {
    // A finite number times zero is zero. Several independent sums hide the latency of additions.
    Vec sums[4] = {};
    int r = 0;
    for (; r + 4 <= rows; r += 4, from += 4 * stride)
        for (int c = 0; c < width; c += kLanes)
            for (int i = 0; i < 4; ++i) sums[i] += load(from + i * stride + c) * Vec{};
    for (; r < rows; ++r, from += stride)
        for (int c = 0; c < width; c += kLanes) sums[0] += load(from + c) * Vec{};
    return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])) == 0.0f;
}

// One bit for each lane of `a` above that of `b`; NaN is above nothing.
LARES_INLINE uint32_t lanes_above(Vec a, Vec b) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_GT_OQ)));
#elif defined(LARES_NEON)
    return vaddvq_u32((uint32x4_t)((UVec)(a > b) & lane_bits()));
#else
    uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits |= uint32_t(a[i] > b[i]) << i;
    return bits;
#endif
}

// Lanes `first .. ` of a row's last vector that lie within `width` columns.
LARES_INLINE IVec lanes_below(int count) { return lane_numbers() < broadcast(int32_t(count)); }

// Exchanges blocks of kHalf lanes between rows kHalf apart, then of half as many, down to one lane.
template <int kHalf>
LARES_INLINE void exchange_lanes(Vec (&r)[kLanes]) {
    if constexpr (kHalf > 0) {
        constexpr typename IndicesBelow<kLanes>::Type lanes{};
        for (int i = 0; i < kLanes; ++i) {
            if (i & kHalf) continue;
            const Vec a = r[i], b = r[i + kHalf];
            r[i] = shuffle(
                a, b, [](int n) constexpr { return n & kHalf ? kLanes + n - kHalf : n; }, lanes);
            r[i + kHalf] = shuffle(
                a, b, [](int n) constexpr { return n & kHalf ? kLanes + n : n + kHalf; }, lanes);
        }
        exchange_lanes<kHalf / 2>(r);
    }
}

// dst[c][r] = src[r][c] for one kLanes x kLanes block.
LARES_INLINE void transpose_block(const float* src, ptrdiff_t src_stride, float* dst,
                                  ptrdiff_t dst_stride) {
    Vec r[kLanes];
    for (int i = 0; i < kLanes; ++i) r[i] = load(src + i * src_stride);
    exchange_lanes<kLanes / 2>(r);
    for (int i = 0; i < kLanes; ++i) store(dst + i * dst_stride, r[i]);
}

constexpr int round_up(int n, int to) { return (n + to - 1) / to * to; }

}  // namespace lares::LARES_ISA
