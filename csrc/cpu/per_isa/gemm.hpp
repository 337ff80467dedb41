// product(rows, columns, depth, A, B, take): take(row, column, vector) of A (rows x depth) B (depth
// x columns), where columns is a multiple of kLanes. The functor takes each finished vector, so
// that bias or accumulation cost no further pass. product<true> multiplies what left_columns and
// right_columns made: sums run along the rows of both.
//
// Every functor's type is a product of its own for the compiler: those below serve nearly all.
#pragma once

#if defined(__AMX_BF16__)
#include "gemm_unit.hpp"
#else
#include "gemm_vectors.hpp"
#endif

namespace lares::LARES_ISA {

// to = A B.
struct Store {
    float* to;
    ptrdiff_t stride;
    LARES_INLINE void operator()(int r, int c, Vec v) const { store(to + r * stride + c, v); }
};

// to = A B + plus, a matrix, or (with a stride of 0) a row; it may be `to`.
struct StorePlus {
    float* to;
    ptrdiff_t stride;
    const float* plus;
    ptrdiff_t plus_stride;
    LARES_INLINE void operator()(int r, int c, Vec v) const {
        store(to + r * stride + c, v + load(plus + r * plus_stride + c));
    }
};

LARES_INLINE StorePlus add_to_rows(float* to, ptrdiff_t stride) { return {to, stride, to, stride}; }

// to = A B times, element by element.
struct StoreTimes {
    float* to;
    ptrdiff_t stride;
    const float* times;
    ptrdiff_t times_stride;
    LARES_INLINE void operator()(int r, int c, Vec v) const {
        store(to + r * stride + c, v * load(times + r * times_stride + c));
    }
};

}  // namespace lares::LARES_ISA
