// BSARec's branch besides attention: two bands of a window's frequencies.
//
// A tile's rows are whole windows of L rows, padding too.
#pragma once

#include "layer_space.hpp"
#include "mixing.hpp"

namespace lares::LARES_ISA {

// Calls body(window, span, i) for the live rows: `span` of window `window` are those from `i` on.
template <class Body>
inline void for_live_spans(const LiveRows& live, int length, const Body& body) {
    for (int i = 0; i < live.count;) {
        const int row = live.map ? live.map[i] : i, in_window = row % length;
        const bool whole = in_window == 0 && i + length <= live.count &&
                           (!live.map || live.map[i + length - 1] == row + length - 1);
        const Span span{in_window, whole ? length : 1};
        body(row / length, span, i);
        i += span.count;
    }
}

// BSARec: u = a bands + (1 - a) u for the live rows, where bands = LN(x + keep(low + b^2 (x -
// low))). `residual` is x of the live rows.
inline void mix_bands(const Core& core, const LayerWeights& w, const LiveRows& live, LayerSpace& t,
                      const float* x, const float* residual, const ColumnKeep& keep) {
    const Shape& s = core.shape;
    const int dp = s.dp, length = s.window, bands = s.bands();
    const float* basis = core.weights.basis;
    float* spectrum = t.scratch;
    for_live_spans(live, length, [&](int window, Span span, int first) {
        small_product(dp, {0, bands}, {0, length}, basis, length, 1,
                      x + ptrdiff_t(window) * length * dp,
                      [&](int k, int c, Vec v)
                          LARES_INLINE_LAMBDA { store(spectrum + ptrdiff_t(k) * dp + c, v); });
        small_product(dp, span, {0, bands}, basis, 1, length, spectrum,
                      [&](int a, int c, Vec v) LARES_INLINE_LAMBDA {
                          store(t.low + ptrdiff_t(first + a - span.first) * dp + c, v);
                      });
    });
    const UVec bits = lane_bits();
    norm_rows(
        live.count, s.d, dp, s.eps, {w[kFilterNormWeight], w[kFilterNormBias]},
        [&](int r, int c) LARES_INLINE_LAMBDA {
            const ptrdiff_t at = ptrdiff_t(r) * dp + c;
            const Vec own = load(residual + at), low = load(t.low + at);
            Vec y = low + load(w.band_square + c) * (own - low);
            if (keep.words) y = keep.apply(y, r, c, bits);
            return own + y;
        },
        t.branch, t.filter_norm);
    const Vec share = broadcast(s.band_share), rest = broadcast(1.0f - s.band_share);
    for (ptrdiff_t i = 0; i < ptrdiff_t(live.count) * dp; i += kLanes)
        store(t.u + i, share * load(t.branch + i) + rest * load(t.u + i));
}

// From b.g_sum, the live rows' gradient of mix_bands' result: b.g_bands becomes all rows' gradient
// of x by way of the bands, b.g_sum that of u.
inline void mix_bands_backward(const Core& core, const LayerWeights& w, const Rows& rows,
                               const LiveRows& live, const LayerSpace& t, const float* x,
                               const BackwardSpace& b, const ColumnKeep& keep,
                               const LayerGradients& grads) {
    const Shape& s = core.shape;
    const int dp = s.dp, length = s.window, bands = s.bands();
    const float* basis = core.weights.basis;
    const size_t all = size_t(rows.count) * size_t(dp);
    float *direct = b.g_bands, *through_low = b.g_context;
    if (live.map) {
        std::memset(direct, 0, all * sizeof(float));
        std::memset(through_low, 0, all * sizeof(float));
    }
    const Vec share = broadcast(s.band_share), rest = broadcast(1.0f - s.band_share);
    for (ptrdiff_t i = 0; i < ptrdiff_t(live.count) * dp; i += kLanes) {
        const Vec g = load(b.g_sum + i);
        store(b.g_in + i, share * g);
        store(b.g_sum + i, rest * g);
    }
    const float* residual = live.map ? t.residual : x;
    const UVec bits = lane_bits();
    norm_rows_backward(
        live.count, s.d, dp, w[kFilterNormWeight], t.filter_norm, b.g_in, grads[kFilterNormWeight],
        grads[kFilterNormBias], [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
            const ptrdiff_t at = ptrdiff_t(r) * dp + c;
            const ptrdiff_t to = ptrdiff_t(live.map ? live.map[r] : r) * dp + c;
            const Vec g = keep.words ? keep.apply(v, r, c, bits) : v;
            const Vec high = load(residual + at) - load(t.low + at),
                      square = load(w.band_square + c);
            add_to(grads[kBandScale] + c, broadcast(2.0f) * load(w[kBandScale] + c) * g * high);
            store(direct + to, v + square * g);
            store(through_low + to, g - square * g);
        });
    float* spectrum = t.scratch;
    for_live_spans(live, length, [&](int window, Span span, int) {
        const ptrdiff_t first = ptrdiff_t(window) * length * dp;
        small_product(dp, {0, bands}, span, basis, length, 1, through_low + first,
                      [&](int k, int c, Vec v)
                          LARES_INLINE_LAMBDA { store(spectrum + ptrdiff_t(k) * dp + c, v); });
        small_product(dp, {0, length}, {0, bands}, basis, 1, length, spectrum,
                      [&](int a, int c, Vec v) LARES_INLINE_LAMBDA {
                          add_to(direct + first + ptrdiff_t(a) * dp + c, v);
                      });
    });
}

}  // namespace lares::LARES_ISA
