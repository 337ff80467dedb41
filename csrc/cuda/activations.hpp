// Activations of the feed-forward: value(x), and both(x) with the derivative.
#pragma once

#include "math.hpp"

namespace lares::cuda {

struct ValueAndSlope {
    Float value, slope;
};

struct Gelu {
    static LARES_DEVICE Float value(Float x) {
        const Float half = 0.5f * x;
        return multiply_add(half, erf_scaled(x), half);
    }
    static LARES_DEVICE ValueAndSlope both(Float x) {
        const Float cdf = multiply_add(erf_scaled(x), wide(0.5f), wide(0.5f));
        const Float density = 0.3989422804f * exp2(x * x * -0.7213475204f);
        return {x * cdf, multiply_add(x, density, cdf)};
    }
};

struct GeluTanh {
    static LARES_DEVICE Float value(Float x) { return x * gate(x); }
    static LARES_DEVICE ValueAndSlope both(Float x) {
        const Float g = gate(x);
        const Float inner = 0.21406443846f * x * x + 1.5957691216f;
        return {x * g, x * g * (1.0f - g) * inner + g};
    }

  private:
    static LARES_DEVICE Float gate(Float x) {
        return sigmoid(x * (0.07135481282f * x * x + 1.5957691216f));
    }
};

struct Relu {
    static LARES_DEVICE Float value(Float x) { return larger(x, wide(0.0f)); }
    static LARES_DEVICE ValueAndSlope both(Float x) {
        return {larger(x, wide(0.0f)), select(x <= 0.0f, wide(0.0f), wide(1.0f))};
    }
};

struct Silu {
    static LARES_DEVICE Float value(Float x) { return x * sigmoid(x); }
    static LARES_DEVICE ValueAndSlope both(Float x) {
        const Float gate = sigmoid(x);
        return {x * gate, x * gate * (1.0f - gate) + gate};
    }
};

// All of them, each with its number.
#define LARES_EACH_ACTIVATION(APPLY) \
    APPLY(LARES_GELU, Gelu)          \
    APPLY(LARES_GELU_TANH, GeluTanh) \
    APPLY(LARES_RELU, Relu)          \
    APPLY(LARES_SILU, Silu)

constexpr bool has_activation(int activation) {
#define LARES_HAS(NUMBER, ACTIVATION) \
    if (activation == NUMBER) return true;
    LARES_EACH_ACTIVATION(LARES_HAS)
#undef LARES_HAS
    return false;
}

// each(function), with the function that gives a number's activation; which one is known to all
// lanes.
template <class Each>
LARES_DEVICE void activate(int activation, Each each) {
#define LARES_ACTIVATE(NUMBER, ACTIVATION) \
    if (activation == NUMBER) return each([](Float x) { return ACTIVATION::value(x); });
    LARES_EACH_ACTIVATION(LARES_ACTIVATE)
#undef LARES_ACTIVATE
    fault();
}

// The same with the function that gives the derivative, too.
template <class Each>
LARES_DEVICE void activate_with_slope(int activation, Each each) {
#define LARES_ACTIVATE(NUMBER, ACTIVATION) \
    if (activation == NUMBER) return each([](Float x) { return ACTIVATION::both(x); });
    LARES_EACH_ACTIVATION(LARES_ACTIVATE)
#undef LARES_ACTIVATE
    fault();
}

}  // namespace lares::cuda
