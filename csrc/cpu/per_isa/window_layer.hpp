// FMLP-Rec's layer, which filters the whole window, and the layer of any core.
//
// u = LN(x + keep(irfft(rfft(x) W))), y = LN(u + keep(FeedForward(u))).
//
// A tile's rows are whole windows of L rows, padding too.
#pragma once

#include "layer.hpp"

namespace lares::LARES_ISA {

// As layer_forward.
inline void filter_layer_forward(const Core& core, int layer, int step, const Rows& rows,
                                 const LiveRows& live, LayerSpace& t, const float* x, float* y,
                                 bool finish) {
    const Shape& s = core.shape;
    const LayerWeights& w = core.weights.layers[size_t(layer)];
    const int dp = s.dp, length = s.window;
    const LayerKeep keep = draw_layer_keep(core, layer, step, rows, live, t);
    const float* residual = x;
    if (live.map) {
        gather_rows(x, live, dp, t.residual);
        residual = t.residual;
    }
    for_live_spans(live, length, [&](int window, Span span, int first) {
        circulate<1>(length, dp, span, {0, length}, x + ptrdiff_t(window) * length * dp, w.filter,
                     [&](int a, int c, Vec v) LARES_INLINE_LAMBDA {
                         store(t.branch + ptrdiff_t(first + a - span.first) * dp + c, v);
                     });
    });
    norm_rows(live.count, s.d, dp, s.eps, {w[kFilterNormWeight], w[kFilterNormBias]},
              BranchSum{residual, t.branch, dp, keep.attention}, t.u, t.filter_norm);
    feed_forward(s, w, live.count, t.ffn_in, t, finish);
    if (finish)
        norm_rows(live.count, s.d, dp, s.eps, {w[kFfnNormWeight], w[kFfnNormBias]},
                  BranchSum{t.u, t.branch, dp, keep.feed_forward}, y, t.ffn_norm);
}

// As layer_backward.
inline void filter_layer_backward(const Core& core, int layer, const Rows& rows,
                                  const LiveRows& live, const LayerSpace& t, const float* x,
                                  float* g, const BackwardSpace& b, const LayerGradients& grads) {
    const Shape& s = core.shape;
    const LayerWeights& w = core.weights.layers[size_t(layer)];
    const int dp = s.dp, length = s.window;
    const LayerKeep keep = layer_keep(s, t);
    const UVec bits = lane_bits();
    norm_rows_backward(live.count, s.d, dp, w[kFfnNormWeight], t.ffn_norm, g, grads[kFfnNormWeight],
                       grads[kFfnNormBias], [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                           store(b.g_sum + ptrdiff_t(r) * dp + c, v);
                           if (keep.feed_forward.words) v = keep.feed_forward.apply(v, r, c, bits);
                           store(b.g_branch + ptrdiff_t(r) * dp + c, v);
                           add_to(grads[kDownBias] + c, v);
                       });
    feed_forward_backward(s, w, live.count, t, b, b.g_sum, true, grads);
    // g becomes the residual's part of all rows, b.g_branch the gradient of the live filtered ones.
    const size_t all = size_t(rows.count) * size_t(dp) * sizeof(float);
    if (live.map) std::memset(g, 0, all);
    norm_rows_backward(live.count, s.d, dp, w[kFilterNormWeight], t.filter_norm, b.g_sum,
                       grads[kFilterNormWeight], grads[kFilterNormBias],
                       [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                           store(g + ptrdiff_t(live.map ? live.map[r] : r) * dp + c, v);
                           if (keep.attention.words) v = keep.attention.apply(v, r, c, bits);
                           store(b.g_branch + ptrdiff_t(r) * dp + c, v);
                       });
    for_live_spans(live, length, [&](int window, Span span, int first) {
        const ptrdiff_t start = ptrdiff_t(window) * length * dp;
        const float* g_y = b.g_branch + ptrdiff_t(first - span.first) * dp;
        circulate<-1>(length, dp, {0, length}, span, g_y, w.filter,
                      [&](int a, int c, Vec v)
                          LARES_INLINE_LAMBDA { add_to(g + start + ptrdiff_t(a) * dp + c, v); });
        double_window(x + start, length, dp, b.window);
        circulate<-1>(length, dp, {0, length}, span, g_y, b.window,
                      [&](int a, int c, Vec v) LARES_INLINE_LAMBDA {
                          add_to(grads[kFilterWeight] + ptrdiff_t(a) * dp + c, v);
                      });
    });
}

// The layer of a core, whatever it mixes by.
inline void any_layer_forward(const Core& core, int layer, int step, const Rows& rows,
                              const LiveRows& live, LayerSpace& t, const float* x, float* y,
                              bool finish) {
    const auto run = core.shape.attends() ? layer_forward : filter_layer_forward;
    run(core, layer, step, rows, live, t, x, y, finish);
}

inline void any_layer_backward(const Core& core, int layer, const Rows& rows, const LiveRows& live,
                               const LayerSpace& t, const float* x, float* g,
                               const BackwardSpace& b, const LayerGradients& grads) {
    const auto run = core.shape.attends() ? layer_backward : filter_layer_backward;
    run(core, layer, rows, live, t, x, g, b, grads);
}

}  // namespace lares::LARES_ISA
