// Mixing along a window of L rows: circular convolution (FMLP-Rec's filter) and a low band
// (BSARec).
//
// Windows are row-major (L, dp), so that vectors run over columns and every product along L is a
// product of a small matrix with rows. The filter is applied in the form of its kernel: multiplying
// spectra by W is convolving with irfft(W), which takes half the work of two transforms.
#pragma once

#include "simd.hpp"

namespace lares::LARES_ISA {

constexpr int kMixRows = 8;  // rows of a block: as many independent sums as hide the latency

// Calls run(Constant<M>, row) for blocks of at most kMixRows rows that cover
// `first` .. `first + count - 1`, all of nearly equal height.
template <class Run>
LARES_INLINE void for_row_blocks(int first, int count, const Run& run) {
    const int blocks = (count + kMixRows - 1) / kMixRows;
    for (int i = 0, row = first; i < blocks; ++i) {
        const int height = (first + count - row + blocks - i - 1) / (blocks - i);
        switch (height) {
#define LARES_CASE(M)            \
    case M:                      \
        run(Constant<M>{}, row); \
        break;
            LARES_CASE(1)
            LARES_CASE(2)
            LARES_CASE(3)
            LARES_CASE(4)
            LARES_CASE(5)
            LARES_CASE(6)
            LARES_CASE(7)
            LARES_CASE(8)
#undef LARES_CASE
        }
        row += height;
    }
}

// Rows of a window, or of what it is summed over.
struct Span {
    int first, count;
};

// take(a, c, vector) of out[a] = sum over b in `over` of in[b] * twice[L + sign (a - b)], for the
// rows `of`. `twice` (2 L, dp) is a window followed by itself.
template <int kSign, class Take>
inline void circulate(int length, int dp, Span of, Span over, const float* in, const float* twice,
                      const Take& take) {
    const int end = over.first + over.count;
    for (int c = 0; c < dp; c += kLanes)
        for_row_blocks(of.first, of.count, [&](auto height, int row) LARES_INLINE_LAMBDA {
            constexpr int kRows = decltype(height)::value;
            Vec sums[kRows];
            for (auto& sum : sums) sum = Vec{};
            for (int b = over.first; b < end; ++b) {
                const Vec x = load(in + ptrdiff_t(b) * dp + c);
                const float* at = twice + ptrdiff_t(length + kSign * (row - b)) * dp + c;
                for (int m = 0; m < kRows; ++m) sums[m] += x * load(at + kSign * m * ptrdiff_t(dp));
            }
            for (int m = 0; m < kRows; ++m) take(row + m, c, sums[m]);
        });
}

// take(a, c, vector) of out[a] = sum over b in `over` of matrix[a a_stride + b b_stride] * in[b].
template <class Take>
inline void small_product(int dp, Span of, Span over, const float* matrix, ptrdiff_t a_stride,
                          ptrdiff_t b_stride, const float* in, const Take& take) {
    const int end = over.first + over.count;
    for (int c = 0; c < dp; c += kLanes)
        for_row_blocks(of.first, of.count, [&](auto height, int row) LARES_INLINE_LAMBDA {
            constexpr int kRows = decltype(height)::value;
            Vec sums[kRows];
            for (auto& sum : sums) sum = Vec{};
            for (int b = over.first; b < end; ++b) {
                const Vec x = load(in + ptrdiff_t(b) * dp + c);
                const float* at = matrix + row * a_stride + b * b_stride;
                for (int m = 0; m < kRows; ++m) sums[m] += x * broadcast(at[m * a_stride]);
            }
            for (int m = 0; m < kRows; ++m) take(row + m, c, sums[m]);
        });
}

// `twice` (2 L, dp) of `window` (L, dp).
inline void double_window(const float* window, int length, int dp, float* twice) {
    const size_t size = size_t(length) * size_t(dp);
    std::memcpy(twice, window, size * sizeof(float));
    std::memcpy(twice + size, window, size * sizeof(float));
}

// cos and sin of 2 pi i / L, i < L.
struct Turns {
    Array<float> cosine, sine;
    explicit Turns(int length) {
        for (int i = 0; i < length; ++i) {
            const double angle = 6.283185307179586476925 * i / length;
            cosine.push_back(float(__builtin_cos(angle)));
            sine.push_back(float(__builtin_sin(angle)));
        }
    }
};

constexpr int frequencies(int length) { return length / 2 + 1; }
// True if frequency k has no mirror image: then its sine is zero.
constexpr bool stands_alone(int k, int length) { return 2 * k % length == 0; }

// Rows of an orthonormal basis of the first `kept` frequencies of L: a cosine each, and a sine.
constexpr int band_rows(int kept, int length) {
    const int k = kept < frequencies(length) ? kept : frequencies(length);
    return 2 * k - 1 - (k > 1 && stands_alone(k - 1, length));
}

// That basis, (band_rows, L).
inline void band_basis(int kept, int length, float* basis) {
    const Turns turns(length);
    for (int k = 0; k < kept && k < frequencies(length); ++k) {
        const bool alone = stands_alone(k, length);
        const float norm = float(__builtin_sqrt((alone ? 1.0 : 2.0) / length));
        for (int i = 0; i < length; ++i)
            basis[i] = norm * turns.cosine[size_t(int64_t(k) * i % length)];
        basis += length;
        if (alone) continue;
        for (int i = 0; i < length; ++i)
            basis[i] = norm * turns.sine[size_t(int64_t(k) * i % length)];
        basis += length;
    }
}

// The convolution kernel (L, dp) of a filter's spectrum (L/2+1, d, 2); zero past d.
inline void filter_kernel(const float* spectrum, int length, int d, int dp, float* kernel) {
    const Turns turns(length);
    std::memset(kernel, 0, size_t(length) * size_t(dp) * sizeof(float));
    Array<float> real{size_t(d)}, imaginary{size_t(d)};
    for (int k = 0; k < frequencies(length); ++k) {
        const float share = (stands_alone(k, length) ? 1.0f : 2.0f) / float(length);
        const float* from = spectrum + ptrdiff_t(k) * d * 2;
        for (int c = 0; c < d; ++c) {
            real[size_t(c)] = share * from[2 * c];
            imaginary[size_t(c)] = share * from[2 * c + 1];
        }
        for (int i = 0; i < length; ++i) {
            const size_t turn = size_t(int64_t(k) * i % length);
            const float cosine = turns.cosine[turn];
            const float sine = stands_alone(k, length) ? 0.0f : turns.sine[turn];
            float* to = kernel + ptrdiff_t(i) * dp;
            for (int c = 0; c < d; ++c)
                to[c] += real[size_t(c)] * cosine - imaginary[size_t(c)] * sine;
        }
    }
}

// Its transpose: the gradient of the spectrum from that of the kernel.
inline void filter_kernel_backward(const float* g_kernel, int length, int d, int dp,
                                   float* g_spectrum) {
    const Turns turns(length);
    Array<float> real{size_t(d)}, imaginary{size_t(d)};
    for (int k = 0; k < frequencies(length); ++k) {
        const bool alone = stands_alone(k, length);
        const float share = (alone ? 1.0f : 2.0f) / float(length);
        fill(real.begin(), real.end(), 0.0f);
        fill(imaginary.begin(), imaginary.end(), 0.0f);
        for (int i = 0; i < length; ++i) {
            const size_t turn = size_t(int64_t(k) * i % length);
            const float cosine = share * turns.cosine[turn];
            const float sine = alone ? 0.0f : share * turns.sine[turn];
            const float* from = g_kernel + ptrdiff_t(i) * dp;
            for (int c = 0; c < d; ++c) {
                real[size_t(c)] += from[c] * cosine;
                imaginary[size_t(c)] -= from[c] * sine;
            }
        }
        float* to = g_spectrum + ptrdiff_t(k) * d * 2;
        for (int c = 0; c < d; ++c) {
            to[2 * c] = real[size_t(c)];
            to[2 * c + 1] = imaginary[size_t(c)];
        }
    }
}

}  // namespace lares::LARES_ISA
