// Products of a tile's rows with packed weights. What one product gives is, packed to 16 bits, the
// operand of the next: sums never leave registers.
#pragma once

#include "math.hpp"

namespace lares::cuda {

// Fragments of weights, in shared memory or read from the nearest cache every time.
template <bool Shared>
struct Fragments {
    const unsigned char* base;

    LARES_DEVICE void load(Word (&to)[4], int index) const {
        if constexpr (Shared)
            load_shared(to, base + index * kFragment);
        else
            load_fragment(to, base + index * kFragment);
    }
    LARES_DEVICE Fragments from(int index) const { return {base + index * kFragment}; }
};

// Sixteen columns of sums: as in mma, the first eight, then the others.
struct Sums {
    Float c[2][4] = {};
};

// sums += a b, b a fragment.
template <class T>
LARES_DEVICE void add_product(Sums& sums, const Word (&a)[4], const Word (&b)[4]) {
    mma<T>(sums.c[0], a[0], a[1], a[2], a[3], b[0], b[1]);
    mma<T>(sums.c[1], a[0], a[1], a[2], a[3], b[2], b[3]);
}

// Sums that start with a bias of 16 numbers, one a column.
LARES_DEVICE Sums column_bias(const float* bias) {
    Sums s;
    const Int column = first_column();
    LARES_UNROLL
    for (int half = 0; half < 2; ++half) {
        load_pair(s.c[half][0], s.c[half][1], bias, column + 8 * half);
        s.c[half][2] = s.c[half][0];
        s.c[half][3] = s.c[half][1];
    }
    return s;
}

// Sixteen outputs: sums += a W^T, W's fragments from `first`.
template <class S, class W>
LARES_DEVICE void add_product(Sums& sums, const Operand<S>& a, const W& weights, int first) {
    LARES_UNROLL
    for (int k = 0; k < S::kChunks; ++k) {
        Word b[4];
        weights.load(b, first + k);
        add_product<typename S::Type>(sums, a[k], b);
    }
}

// The sums as first operand.
template <class T>
LARES_DEVICE void pack_operand(Word (&a)[4], const Sums& s) {
    a[0] = pack<T>(s.c[0][0], s.c[0][1]);
    a[1] = pack<T>(s.c[0][2], s.c[0][3]);
    a[2] = pack<T>(s.c[1][0], s.c[1][1]);
    a[3] = pack<T>(s.c[1][2], s.c[1][3]);
}

// The sums, rows and columns exchanged, as second operand.
template <class T>
LARES_DEVICE void pack_transposed(Word (&b)[4], const Sums& s) {
    b[0] = pack<T>(s.c[0][0], s.c[0][1]);
    b[1] = pack<T>(s.c[1][0], s.c[1][1]);
    b[2] = pack<T>(s.c[0][2], s.c[0][3]);
    b[3] = pack<T>(s.c[1][2], s.c[1][3]);
}

// A tile's rows as operand.
template <class S>
LARES_DEVICE void pack_rows(Operand<S>& a, const Rows<S>& x) {
    using T = typename S::Type;
    LARES_UNROLL
    for (int k = 0; k < S::kChunks; ++k) {
        a[k][0] = pack<T>(x[2 * k][0], x[2 * k][1]);
        a[k][1] = pack<T>(x[2 * k][2], x[2 * k][3]);
        a[k][2] = pack<T>(x[2 * k + 1][0], x[2 * k + 1][1]);
        a[k][3] = pack<T>(x[2 * k + 1][2], x[2 * k + 1][3]);
    }
}

// All outputs of sixteen inputs: acc += a W^T, W's fragments from `first`, one for 16 outputs.
template <class S, class W>
LARES_DEVICE void add_to_rows(Rows<S>& acc, const Word (&a)[4], const W& weights, int first) {
    using T = typename S::Type;
    LARES_UNROLL
    for (int n = 0; n < S::kChunks; ++n) {
        Word b[4];
        weights.load(b, first + n);
        mma<T>(acc[2 * n], a[0], a[1], a[2], a[3], b[0], b[1]);
        mma<T>(acc[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
}

// --- with W itself instead of its transpose, for backward ---

// A fragment with rows and columns exchanged.
LARES_DEVICE void transpose(Word (&b)[4]) {
    const Word middle = transpose(b[1]);
    b[0] = transpose(b[0]);
    b[1] = transpose(b[2]);
    b[2] = middle;
    b[3] = transpose(b[3]);
}

// Sixteen inputs: sums += a W, W's fragments from `first`, one for 16 outputs.
template <class S, class W>
LARES_DEVICE void add_product_back(Sums& sums, const Operand<S>& a, const W& weights, int first) {
    LARES_UNROLL
    for (int k = 0; k < S::kChunks; ++k) {
        Word b[4];
        weights.load(b, first + k);
        transpose(b);
        add_product<typename S::Type>(sums, a[k], b);
    }
}

// All inputs of sixteen outputs: acc += a W, W's fragments from `first`, one for 16 inputs.
template <class S, class W>
LARES_DEVICE void add_to_rows_back(Rows<S>& acc, const Word (&a)[4], const W& weights, int first) {
    using T = typename S::Type;
    LARES_UNROLL
    for (int n = 0; n < S::kChunks; ++n) {
        Word b[4];
        weights.load(b, first + n);
        transpose(b);
        mma<T>(acc[2 * n], a[0], a[1], a[2], a[3], b[0], b[1]);
        mma<T>(acc[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
}

// Each quarter of an operand with rows and columns exchanged, as add_outer() takes it.
LARES_DEVICE void transpose_quarters(Word (&a)[4]) {
    LARES_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = transpose(a[i]);
}

// sums (columns of a x columns of b) += a^T b, of operands of 16 rows whose quarters are
// transposed.
template <class T>
LARES_DEVICE void add_outer(Sums& sums, const Word (&a)[4], const Word (&b)[4]) {
    mma<T>(sums.c[0], a[0], a[2], a[1], a[3], b[0], b[1]);
    mma<T>(sums.c[1], a[0], a[2], a[1], a[3], b[2], b[3]);
}

}  // namespace lares::cuda
