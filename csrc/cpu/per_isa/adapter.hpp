// The adapter, which puts state and hidden rows together, with the LayerNorm after it.
#pragma once

#include "layer_space.hpp"

namespace lares::LARES_ISA {

inline bool has_adapter(int64_t adapter) {
    switch (adapter) {
        case LARES_ADAPTER_ADD:
        case LARES_ADAPTER_GATE:
        case LARES_ADAPTER_CONCAT:
        case LARES_ADAPTER_NONE:
            return true;
    }
    return false;
}

// The state's share in an adapter that is a mean.
inline float state_share(const Shape& s, const Weights& w) {
    switch (s.adapter) {
        case LARES_ADAPTER_ADD:
            return 0.5f;
        case LARES_ADAPTER_GATE:
            return w.gate;
    }
    no_such_choice();
}

// Buffers of the adapter, and what it saves for its backward.
struct AdapterSpace {
    float *hidden, *state;  // (rows, dp)
    float* sum;             // of the concat adapter
    NormTape norm;
    OperandRoom room;

    AdapterSpace(const TileSizes& z, const OperandRoom& shared, Arena& arena) : room(shared) {
        hidden = arena.take<float>(z.act);
        state = arena.take<float>(z.act);
        sum = arena.take<float>(z.act);
    }
};

// x = LayerNorm_core(adapter(state, hidden)), (rows, dp); it may be the state.
inline void adapt(const Core& core, int rows, const AdapterSpace& a, float* x) {
    const Shape& s = core.shape;
    const Weights& w = core.weights;
    const float *state = a.state, *hidden = a.hidden;
    float* sum = a.sum;
    const int dp = s.dp;
    const NormWeights norm{w[kCoreNormWeight], w[kCoreNormBias]};
    const auto at = [dp](int r, int c) { return ptrdiff_t(r) * dp + c; };
    if (s.adapter == LARES_ADAPTER_CONCAT) {
        product(rows, dp, s.d, left_rows(state, dp, rows, s.d, a.room.rows[0]),
                packed_panels(w.concat, 2 * s.d), StorePlus{sum, dp, w[kConcatBias], 0});
        product(rows, dp, s.d, left_rows(hidden, dp, rows, s.d, a.room.rows[0]),
                packed_panels(w.concat, 2 * s.d, s.d), add_to_rows(sum, dp));
        norm_rows(
            rows, s.d, dp, s.eps, norm,
            [&](int r, int c) LARES_INLINE_LAMBDA { return load(sum + at(r, c)); }, x, a.norm);
        return;
    }
    const float share = state_share(s, w);
    const Vec of_state = broadcast(share), of_hidden = broadcast(1.0f - share);
    norm_rows(
        rows, s.d, dp, s.eps, norm,
        [&](int r, int c) LARES_INLINE_LAMBDA {
            return load(state + at(r, c)) * of_state + load(hidden + at(r, c)) * of_hidden;
        },
        x, a.norm);
}

// Gradients of what `adapt` put together. g: in, that of x; out, the state's; g_hidden is added to;
// g_x is scratch.
inline void adapt_backward(const Core& core, int rows, const AdapterSpace& a, float* g, float* g_x,
                           float* g_hidden, const GradientLayout& layout, float* grads) {
    const Shape& s = core.shape;
    const Weights& w = core.weights;
    const float *state = a.state, *hidden = a.hidden;
    const int dp = s.dp;
    norm_rows_backward(rows, s.d, dp, w[kCoreNormWeight], a.norm, g,
                       layout.at(grads, kCoreNormWeight), layout.at(grads, kCoreNormBias),
                       [&](int r, int c, Vec v)
                           LARES_INLINE_LAMBDA { store(g_x + ptrdiff_t(r) * dp + c, v); });
    const ptrdiff_t size = ptrdiff_t(rows) * dp;
    if (s.adapter == LARES_ADAPTER_CONCAT) {
        float* g_weight = layout.at(grads, kConcatWeight);
        float* g_bias = layout.at(grads, kConcatBias);
        for (int half = 0; half < 2; ++half)
            product<true>(
                s.d, dp, rows, left_columns(g_x, dp, rows, s.d, a.room.columns[0]),
                panels_of(right_columns(half ? hidden : state, dp, rows, dp, a.room.columns[1])),
                add_to_rows(g_weight + half * dp, 2 * dp));
        for (ptrdiff_t i = 0; i < size; i += kLanes) add_to(g_bias + i % dp, load(g_x + i));
        product(rows, 2 * dp, s.d, left_rows(g_x, dp, rows, s.d, a.room.rows[0]),
                packed_panels(w.concat_back, s.d), [&](int r, int c, Vec v) {
                    if (c < dp)
                        store(g + ptrdiff_t(r) * dp + c, v);
                    else
                        add_to(g_hidden + ptrdiff_t(r) * dp + c - dp, v);
                });
        return;
    }
    const float share = state_share(s, w);
    if (s.adapter == LARES_ADAPTER_GATE) {
        float* g_gate = layout.at(grads, kGate);
        Vec sum{};
        for (ptrdiff_t i = 0; i < size; i += kLanes)
            sum += load(g_x + i) * (load(state + i) - load(hidden + i));
        *g_gate += sum_lanes(sum) * w.gate * (1.0f - w.gate);
    }
    for (ptrdiff_t i = 0; i < size; i += kLanes) {
        const Vec v = load(g_x + i);
        store(g + i, v * broadcast(share));
        add_to(g_hidden + i, v * broadcast(1.0f - share));
    }
}

}  // namespace lares::LARES_ISA
