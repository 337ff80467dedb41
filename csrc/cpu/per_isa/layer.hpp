// One layer over the rows of a tile, forward and backward.
//
// Post-norm: u = LN(x + keep(Attention(x))), y = LN(u + keep(FeedForward(u))).
// Pre-norm:  u = x + keep(Attention(LN(x))), y = u + keep(FeedForward(LN(u))).
// Query-norm: q = LN(x), v = LN(q + keep(Attention(queries of q, keys and values of x))),
//             y = v + keep(FeedForward(v)).
//
// Buffers are row-major with dp (fp, 3 dp) columns; "columns" in a name marks a transposed one,
// with a lane for each row.
#pragma once

#include "attention.hpp"
#include "gradients.hpp"
#include "mixing.hpp"
#include "norm.hpp"

namespace lares::LARES_ISA {

// Addresses of a tile's rows; arrays reach kLanes past the last row.
struct Rows {
    int count;
    const uint32_t *streams, *positions;
    // First row of the row's sequence in the tile, one past its last, and the last one it may see.
    const int32_t *starts, *ends, *lasts;
    Groups groups;
    ptrdiff_t lane_stride;
};

// The rows that matter after attention: all, or, where a sequence's last step reads its newest row
// alone, a compact selection.
struct LiveRows {
    int count;
    const int32_t* map;  // row of each; null: the same
    const uint32_t *streams, *positions;
};

// Room for what products multiply where that is not the matrix itself (bf16); shared by all layers.
struct OperandRoom {
    Operand *rows[2], *columns[4];
};

// What a layer keeps between its forward and its backward. Inference uses the same buffers with a
// feed-forward one chunk wide, no slopes and no normalised rows.
struct LayerSpace {
    float* attn_in;  // pre-norm and query-norm: LN(x)
    float *qkv, *q_columns, *context_columns, *context;
    float* residual;  // x of the live rows where they are a selection
    float* branch;
    float *u, *ffn_in;  // post-norm: the same
    float *inner, *slope;
    ptrdiff_t inner_stride;  // kChunk in inference
    NormTape attn_norm, ffn_norm, filter_norm;
    float* low;  // BSARec's low band of the live rows
    uint32_t *attn_keep, *residual_keep, *inner_keep, *band_keep;
    ptrdiff_t keep_stride;
    float* scratch;  // of attention
    OperandRoom room;
};

struct Core {
    const Shape& shape;
    const Weights& weights;
    uint64_t seed;

    AttentionShape attention(const Rows& rows) const {
        return {shape.heads,      shape.head_dim,
                shape.dp,         1.0f / __builtin_sqrtf(float(shape.head_dim)),
                rows.lane_stride, rows.lasts};
    }
};

inline void gather_rows(const float* from, const LiveRows& live, int width, float* to) {
    for (int i = 0; i < live.count; ++i)
        std::memmove(to + ptrdiff_t(i) * width, from + ptrdiff_t(live.map[i]) * width,
                     size_t(width) * sizeof(float));
}

// dst (columns x rows) of src (rows x columns), both reaching to whole vectors.
inline void transpose_rows(const float* src, ptrdiff_t src_stride, int rows, int columns,
                           float* dst, ptrdiff_t dst_stride) {
    for (int r = 0; r < rows; r += kLanes)
        for (int c = 0; c < columns; c += kLanes)
            transpose_block(src + r * src_stride + c, src_stride, dst + c * dst_stride + r,
                            dst_stride);
}

struct LayerKeep {
    ColumnKeep attention, feed_forward, inner, bands;  // of the live rows
    KeyKeep keys;
};

inline LayerKeep layer_keep(const Shape& s, const LayerSpace& t) {
    LayerKeep keep;
    const int blocks = (s.d + 63) / 64;
    if (s.dropout.on()) {
        if (!s.spares_attention)
            keep.attention = {t.residual_keep, t.keep_stride, s.dropout.scale()};
        keep.feed_forward = {t.residual_keep + 2 * blocks * t.keep_stride, t.keep_stride,
                             s.dropout.scale()};
        if (s.banded() && !s.spares_attention)
            keep.bands = {t.band_keep, t.keep_stride, s.dropout.scale()};
    }
    if (s.inner_dropout.on()) keep.inner = {t.inner_keep, t.keep_stride, s.inner_dropout.scale()};
    if (s.attn_dropout.on())
        keep.keys = {t.attn_keep, t.keep_stride, s.heads, s.attn_dropout.scale()};
    return keep;
}

// Blocks of dropout decisions that a head's keys take.
inline int keep_blocks(const Groups& groups) {
    int most = 0;
    for (const LaneGroup* g = groups.begin(false); g < groups.end(false); ++g)
        most = max(most, g->keep_blocks());
    return most;
}

inline LayerKeep draw_layer_keep(const Core& core, int layer, int step, const Rows& rows,
                                 const LiveRows& live, const LayerSpace& t) {
    const Shape& s = core.shape;
    const int blocks = (s.d + 63) / 64;
    if (s.attn_dropout.on() && s.attends())
        keep_words(rows.streams, rows.positions, rows.count, site_word(kSiteAttention, layer, step),
                   keep_blocks(rows.groups) * s.heads, s.attn_dropout, core.seed, t.attn_keep,
                   t.keep_stride);
    if (s.dropout.on())
        keep_words(live.streams, live.positions, live.count, site_word(kSiteResidual, layer, step),
                   2 * blocks, s.dropout, core.seed, t.residual_keep, t.keep_stride);
    if (s.banded() && s.dropout.on())
        keep_words(live.streams, live.positions, live.count, site_word(kSiteBands, layer, step),
                   blocks, s.dropout, core.seed, t.band_keep, t.keep_stride);
    if (s.inner_dropout.on())
        keep_words(live.streams, live.positions, live.count, site_word(kSiteInner, layer, step),
                   (s.f + 63) / 64, s.inner_dropout, core.seed, t.inner_keep, t.keep_stride);
    return layer_keep(s, t);
}

struct BranchSum {
    const float *residual, *branch;
    int dp;
    ColumnKeep keep;
    UVec bits = lane_bits();

