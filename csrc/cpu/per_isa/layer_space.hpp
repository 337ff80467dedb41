// Working memory of a layer: a tile's rows, its buffers, its dropout decisions.
//
// Buffers are row-major with dp (fp, 3 dp) columns; "columns" in a name marks a transposed one,
// with a lane for each row.
#pragma once

#include "attention.hpp"
#include "gradients.hpp"
#include "norm.hpp"

namespace lares::LARES_ISA {

// The rows that matter after attention: all, or, where a sequence's last step reads its newest row
// alone, a compact selection.
struct LiveRows {
    int count;
    const int32_t* map;  // row of each; null: the same
    const uint32_t *streams, *positions;
};

// Sizes of a tile's buffers, for the longest tile of a call.
struct TileSizes {
    int longest;
    int rows;      // to whole vectors, and one more for reads past the end
    size_t act;    // floats of a (rows, dp) buffer
    size_t lanes;  // floats of a transposed one
    size_t keep;   // words of one set of dropout blocks

    TileSizes(const Shape& s, int tile_rows)
        : longest(tile_rows),
          rows(round_up(tile_rows, kLanes) + kLanes),
          act(size_t(rows) * s.dp),
          lanes(size_t(rows + kLanes) * s.dp) {
        const int key_blocks = (tile_rows + 63) / 64;
        keep = size_t(rows) * 2 * max((s.d + 63) / 64 * 2, key_blocks * s.heads);
    }
};

// Room for what products multiply where that is not the matrix itself (bf16); shared by all layers.
struct OperandRoom {
    Operand *rows[2], *columns[4];

    OperandRoom(const Shape& s, const TileSizes& z, Arena& arena) {
        const int widest = max(3 * s.dp, kChunk);
        for (auto& room : rows) room = arena.take<Operand>(row_operands(z.rows, widest));
        for (auto& room : columns) room = arena.take<Operand>(column_operands(z.rows, widest));
    }
};

inline NormTape take_tape(const TileSizes& z, Arena& arena) {
    float* normalised = arena.take<float>(z.act);
    return {normalised, arena.take<float>(size_t(z.rows))};
}

// A layer's tape, from its forward to its backward. Inference (without `tape`) uses the same
// buffers with a feed-forward one chunk wide, no slopes and no normalised rows.
struct LayerSpace {
    float* attn_in;  // pre-norm and query-norm: LN(x)
    float *qkv, *q_columns, *context_columns, *context;
    float* residual;  // x of the live rows where they are a selection
    float* branch;
    float *u, *ffn_in;  // post-norm: the same
    float *inner, *slope = nullptr;
    ptrdiff_t inner_stride;  // kChunk in inference
    NormTape attn_norm, ffn_norm, filter_norm;
    float* low = nullptr;  // BSARec's low band of the live rows
    uint32_t *attn_keep, *residual_keep, *inner_keep = nullptr, *band_keep = nullptr;
    ptrdiff_t keep_stride;
    float* scratch;  // of attention, or BSARec's spectra
    OperandRoom room;

    LayerSpace(const Shape& s, const TileSizes& z, const OperandRoom& shared, bool tape,
               Arena& arena)
        : room(shared) {
        attn_in = s.post ? nullptr : arena.take<float>(z.act);
        qkv = arena.take<float>(3 * z.act);
        q_columns = arena.take<float>(z.lanes);
        context_columns = arena.take_zeros<float>(z.lanes);  // columns past d stay zero
        context = arena.take<float>(z.act);
        residual = arena.take<float>(z.act);
        branch = arena.take<float>(z.act);
        u = arena.take<float>(z.act);
        ffn_in = s.post ? u : arena.take<float>(z.act);
        inner_stride = tape ? s.fp : kChunk;
        const size_t inner_size = size_t(z.rows) * size_t(inner_stride);
        inner = arena.take<float>(inner_size);
        if (tape) {
            slope = arena.take<float>(inner_size);
            attn_norm = take_tape(z, arena);
            ffn_norm = take_tape(z, arena);
            if (s.windowed()) filter_norm = take_tape(z, arena);
        }
        if (s.banded()) {
            low = arena.take<float>(z.act);
            band_keep = arena.take<uint32_t>(z.keep);
        }
        attn_keep = arena.take<uint32_t>(z.keep);
        residual_keep = arena.take<uint32_t>(z.keep);
        if (s.inner_dropout.on())
            inner_keep = arena.take<uint32_t>(size_t(z.rows) * 2 * size_t((s.f + 63) / 64));
        keep_stride = z.rows;
        const size_t probabilities = 3 * size_t(z.longest + kLanes) * kLanes;
        const size_t spectra = s.banded() ? size_t(s.bands()) * size_t(s.dp) : 0;
        scratch = arena.take<float>(max(probabilities, spectra));
    }
};

// Buffers of the layers' backward; shared by all layers.
struct BackwardSpace {
    float *g_sum, *g_branch, *g_inner, *g_context, *g_columns, *g_q_columns, *g_qkv, *g_in;
    float *g_bands = nullptr, *window = nullptr;  // (rows, dp) by way of BSARec's bands; (2 L, dp)

    BackwardSpace(const Shape& s, const TileSizes& z, Arena& arena) {
        g_sum = arena.take<float>(z.act);
        g_branch = arena.take<float>(z.act);
        g_inner = arena.take<float>(size_t(z.rows) * kChunk);
        g_context = arena.take<float>(z.act);
        g_columns = arena.take<float>(z.lanes);
        g_q_columns = arena.take_zeros<float>(z.lanes);
        g_qkv = arena.take<float>(3 * z.act);
        g_in = arena.take<float>(z.act);
        if (s.banded()) g_bands = arena.take<float>(z.act);
        if (!s.attends()) window = arena.take<float>(2 * size_t(s.window) * size_t(s.dp));
    }
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

}  // namespace lares::LARES_ISA
