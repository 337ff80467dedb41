// The numbers that matrix products multiply: float32, or pairs of bfloat16 in the builds for
// processors that multiply these.
//
// A build has one kind of operand, as it has one width of vector. Sums are float32 in either.
#pragma once

#include "matrix_unit.hpp"

#if defined(__AVX512BF16__) || defined(LARES_NEON_BF16)
#define LARES_BF16_PAIRS 1
#endif

namespace lares::LARES_ISA {

#if defined(LARES_BF16_PAIRS)
// Two bfloat16 that follow each other along the sum; the first in the low half.
typedef uint32_t Operand;
typedef UVec OperandVec;
constexpr int kFold = 2;  // numbers of a sum in one operand
constexpr bool kBf16 = true;
#else
typedef float Operand;
typedef Vec OperandVec;
constexpr int kFold = 1;
constexpr bool kBf16 = false;
#endif

constexpr int folds(int depth) { return (depth + kFold - 1) / kFold; }

LARES_INLINE Vec multiply_add(OperandVec a, OperandVec b, Vec sum) {
#if defined(__AVX512BF16__)
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#elif defined(LARES_NEON_BF16)
    return (Vec)vbfdotq_f32((float32x4_t)sum, vreinterpretq_bf16_u32((uint32x4_t)a),
                            vreinterpretq_bf16_u32((uint32x4_t)b));
#else
    return sum + a * b;
#endif
}

// A matrix as the left side of a product: (rows, depth / kFold), or transposed (depth / kFold,
// columns), which the matrix unit reads like the first.
struct Left {
    const Operand* data;
    ptrdiff_t stride;
};

#if defined(LARES_BF16_PAIRS)

// The numbers of `first` and `second`, rounded to nearest even, one after the other.
LARES_INLINE UVec rounded(Vec first, Vec second) {
#if defined(__AVX512BF16__)
    return (UVec)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
#else
    const bfloat16x8_t low = vcvtq_low_bf16_f32((float32x4_t)first);
    return (UVec)vreinterpretq_u32_bf16(vcvtq_high_bf16_f32(low, (float32x4_t)second));
#endif
}

#if defined(__AVX512BF16__)
struct PairTable {
    alignas(64) uint16_t from[32];  // 0, 16, 1, 17, ...
    constexpr PairTable() : from() {
        for (int i = 0; i < 32; ++i) from[i] = uint16_t(i / 2 + i % 2 * 16);
    }
};
inline constexpr PairTable kPairTable;
#endif

// Lane i: number i of `low` and number i of `high`.
LARES_INLINE UVec pairs(Vec low, Vec high) {
#if defined(__AVX512BF16__)
    const __m512i order = _mm512_load_si512(kPairTable.from);
    return (UVec)_mm512_permutexvar_epi16(order, (__m512i)rounded(low, high));
#else
    const uint16x8_t both = vreinterpretq_u16_u32((uint32x4_t)rounded(low, high));
    return (UVec)vreinterpretq_u32_u16(vzip1q_u16(both, vextq_u16(both, both, 4)));
#endif
}

// Rows that a sum along rows is filled up to: whole steps of the matrix unit.
constexpr int summed_rows(int rows) { return round_up(rows, kMatrixUnit ? 2 * kLanes : kFold); }

// Room for either form of a matrix, in operands; both write whole vectors. The matrix unit reads
// whole registers from any row on.
constexpr size_t row_operands(int rows, int depth) {
    return size_t(rows + (kMatrixUnit ? kLanes - 1 : 0)) * size_t(round_up(depth, 2 * kLanes) / 2);
}
constexpr size_t column_operands(int rows, int columns) {
    return size_t(summed_rows(rows) / kFold) * size_t(round_up(columns, kLanes));
}

// Packs a row-major matrix (rows, depth) that is summed along depth. Reads whole pairs of
// vectors.
inline Left left_rows(const float* from, ptrdiff_t stride, int rows, int depth, Operand* room) {
    const ptrdiff_t width = round_up(depth, 2 * kLanes) / 2;
    for (int r = 0; r < rows; ++r) {
        const float* row = from + r * stride;
        Operand* to = room + r * width;
        for (int c = 0; c < width; c += kLanes)
            store(to + c, rounded(load(row + 2 * c), load(row + 2 * c + kLanes)));
    }
    return {room, width};
}

// Packs a row-major matrix (rows, columns) that is summed along its rows: pairs of rows.
inline Left by_columns(const float* from, ptrdiff_t stride, int rows, int columns, Operand* room) {
    const ptrdiff_t width = round_up(columns, kLanes);
    for (int r = 0; r < rows; r += 2) {
        const float* row = from + r * stride;
        Operand* to = room + r / 2 * width;
        if (r + 1 < rows) {
            for (int c = 0; c < width; c += kLanes)
                store(to + c, pairs(load(row + c), load(row + stride + c)));
        } else {
            for (int c = 0; c < width; c += kLanes) store(to + c, pairs(load(row + c), Vec{}));
        }
    }
    return {room, width};
}

// The same as the right side of a product with left_columns.
inline Left right_columns(const float* from, ptrdiff_t stride, int rows, int columns,
                          Operand* room) {
    const Left made = by_columns(from, stride, rows, columns, room);
    const ptrdiff_t filled = folds(rows), whole = summed_rows(rows) / kFold;
    std::memset(room + filled * made.stride, 0,
                size_t((whole - filled) * made.stride) * sizeof(Operand));
    return made;
}

// The same as the left side of product<true>.
inline Left left_columns(const float* from, ptrdiff_t stride, int rows, int columns,
                         Operand* room) {
    if constexpr (!kMatrixUnit) return by_columns(from, stride, rows, columns, room);
    const ptrdiff_t width = summed_rows(rows) / kFold;
    for (int c = 0; c < columns; c += kLanes)
        for (int r = 0; r < rows; r += 2 * kLanes) {
            Vec block[kLanes];  // of pairs
            for (int i = 0; i < kLanes; ++i) {
                const int row = r + 2 * i;
                const float* at = from + row * stride + c;
                const Vec low = row < rows ? load(at) : Vec{};
                const Vec high = row + 1 < rows ? load(at + stride) : Vec{};
                block[i] = bits_as<Vec>(pairs(low, high));
            }
            exchange_lanes<kLanes / 2>(block);
            for (int i = 0; i < kLanes; ++i)
                store(room + (c + i) * width + r / 2, bits_as<UVec>(block[i]));
        }
    return {room, width};
}

#else

constexpr size_t row_operands(int, int) { return 0; }
constexpr size_t column_operands(int, int) { return 0; }

LARES_INLINE Left left_rows(const float* from, ptrdiff_t stride, int, int, Operand*) {
    return {from, stride};
}

LARES_INLINE Left by_columns(const float* from, ptrdiff_t stride, int, int, Operand*) {
    return {from, stride};
}

LARES_INLINE Left left_columns(const float* from, ptrdiff_t stride, int, int, Operand*) {
    return {from, stride};
}

LARES_INLINE Left right_columns(const float* from, ptrdiff_t stride, int, int, Operand*) {
    return {from, stride};
}

#endif

}  // namespace lares::LARES_ISA