    LARES_INLINE Vec operator()(int r, int c) const {
        const ptrdiff_t at = ptrdiff_t(r) * dp + c;
        Vec b = load(branch + at);
        if (keep.words) b = keep.apply(b, r, c, bits);
        return load(residual + at) + b;
    }
};

// inner = act(inner + bias), and the activation's slope there where it is asked for.
template <class Act>
inline void activate(int rows, int width, const float* bias, float* inner, float* slope,
                     ptrdiff_t stride) {
    for (int r = 0; r < rows; ++r, inner += stride) {
        if (slope) {
            for (int c = 0; c < width; c += kLanes) {
                const ValueAndSlope both = Act::both(load(inner + c) + load(bias + c));
                store(inner + c, both.value);
                store(slope + c, both.slope);
            }
            slope += stride;
        } else {
            for (int c = 0; c < width; c += kLanes)
                store(inner + c, Act::value(load(inner + c) + load(bias + c)));
        }
    }
}

inline void activate(int activation, int rows, int width, const float* bias, float* inner,
                     float* slope, ptrdiff_t stride) {
    switch (activation) {
        case LARES_GELU:
            return activate<Gelu>(rows, width, bias, inner, slope, stride);
        case LARES_GELU_TANH:
            return activate<GeluTanh>(rows, width, bias, inner, slope, stride);
        case LARES_RELU:
            return activate<Relu>(rows, width, bias, inner, slope, stride);
        case LARES_SILU:
            return activate<Silu>(rows, width, bias, inner, slope, stride);
    }
    no_such_choice();
}

// Dropout of columns `first` .. of the activations and, where they are kept, of their slopes.
inline void drop_inner(const ColumnKeep& keep, int rows, int first, int width, float* inner,
                       float* slope, ptrdiff_t stride) {
    if (!keep.words) return;
    const UVec bits = lane_bits();
    float* const both[] = {inner, slope};
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < width; c += kLanes)
            for (float* at : both)
                if (at) {
                    at += r * stride + c;
                    store(at, keep.apply(load(at), r, first + c, bits));
                }
}

inline void feed_forward(const Shape& s, const LayerWeights& w, int rows, const float* in,
                         const LayerSpace& t, bool finish) {
    const ColumnKeep keep = layer_keep(s, t).inner;
    const Left given = left_rows(in, s.dp, rows, s.d, t.room.rows[0]);
    for (int first = 0; first < s.fp; first += kChunk) {
        const int width = s.fp - first < kChunk ? s.fp - first : kChunk;
        float* inner = t.slope ? t.inner + first : t.inner;
        product(rows, width, s.d, given, packed_panels(w.up, s.d, 0, first),
                Store{inner, t.inner_stride});
        float* slope = t.slope ? t.slope + first : nullptr;
        activate(s.activation, rows, width, w[kUpBias] + first, inner, slope, t.inner_stride);
        drop_inner(keep, rows, first, width, inner, slope, t.inner_stride);
        if (!finish) continue;
        product(rows, s.dp, width, left_rows(inner, t.inner_stride, rows, width, t.room.rows[1]),
                packed_panels(w.down, s.fp, first),
                first ? add_to_rows(t.branch, s.dp) : StorePlus{t.branch, s.dp, w[kDownBias], 0});
    }
}

