// Activations of the feed-forward: value(x), and both(x) with the derivative. Of NaN all of them
// make NaN.
#pragma once

#include "math.hpp"

namespace lares::LARES_ISA {

struct ValueAndSlope {
    Vec value, slope;
};

// x Phi(x); absolute error below 4e-7 max(1, |x|).
struct Gelu {
    static LARES_INLINE Vec value(Vec x) {
        const Vec half = broadcast(0.5f) * x;
        return half * erf_scaled(x) + half;
    }
    static LARES_INLINE ValueAndSlope both(Vec x) {
        const Vec cdf = broadcast(0.5f) * erf_scaled(x) + broadcast(0.5f);
        const Vec density = broadcast(0.3989422804f) * exp(broadcast(-0.5f) * x * x);
        return {x * cdf, x * density + cdf};
    }
};

// x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form, as tanh u = 2 sigmoid(2 u) - 1.
struct GeluTanh {
    static LARES_INLINE Vec value(Vec x) { return x * gate(x); }
    static LARES_INLINE ValueAndSlope both(Vec x) {
        const Vec g = gate(x);
        const Vec inner = broadcast(3.0f * kCubic) * x * x + broadcast(kLinear);
        return {x * g, x * g * (broadcast(1.0f) - g) * inner + g};
    }

  private:
    static constexpr float kLinear = 1.5957691216f, kCubic = kLinear * 0.044715f;
    static LARES_INLINE Vec gate(Vec x) {
        return sigmoid(x * (broadcast(kCubic) * x * x + broadcast(kLinear)));
    }
};

struct Relu {
    static LARES_INLINE Vec value(Vec x) { return max(Vec{}, x); }
    static LARES_INLINE ValueAndSlope both(Vec x) {
        return {max(Vec{}, x), select(x > Vec{}, broadcast(1.0f), Vec{})};
    }
};

struct Silu {
    static LARES_INLINE Vec value(Vec x) { return x * sigmoid(x); }
    static LARES_INLINE ValueAndSlope both(Vec x) {
        const Vec g = sigmoid(x);
        return {x * g, x * g * (broadcast(1.0f) - g) + g};
    }
};

// Calls body(Gelu{}), or with whichever activation has that number; false: none has code.
template <class Body>
LARES_INLINE bool with_activation(int64_t activation, const Body& body) {
    switch (activation) {
        case LARES_GELU:
            body(Gelu{});
            return true;
        case LARES_GELU_TANH:
            body(GeluTanh{});
            return true;
        case LARES_RELU:
            body(Relu{});
            return true;
        case LARES_SILU:
            body(Silu{});
            return true;
    }
    return false;
}

inline bool has_activation(int64_t activation) {
    return with_activation(activation, [](auto) {});
}

}  // namespace lares::LARES_ISA
