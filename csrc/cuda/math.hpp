// Elementary functions, and LayerNorm of rows in registers.
#pragma once

#include "core.hpp"

namespace lares::cuda {

// erf(x / sqrt 2) by a minimax polynomial in x^2, odd by construction; absolute error below 1.2e-4,
// so GELU is within 6e-5 max(1, |x|): a fraction of what rounding it to 16 bits does.
LARES_DEVICE Float erf_scaled(Float x) {
    x = smaller(larger(x, wide(-3.75f)), wide(3.75f));
    const Float v = multiply_add(x * x, wide(0.14222222222222222f), wide(-1.0f));
    Float r = multiply_add(v, wide(0.009455240331590176f), wide(-0.024942869320511818f));
    r = multiply_add(r, v, wide(0.0382334403693676f));
    r = multiply_add(r, v, wide(-0.06495349854230881f));
    r = multiply_add(r, v, wide(0.11022226512432098f));
    r = multiply_add(r, v, wide(-0.17548547685146332f));
    r = multiply_add(r, v, wide(0.37412014603614807f));
    return x * r;
}

LARES_DEVICE Float sigmoid(Float x) {
    // e^-x is held below 2^126, where the quotient is 0 in effect.
    return inverse(1.0f + exp2(smaller(x * -1.4426950408889634f, wide(126.0f))));
}

constexpr bool has_adapter(int adapter) {
    return adapter == LARES_ADAPTER_ADD || adapter == LARES_ADAPTER_GATE ||
           adapter == LARES_ADAPTER_CONCAT || adapter == LARES_ADAPTER_NONE;
}

// The state's share in an adapter that is a mean; `gate` is where its parameter lies.
LARES_DEVICE float state_share(int adapter, const float* gate) {
    if (adapter == LARES_ADAPTER_ADD) return 0.5f;
    if (adapter != LARES_ADAPTER_GATE) fault();
    return 1.0f / (1.0f + expf(-*gate));
}

// Rows with mean 0 and variance 1, in place; their inverse deviations in `inverse`.
template <class S>
LARES_DEVICE void normalise(Rows<S>& x, float eps, Float (&inverse)[2]) {
    constexpr float kShare = 1.0f / S::kWidth;
    Float upper{}, lower{};
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        upper += x[j][0] + x[j][1];
        lower += x[j][2] + x[j][3];
    }
    upper = quad_sum(upper) * kShare;
    lower = quad_sum(lower) * kShare;
    Float upper_square{}, lower_square{};
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int e = 0; e < 2; ++e) {
            x[j][e] = x[j][e] - upper;
            x[j][2 + e] = x[j][2 + e] - lower;
            upper_square = multiply_add(x[j][e], x[j][e], upper_square);
            lower_square = multiply_add(x[j][2 + e], x[j][2 + e], lower_square);
        }
    }
    upper = inverse_root(multiply_add(quad_sum(upper_square), wide(kShare), wide(eps)));
    lower = inverse_root(multiply_add(quad_sum(lower_square), wide(kShare), wide(eps)));
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        x[j][0] = x[j][0] * upper;
        x[j][1] = x[j][1] * upper;
        x[j][2] = x[j][2] * lower;
        x[j][3] = x[j][3] * lower;
    }
    inverse[0] = upper;
    inverse[1] = lower;
}

// First of the two columns of block 0 that a lane holds.
LARES_DEVICE Int first_column() { return 2 * (lane_number() & 3); }

// LayerNorm in place; `parameters` holds its weight, then its bias.
template <class S>
LARES_DEVICE void layer_norm(Rows<S>& x, const float* parameters, float eps) {
    Float inverse[2];
    normalise<S>(x, eps, inverse);
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        Float w0, w1, b0, b1;
        load_pair(w0, w1, parameters, first_column() + 8 * j);
        load_pair(b0, b1, parameters, first_column() + (S::kWidth + 8 * j));
        x[j][0] = multiply_add(x[j][0], w0, b0);
        x[j][1] = multiply_add(x[j][1], w1, b1);
        x[j][2] = multiply_add(x[j][2], w0, b0);
        x[j][3] = multiply_add(x[j][3], w1, b1);
    }
}

// Moves all blocks one place on, the last of which is to be filled: how a loop that is not unrolled
// fills rows, since registers have no index.
template <class S>
LARES_DEVICE Float (&next_block(Rows<S>& x))[4] {
    LARES_UNROLL
    for (int j = 0; j + 1 < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) x[j][i] = x[j + 1][i];
    }
    return x[S::kBlocks - 1];
}

template <class S>
LARES_DEVICE void clear(Rows<S>& x) {
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) x[j][i] = wide(0.0f);
    }
}

template <class S>
LARES_DEVICE void add(Rows<S>& x, const Rows<S>& y) {
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) x[j][i] = x[j][i] + y[j][i];
    }
}

// Sum of what a lane holds of x times y.
template <class S>
LARES_DEVICE Float dot(const Rows<S>& x, const Rows<S>& y) {
    Float sum{};
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) sum = multiply_add(x[j][i], y[j][i], sum);
    }
    return sum;
}

// Add a vector of the width to every row.
template <class S>
LARES_DEVICE void add_bias(Rows<S>& x, const float* bias) {
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        Float b0, b1;
        load_pair(b0, b1, bias, first_column() + 8 * j);
        x[j][0] = x[j][0] + b0;
        x[j][1] = x[j][1] + b1;
        x[j][2] = x[j][2] + b0;
        x[j][3] = x[j][3] + b1;
    }
}

}  // namespace lares::cuda