// BSARec: u = a bands + (1 - a) u for the live rows, where bands = LN(x + keep(low + b^2 (x -
// low))). `residual` is x of the live rows.
inline void mix_bands(const Core& core, const LayerWeights& w, const LiveRows& live, LayerSpace& t,
                      const float* x, const float* residual, const ColumnKeep& keep);

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
    attention_forward(core.attention(rows), rows.groups, rows.count, t.qkv, t.q_columns,
                      rows.starts, keep.keys, t.context_columns, t.scratch);
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

struct BackwardSpace {
    float *g_sum, *g_branch, *g_inner, *g_context, *g_columns, *g_q_columns, *g_qkv, *g_in;
    float *g_bands, *window;  // (rows, dp) by way of BSARec's bands; (2 L, dp)
};

LARES_INLINE void add_to(float* at, Vec v) { store(at, load(at) + v); }

// sums (columns) += the rows of `from`.
inline void add_column_sums(int rows, int columns, const float* from, ptrdiff_t stride,
                            float* sums) {
    for (int c = 0; c < columns; c += kLanes) {
        Vec even{}, odd{};
        int r = 0;
        for (; r + 2 <= rows; r += 2) {
            even += load(from + r * stride + c);
            odd += load(from + (r + 1) * stride + c);
        }
        if (r < rows) even += load(from + r * stride + c);
        add_to(sums + c, even + odd);
    }
}

// g_in += g_inner W_up and the feed-forward's parameters, from g_branch; g_in is set, not added to,
// unless `add`.
inline void feed_forward_backward(const Shape& s, const LayerWeights& w, int rows,
                                  const LayerSpace& t, const BackwardSpace& b, float* g_in,
                                  bool add, const LayerGradients& grads) {
    const int dp = s.dp;
    const OperandRoom& room = t.room;
    const Left g_rows = left_rows(b.g_branch, dp, rows, s.d, room.rows[0]);
    const Left g_columns = left_columns(b.g_branch, dp, rows, s.d, room.columns[0]);
    const Left in = right_columns(t.ffn_in, dp, rows, dp, room.columns[1]);
    for (int first = 0; first < s.fp; first += kChunk) {
        const int width = s.fp - first < kChunk ? s.fp - first : kChunk;
        const float *inner = t.inner + first, *slope = t.slope + first;
        product(rows, width, s.d, g_rows, packed_panels(w.down_back, s.d, 0, first),
                StoreTimes{b.g_inner, kChunk, slope, t.inner_stride});
        add_column_sums(rows, width, b.g_inner, kChunk, grads[kUpBias] + first);
        const Left activated = right_columns(inner, t.inner_stride, rows, width, room.columns[2]);
        product<true>(s.d, width, rows, g_columns, panels_of(activated),
                      add_to_rows(grads[kDownWeight] + first, s.fp));
        product<true>(width, dp, rows,
                      left_columns(b.g_inner, kChunk, rows, width, room.columns[3]), panels_of(in),
                      add_to_rows(grads[kUpWeight] + ptrdiff_t(first) * dp, dp));
        const Left g_inner = left_rows(b.g_inner, kChunk, rows, width, room.rows[1]);
        const Panels up_back = packed_panels(w.up_back, s.fp, first);
        if (add || first)
            product(rows, dp, width, g_inner, up_back, add_to_rows(g_in, dp));
        else
            product(rows, dp, width, g_inner, up_back, Store{g_in, dp});
    }
}

// From b.g_sum, the live rows' gradient of mix_bands' result: b.g_bands becomes all rows' gradient
// of x by way of the bands, b.g_sum that of u.
inline void mix_bands_backward(const Core& core, const LayerWeights& w, const Rows& rows,
                               const LiveRows& live, const LayerSpace& t, const float* x,
                               const BackwardSpace& b, const ColumnKeep& keep,
                               const LayerGradients& grads);

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
    attention_backward(core.attention(rows), rows.groups, rows.count, t.qkv, t.q_columns,
                       rows.starts, rows.ends, keep.keys, b.g_context, b.g_columns, b.g_qkv,
                       b.g_q_columns, t.scratch);
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
