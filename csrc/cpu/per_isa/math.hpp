// Elementary functions in float32, each with its error bound. Of NaN, whatever its bits, all of
// them make NaN.
//
// Polynomials are minimax fits (Lawson's iteration on Chebyshev nodes, in float64); bounds are of
// the float32 evaluation, measured over a dense grid by tests/kernels/cpu/test_cpu_math.py.
#pragma once

#include "simd.hpp"

namespace lares::LARES_ISA {

// c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule.
template <int N>
LARES_INLINE Vec horner(const float (&c)[N], Vec x) {
    Vec r = broadcast(c[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; --i) r = r * x + broadcast(c[i]);
    return r;
}

// The same for long ones, even and odd powers apart: of Horner's long chains of dependent steps a
// processor can hold too few at a time to fill its multipliers.
template <int N>
LARES_INLINE Vec polynomial(const float (&c)[N], Vec x) {
    const Vec x2 = x * x;
    Vec even = broadcast(c[(N - 1) / 2 * 2]), odd = broadcast(c[N / 2 * 2 - 1]);
#pragma GCC unroll 16
    for (int i = (N - 1) / 2 * 2 - 2; i >= 0; i -= 2) even = even * x2 + broadcast(c[i]);
#pragma GCC unroll 16
    for (int i = N / 2 * 2 - 3; i >= 0; i -= 2) odd = odd * x2 + broadcast(c[i]);
    return odd * x + even;
}

// e^x for x <= 88, relative error below 2.5e-7; 0 in effect (1e-38) for x below -87.3. Above 88 any
// number, of infinity NaN.
LARES_INLINE Vec exp(Vec x) {
    constexpr float c[] = {1.0000001192092896f,  0.9999996423721313f,  0.49998897314071655f,
                           0.16667574644088745f, 0.04191537946462631f, 0.008297654800117016f};
    // ln 2 in two parts: products of the first with small whole numbers are exact.
    constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    // 1.5 * 2^23: adding it leaves the nearest whole number, in the lowest bits; and there 127 more,
    // the exponent of 1.
    constexpr float kRound = 12582912.0f + 127.0f;
    x = max(broadcast(-87.3f), x);
    const Vec rounded = x * broadcast(kLog2E) + broadcast(kRound);
    const Vec whole = rounded - broadcast(kRound);
    const Vec part = (x - whole * broadcast(kLn2High)) - whole * broadcast(kLn2Low);
    // A product, which NaN survives: what is added to its bits may make a number of it.
    return horner(c, part) * bits_as<Vec>(bits_as<UVec>(rounded) << 23);
}

// ln x for normal x > 0, relative error below 2e-7.
LARES_INLINE Vec log(Vec x) {
    constexpr float c[] = {0.33333298563957214f,  -0.25000008940696716f, 0.20002862811088562f,
                           -0.16668537259101868f, 0.142069473862648f,    -0.1238948404788971f,
                           0.1195584312081337f,   -0.1179129034280777f,  0.0674508810043335f};
    constexpr int32_t kSqrtHalf = 0x3f3504f3;
    constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
    const IVec bits = bits_as<IVec>(x);
    const IVec exponent = (bits - broadcast(kSqrtHalf)) >> 23;
    const Vec mantissa = bits_as<Vec>(bits - (exponent << 23));  // in [sqrt 1/2, sqrt 2)
    const Vec e = __builtin_convertvector(exponent, Vec);
    const Vec t = mantissa - broadcast(1.0f);
    const Vec t2 = t * t;
    const Vec tail = t2 * t * polynomial(c, t) + e * broadcast(kLn2Low);
    return e * broadcast(kLn2High) + (t + (tail - broadcast(0.5f) * t2));
}

// erf(x / sqrt 2), absolute error below 8e-7.
LARES_INLINE Vec erf_scaled(Vec x) {
    constexpr float kEnd = 5.0f;  // beyond, 1 - |erf| < 6e-7
    constexpr float c[] = {0.28272756934165955f,   -0.14059272408485413f,  0.10304135084152222f,
                           -0.08088092505931854f,  0.06287840753793716f,   -0.04656822979450226f,
                           0.032842252403497696f,  -0.02223985828459263f,  0.012718775309622288f,
                           -0.005480549763888121f, 0.0035669589415192604f, -0.0031783352605998516f,
                           0.0011652448447421193f};
    x = min(broadcast(kEnd), max(broadcast(-kEnd), x));
    const Vec v = x * x * broadcast(2.0f / (kEnd * kEnd)) - broadcast(1.0f);
    return x * polynomial(c, v);
}

LARES_INLINE Vec sigmoid(Vec x) {
    // 1 / (1 + e^-x); e^-x is held below e^87, where the quotient is 0 in effect.
    return broadcast(1.0f) / (broadcast(1.0f) + exp(min(broadcast(87.0f), -x)));
}

}  // namespace lares::LARES_ISA
