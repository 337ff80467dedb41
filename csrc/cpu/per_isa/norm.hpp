// LayerNorm over the rows of a tile, fused with what stands before it: residual sum and dropout.
#pragma once

#include "philox.hpp"

namespace lares::LARES_ISA {

// Dropout decisions of a row's columns: keep_words' output from one block on.
struct ColumnKeep {
    const uint32_t* words = nullptr;  // null: no dropout
    ptrdiff_t stride = 0;
    float scale = 1.0f;

    LARES_INLINE Vec apply(Vec x, int row, int column, UVec bits) const {
        const uint32_t word = words[column / 32 * stride + row] >> (column % 32);
        // A factor of zero, as dropout is defined: NaN that is dropped stays.
        return x * select((broadcast(word) & bits) != UVec{}, broadcast(scale), Vec{});
    }
};

struct NormWeights {
    const float *weight, *bias;
};

struct NormTape {
    float* normalised = nullptr;  // (rows, dp)
    float* rstd = nullptr;        // (rows,)
};

constexpr int kMaxVectors = 512 / kLanes;  // of a row

// Calls body(Constant<NV>) with NV = vectors, or 0 where that is not a common
// count.
template <class Body>
LARES_INLINE void for_width(int vectors, const Body& body) {
    switch (vectors) {
        case 64 / kLanes:
            return body(Constant<64 / kLanes>{});
        case 128 / kLanes:
            return body(Constant<128 / kLanes>{});
        default:
            return body(Constant<0>{});
    }
}

// sum = x + keep(branch); y = LayerNorm(sum). `input(row, column)` gives a vector of the sum.
// `rstd_out` and `normalised` of the tape are optional; `sum_out` (may be null) takes the sum
// itself.
template <class Input>
inline void norm_rows(int rows, int d, int dp, float eps, NormWeights w, const Input& input,
                      float* y, NormTape tape, float* sum_out = nullptr) {
    const float inverse_d = 1.0f / float(d);
    const IVec last = lanes_below(d - (dp - kLanes));
    const bool ragged = d != dp;
    for_width(dp / kLanes, [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        const int vectors = kCount ? kCount : dp / kLanes;
        for (int r = 0; r < rows; ++r) {
            Vec x[kCount ? kCount : kMaxVectors];
            Vec total{};
            for (int v = 0; v < vectors; ++v) {
                x[v] = input(r, v * kLanes);
                total += x[v];
            }
            if (sum_out)
                for (int v = 0; v < vectors; ++v)
                    store(sum_out + ptrdiff_t(r) * dp + v * kLanes, x[v]);
            const Vec mean = broadcast(sum_lanes(total) * inverse_d);
            Vec squares{};
            for (int v = 0; v < vectors; ++v) {
                x[v] -= mean;
                if (ragged && v == vectors - 1) x[v] = select(last, x[v], Vec{});
                squares += x[v] * x[v];
            }
            const float rstd = 1.0f / __builtin_sqrtf(sum_lanes(squares) * inverse_d + eps);
            if (tape.rstd) tape.rstd[r] = rstd;
            for (int v = 0; v < vectors; ++v) {
                const int c = v * kLanes;
                const Vec normalised = x[v] * broadcast(rstd);
                if (tape.normalised) store(tape.normalised + ptrdiff_t(r) * dp + c, normalised);
                store(y + ptrdiff_t(r) * dp + c,
                      normalised * load(w.weight + c) + load(w.bias + c));
            }
        }
    });
}

// Gradient of LayerNorm's input from that of its output; adds the parameters' to g_weight, g_bias.
// take(row, column, vector) gets the result.
template <class Take>
inline void norm_rows_backward(int rows, int d, int dp, const float* weight, NormTape tape,
                               const float* g_y, float* g_weight, float* g_bias, const Take& take) {
    const float inverse_d = 1.0f / float(d);
    const IVec last = lanes_below(d - (dp - kLanes));
    const bool ragged = d != dp;
    for_width(dp / kLanes, [&](auto count) {
        constexpr int kCount = decltype(count)::value;
        const int vectors = kCount ? kCount : dp / kLanes;
        for (int r = 0; r < rows; ++r) {
            Vec g[kCount ? kCount : kMaxVectors], n[kCount ? kCount : kMaxVectors];
            Vec along_mean{}, along_self{};
            for (int v = 0; v < vectors; ++v) {
                const int c = v * kLanes;
                const Vec out = load(g_y + ptrdiff_t(r) * dp + c);
                n[v] = load(tape.normalised + ptrdiff_t(r) * dp + c);
                store(g_weight + c, load(g_weight + c) + out * n[v]);
                store(g_bias + c, load(g_bias + c) + out);
                g[v] = out * load(weight + c);  // zero past d, as the padded weight is
                along_mean += g[v];
                along_self += g[v] * n[v];
            }
            const Vec mean = broadcast(sum_lanes(along_mean) * inverse_d);
            const Vec self = broadcast(sum_lanes(along_self) * inverse_d);
            const Vec rstd = broadcast(tape.rstd[r]);
            for (int v = 0; v < vectors; ++v) {
                Vec out = (g[v] - mean - n[v] * self) * rstd;
                if (ragged && v == vectors - 1) out = select(last, out, Vec{});
                take(r, v * kLanes, out);
            }
        }
    });
}

}  // namespace lares::LARES_ISA
