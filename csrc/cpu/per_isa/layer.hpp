// One layer with attention over the rows of a tile, forward and backward.
//
// Post-norm: u = LN(x + keep(Attention(x))), y = LN(u + keep(FeedForward(u))).
// Pre-norm:  u = x + keep(Attention(LN(x))), y = u + keep(FeedForward(LN(u))).
// Query-norm: q = LN(x), v = LN(q + keep(Attention(queries of q, keys and values of x))),
//             y = v + keep(FeedForward(v)).
// BSARec: post-norm, with a second band beside attention (bands.hpp).
#pragma once

#include "bands.hpp"
#include "feed_forward.hpp"

namespace lares::LARES_ISA {

// x: (rows, dp); y: the live rows (live, dp), may be x. Without `finish` y is not computed:
// backward has no use for it.
inline void layer_forward(const Core& core, int layer, int step, const Rows& rows,
                          const LiveRows& live, LayerSpace& t, const float* x, float* y,
                          bool finish) {
    const Shape& s = core.shape;
    const LayerWeights& w = core.weights.layers[size_t(layer)];
    const int dp = s.dp;
    const LayerKeep keep = draw_layer_keep(core, layer, step, rows, live, t);

    const float* in = x;
    if (!s.post) {
        norm_rows(
            rows.count, s.d, dp, s.eps, {w[kAttnNormWeight], w[kAttnNormBias]},
            [&](int r, int c) LARES_INLINE_LAMBDA { return load(x + ptrdiff_t(r) * dp + c); },
            t.attn_in, t.attn_norm);
        in = t.attn_in;
    }
    const int first = s.query ? dp : 0;  // column of those that `w.qkv` gives
    if (s.query)
        product(rows.count, dp, s.d, left_rows(in, dp, rows.count, s.d, t.room.rows[0]),
                packed_panels(w.q, s.d), StorePlus{t.qkv, 3 * dp, w[kQkvBias], 0});
    product(rows.count, 3 * dp - first, s.d,
            left_rows(s.query ? x : in, dp, rows.count, s.d, t.room.rows[0]),
            packed_panels(w.qkv, s.d), StorePlus{t.qkv + first, 3 * dp, w[kQkvBias] + first, 0});
    transpose_rows(t.qkv, 3 * dp, rows.count, dp, t.q_columns, rows.lane_stride);
    attention_forward(core.attention(rows), rows, {t.qkv, t.q_columns, keep.keys},
                      t.context_columns, t.scratch);
    transpose_rows(t.context_columns, rows.lane_stride, dp, rows.count, t.context, dp);

    const float* residual = s.query ? in : x;
    if (live.map) {
        gather_rows(residual, live, dp, t.residual);
        gather_rows(t.context, live, dp, t.context);  // a live row never moves up
        residual = t.residual;
    }
    product(live.count, dp, s.d, left_rows(t.context, dp, live.count, s.d, t.room.rows[0]),
            packed_panels(w.out, s.d), StorePlus{t.branch, dp, w[kOutBias], 0});

    const BranchSum attended{residual, t.branch, dp, keep.attention};
    if (s.post)
        norm_rows(live.count, s.d, dp, s.eps, {w[kAttnNormWeight], w[kAttnNormBias]}, attended, t.u,
                  t.attn_norm);
    else
        norm_rows(live.count, s.d, dp, s.eps, {w[kFfnNormWeight], w[kFfnNormBias]}, attended,
                  t.ffn_in, t.ffn_norm, s.query ? nullptr : t.u);
    if (s.banded()) mix_bands(core, w, live, t, x, residual, keep.bands);
    feed_forward(s, w, live.count, t.ffn_in, t, finish);
    if (!finish) return;
    const BranchSum fed{s.query ? t.ffn_in : t.u, t.branch, dp, keep.feed_forward};
    if (s.post) {
        norm_rows(live.count, s.d, dp, s.eps, {w[kFfnNormWeight], w[kFfnNormBias]}, fed, y,
                  t.ffn_norm);
    } else {
        for (int r = 0; r < live.count; ++r)
            for (int c = 0; c < dp; c += kLanes) store(y + ptrdiff_t(r) * dp + c, fed(r, c));
    }
}

// g: in, the live rows' gradient of y (live, dp); out, all rows' gradient of x (rows, dp).
inline void layer_backward(const Core& core, int layer, const Rows& rows, const LiveRows& live,
                           const LayerSpace& t, const float* x, float* g, const BackwardSpace& b,
                           const LayerGradients& grads) {
    const Shape& s = core.shape;
    const LayerWeights& w = core.weights.layers[size_t(layer)];
    const int dp = s.dp;
    const LayerKeep keep = layer_keep(s, t);
    const UVec bits = lane_bits();
    const auto branch = [&](const ColumnKeep& kept, float* bias) {
        return [=, &b](int r, int c, Vec v) LARES_INLINE_LAMBDA {
            if (kept.words) v = kept.apply(v, r, c, bits);
            store(b.g_branch + ptrdiff_t(r) * dp + c, v);
            add_to(bias + c, v);
        };
    };
    const auto to_ffn = branch(keep.feed_forward, grads[kDownBias]);
    const auto to_attention = branch(keep.attention, grads[kOutBias]);

    // The feed-forward and its LayerNorm; b.g_sum becomes the gradient of u.
    if (s.post) {
        norm_rows_backward(live.count, s.d, dp, w[kFfnNormWeight], t.ffn_norm, g,
                           grads[kFfnNormWeight], grads[kFfnNormBias],
                           [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                               store(b.g_sum + ptrdiff_t(r) * dp + c, v);
                               to_ffn(r, c, v);
                           });
        feed_forward_backward(s, w, live.count, t, b, b.g_sum, true, grads);
        if (s.banded()) mix_bands_backward(core, w, rows, live, t, x, b, keep.bands, grads);
        norm_rows_backward(live.count, s.d, dp, w[kAttnNormWeight], t.attn_norm, b.g_sum,
                           grads[kAttnNormWeight], grads[kAttnNormBias],
                           [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                               store(b.g_sum + ptrdiff_t(r) * dp + c, v);
                               to_attention(r, c, v);
                           });
    } else {
        for (int r = 0; r < live.count; ++r)
            for (int c = 0; c < dp; c += kLanes) {
                const Vec v = load(g + ptrdiff_t(r) * dp + c);
                store(b.g_sum + ptrdiff_t(r) * dp + c, v);
                to_ffn(r, c, v);
            }
        // Query-norm: the sum after the feed-forward holds the LayerNorm itself, not what it read.
        float* g_normed = s.query ? b.g_sum : b.g_in;
        feed_forward_backward(s, w, live.count, t, b, g_normed, s.query, grads);
        norm_rows_backward(live.count, s.d, dp, w[kFfnNormWeight], t.ffn_norm, g_normed,
                           grads[kFfnNormWeight], grads[kFfnNormBias],
                           [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                               float* at = b.g_sum + ptrdiff_t(r) * dp + c;
                               if (!s.query) v += load(at);
                               store(at, v);
                               to_attention(r, c, v);
                           });
    }

    // The attention branch, of the live rows, then of all.
    const OperandRoom& room = t.room;
    product<true>(s.d, dp, live.count,
                  left_columns(b.g_branch, dp, live.count, s.d, room.columns[0]),
                  panels_of(right_columns(t.context, dp, live.count, dp, room.columns[1])),
                  add_to_rows(grads[kOutWeight], dp));
    const size_t row_bytes = size_t(dp) * sizeof(float);
    if (live.map) {
        std::memset(b.g_context, 0, size_t(rows.count) * row_bytes);
        std::memset(g, 0, size_t(rows.count) * row_bytes);
        for (int i = 0; i < live.count; ++i)
            std::memcpy(g + ptrdiff_t(live.map[i]) * dp, b.g_sum + ptrdiff_t(i) * dp, row_bytes);
    } else {
        std::memcpy(g, b.g_sum, size_t(rows.count) * row_bytes);
    }
    product(live.count, dp, s.d, left_rows(b.g_branch, dp, live.count, s.d, room.rows[0]),
            packed_panels(w.out_back, s.d), [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                const int row = live.map ? live.map[r] : r;
                store(b.g_context + ptrdiff_t(row) * dp + c, v);
            });
    transpose_rows(b.g_context, dp, rows.count, dp, b.g_columns, rows.lane_stride);
    std::memset(b.g_qkv, 0, size_t(rows.count) * 3 * row_bytes);
    attention_backward(core.attention(rows), rows, {t.qkv, t.q_columns, keep.keys},
                       {b.g_context, b.g_columns, b.g_qkv, b.g_q_columns}, t.scratch);
    transpose_rows(b.g_q_columns, rows.lane_stride, dp, rows.count, b.g_qkv, 3 * dp);

    add_column_sums(rows.count, 3 * dp, b.g_qkv, 3 * dp, grads[kQkvBias]);
    // Columns `from .. from + columns` of g_qkv, which products of `in` gave.
    const auto add_qkv = [&](int from, int columns, const float* in) {
        product<true>(columns, dp, rows.count,
                      left_columns(b.g_qkv + from, 3 * dp, rows.count, columns, room.columns[0]),
                      panels_of(right_columns(in, dp, rows.count, dp, room.columns[1])),
                      add_to_rows(grads[kQkvWeight] + ptrdiff_t(from) * dp, dp));
    };
    if (s.query) {
        add_qkv(0, dp, t.attn_in);
        add_qkv(dp, 2 * dp, x);
        product(rows.count, dp, dp, left_rows(b.g_qkv, 3 * dp, rows.count, dp, room.rows[0]),
                packed_panels(w.q_back, dp), add_to_rows(g, dp));
        product(rows.count, dp, 2 * dp,
                left_rows(b.g_qkv + dp, 3 * dp, rows.count, 2 * dp, room.rows[0]),
                packed_panels(w.qkv_back, 2 * dp), Store{b.g_in, dp});
        norm_rows_backward(rows.count, s.d, dp, w[kAttnNormWeight], t.attn_norm, g,
                           grads[kAttnNormWeight], grads[kAttnNormBias],
                           [&](int r, int c, Vec v) LARES_INLINE_LAMBDA {
                               const ptrdiff_t at = ptrdiff_t(r) * dp + c;
                               store(g + at, v + load(b.g_in + at));
                           });
        return;
    }
    add_qkv(0, 3 * dp, s.post ? x : t.attn_in);
    float* g_in = s.post ? g : b.g_in;
    const Left g_qkv = left_rows(b.g_qkv, 3 * dp, rows.count, 3 * dp, room.rows[0]);
    const Panels qkv_back = packed_panels(w.qkv_back, 3 * dp);
    if (s.post)
        product(rows.count, dp, 3 * dp, g_qkv, qkv_back, add_to_rows(g_in, dp));
    else
        product(rows.count, dp, 3 * dp, g_qkv, qkv_back, Store{g_in, dp});
    if (s.banded())
        for (ptrdiff_t i = 0; i < ptrdiff_t(rows.count) * dp; i += kLanes)
            add_to(g + i, load(b.g_bands + i));
    if (!s.post)
        norm_rows_backward(rows.count, s.d, dp, w[kAttnNormWeight], t.attn_norm, b.g_in,
                           grads[kAttnNormWeight], grads[kAttnNormBias],
                           [&](int r, int c, Vec v)
                               LARES_INLINE_LAMBDA { add_to(g + ptrdiff_t(r) * dp + c, v); });
}

}  // namespace lares::LARES_ISA
