// Causal attention inside each sequence of a tile.
//
// A group of up to kLanes neighbouring rows is computed at once, one query a lane, so that softmax
// needs no sum across lanes. Short sequences share a group; what a query may not see, by causality
// or because it belongs to another sequence, is masked: its probability is zero. Zero times what is
// not finite is NaN, so a tile that holds such numbers takes groups that are cut where sequences
// end (Groups).
#pragma once

#include "philox.hpp"

namespace lares::LARES_ISA {

// Queries `row .. row + lanes - 1` of the tile, keys `first_key .. row + lanes - 1`.
struct LaneGroup {
    int row, lanes, first_key;
    bool shared;  // by several sequences
    int keys() const { return row + lanes - first_key; }

    // Key positions whose dropout decisions share a word. A sequence with more does not share its
    // groups, so that the positions which all lanes see of one key lie in the same block.
    static constexpr int kKeepBlock = 64;
    int keep_block(int j) const { return shared ? 0 : j / kKeepBlock; }
    int keep_blocks() const { return keep_block(keys() - 1) + 1; }
};

// A tile's rows in groups: as many in each as there are lanes, and the same cut where sequences
// end, with which every query gets the same numbers to the bit.
struct Groups {
    const LaneGroup *shared, *apart;
    int n_shared, n_apart;

    const LaneGroup* begin(bool cut) const { return cut ? apart : shared; }
    const LaneGroup* end(bool cut) const { return begin(cut) + (cut ? n_apart : n_shared); }
    // True if the groups must be cut for `rows` rows of `width` numbers that attention multiplies.
    bool cut_for(const float* from, ptrdiff_t stride, int rows, int width) const {
        return n_apart > n_shared && !all_finite(from, stride, rows, width);
    }
};

// Addresses of a tile's rows; arrays reach kLanes past the last row.
struct Rows {
    int count;
    const uint32_t *streams, *positions;
    // First row of the row's sequence in the tile, one past its last, and the last one it may see.
    const int32_t *starts, *ends, *lasts;
    Groups groups;
    ptrdiff_t lane_stride;
};

struct AttentionShape {
    int heads, head_dim, d_padded;
    float scale;            // of the scores
    ptrdiff_t lane_stride;  // of the transposed matrices
    const int32_t* lasts;   // (rows,) last row that each may look at
};

// Dropout decisions of one head: keep_words' output, blocks of 64 key positions.
struct KeyKeep {
    const uint32_t* words = nullptr;  // null: no dropout
    ptrdiff_t stride = 0;
    int heads = 0;
    float scale = 1.0f;

    // `p`, scaled, where the group's queries keep its key `j`, else 0. `starts` are first rows of
    // their sequences.
    LARES_INLINE Vec apply(Vec p, LaneGroup group, int j, int head, IVec starts) const {
        const int block = group.keep_block(j) * heads + head;
        const UVec low = load(words + (2 * block) * stride + group.row);
        const UVec high = load(words + (2 * block + 1) * stride + group.row);
        const UVec bit = bits_as<UVec>(broadcast(int32_t(group.first_key + j)) - starts) &
                         broadcast(uint32_t(LaneGroup::kKeepBlock - 1));
        const UVec word = bits_as<UVec>(bit < broadcast(uint32_t(32)) ? low : high);
        const UVec kept = (word >> (bit & broadcast(uint32_t(31)))) & broadcast(1u);
        return p * select(kept != UVec{}, broadcast(scale), Vec{});  // as in ColumnKeep
    }
};

// out[j] (lanes) = sum over c < depth of columns[c] (lanes) * rows[j][c], for `count` rows.
// `columns` is a transposed matrix, `rows` row-major; take(j, vector) gets the results.
template <int N, class Take>
LARES_INLINE void lane_products(const float* columns, ptrdiff_t lane_stride, const float* rows,
                                ptrdiff_t row_stride, int depth, int j, const Take& take) {
    Vec acc[N];
    for (int n = 0; n < N; ++n) acc[n] = Vec{};
    for (int c = 0; c < depth; ++c) {
        const Vec column = load(columns + c * lane_stride);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) acc[n] += column * broadcast(rows[n * row_stride + c]);
    }
    for (int n = 0; n < N; ++n) take(j + n, acc[n]);
}

template <class Take>
LARES_INLINE void for_keys(int count, const float* columns, ptrdiff_t lane_stride,
                           const float* rows, ptrdiff_t row_stride, int depth, const Take& take) {
    int j = 0;
    for (; j + 8 <= count; j += 8)
        lane_products<8>(columns, lane_stride, rows + j * row_stride, row_stride, depth, j, take);
    if (j + 4 <= count) {
        lane_products<4>(columns, lane_stride, rows + j * row_stride, row_stride, depth, j, take);
        j += 4;
    }
    for (; j + 2 <= count; j += 2)
        lane_products<2>(columns, lane_stride, rows + j * row_stride, row_stride, depth, j, take);
    if (j < count)
        lane_products<1>(columns, lane_stride, rows + j * row_stride, row_stride, depth, j, take);
}

// take(c, vector) of sum over keys of weights[j] (lanes) * rows[j][c], for c < width.
template <int N, class Take>
LARES_INLINE void mix_columns(const float* weights, int keys, const float* rows,
                              ptrdiff_t row_stride, int c, const Take& take) {
    Vec acc[N];
    for (int n = 0; n < N; ++n) acc[n] = Vec{};
    for (int j = 0; j < keys; ++j) {
        const Vec weight = load(weights + j * kLanes);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) acc[n] += weight * broadcast(rows[j * row_stride + c + n]);
    }
    for (int n = 0; n < N; ++n) take(c + n, acc[n]);
}

template <class Take>
LARES_INLINE void for_columns(int width, const float* weights, int keys, const float* rows,
                              ptrdiff_t row_stride, const Take& take) {
    int c = 0;
    for (; c + 8 <= width; c += 8) mix_columns<8>(weights, keys, rows, row_stride, c, take);
    for (; c + 2 <= width; c += 2) mix_columns<2>(weights, keys, rows, row_stride, c, take);
    if (c < width) mix_columns<1>(weights, keys, rows, row_stride, c, take);
}

// softmax probabilities (before dropout) of one group and head into p[j * kLanes]; 0 where masked.
inline void probabilities(const AttentionShape& s, LaneGroup group, int head,
                          const float* q_columns, const float* keys, ptrdiff_t row_stride,
                          IVec starts, float* p) {
    const int count = group.keys();
    const IVec lasts = load(s.lasts + group.row);
    Vec highest = broadcast(-__builtin_inff());
    for_keys(count, q_columns + head * s.head_dim * s.lane_stride + group.row, s.lane_stride,
             keys + head * s.head_dim, row_stride, s.head_dim,
             [&](int j, Vec score) LARES_INLINE_LAMBDA {
                 const IVec key = broadcast(int32_t(group.first_key + j));
                 const IVec seen = (key >= starts) & (key <= lasts);
                 score = select(seen, score * broadcast(s.scale), broadcast(-__builtin_inff()));
                 highest = max(highest, score);
                 store(p + j * kLanes, score);
             });
    Vec total{};
    for (int j = 0; j < count; ++j) {
        const Vec score = load(p + j * kLanes);
        const Vec e = select(score == broadcast(-__builtin_inff()), Vec{}, exp(score - highest));
        total += e;
        store(p + j * kLanes, e);
    }
    // NaN where a query sees nothing above -infinity, as softmax is defined; and in lanes past the
    // end of the group, which may see no key at all.
    const Vec inverse = broadcast(1.0f) / total;
    for (int j = 0; j < count; ++j) store(p + j * kLanes, load(p + j * kLanes) * inverse);
}

// Inputs of attention's forward and backward in a layer.
struct AttentionInputs {
    const float *qkv, *q_columns;  // (rows, 3 dp) query, key, value; the query transposed
    KeyKeep keep;
};

// context^T = (Dropout(softmax(Q K^T scale)) V)^T for every group. scratch: keys x kLanes.
inline void attention_forward(const AttentionShape& s, const Rows& rows, const AttentionInputs& in,
                              float* context_columns, float* scratch) {
    const float* qkv = in.qkv;
    const KeyKeep& keep = in.keep;
    const Groups& groups = rows.groups;
    const ptrdiff_t row_stride = 3 * s.d_padded;
    const bool cut = groups.cut_for(qkv + 2 * s.d_padded, row_stride, rows.count, s.d_padded);
    for (const LaneGroup *g = groups.begin(cut), *end = groups.end(cut); g < end; ++g) {
        const LaneGroup group = *g;
        const IVec start = load(rows.starts + group.row);
        const float* keys = qkv + group.first_key * row_stride + s.d_padded;
        for (int head = 0; head < s.heads; ++head) {
            probabilities(s, group, head, in.q_columns, keys, row_stride, start, scratch);
            if (keep.words)
                for (int j = 0; j < group.keys(); ++j)
                    store(scratch + j * kLanes,
                          keep.apply(load(scratch + j * kLanes), group, j, head, start));
            float* to = context_columns + head * s.head_dim * s.lane_stride + group.row;
            for_columns(s.head_dim, scratch, group.keys(), keys + s.d_padded + head * s.head_dim,
                        row_stride, [&](int c, Vec v) LARES_INLINE_LAMBDA {
                            store(to + c * s.lane_stride, v);
                        });
        }
    }
}

// row[c] += sum over i of weights[i] * rows[i][c], c < width; reads past width, never writes there.
LARES_INLINE void add_rows(const float* weights, const float* rows, ptrdiff_t row_stride, int count,
                           int width, float* row) {
    for (int c = 0; c < width; c += kLanes) {
        Vec a{}, b{};
        int i = 0;
        for (; i + 2 <= count; i += 2) {
            a += broadcast(weights[i]) * load(rows + i * row_stride + c);
            b += broadcast(weights[i + 1]) * load(rows + (i + 1) * row_stride + c);
        }
        if (i < count) a += broadcast(weights[i]) * load(rows + i * row_stride + c);
        const Vec old = load(row + c);
        const Vec sum = old + (a + b);
        store(row + c, width - c < kLanes ? select(lanes_below(width - c), sum, old) : sum);
    }
}

constexpr int kKeyBlock = 4;

// add_rows for kKeyBlock keys at once, whose weights are kLanes apart and whose rows in `to` are
// `to_stride` apart: `V` vectors of each, from column c on.
template <int V>
LARES_INLINE void add_key_columns(const float* weights, const float* rows, ptrdiff_t row_stride,
                                  int count, int width, int c, float* to, ptrdiff_t to_stride) {
    Vec acc[kKeyBlock][V];
    for (auto& key : acc)
        for (auto& v : key) v = Vec{};
    for (int i = 0; i < count; ++i) {
        Vec row[V];
        for (int v = 0; v < V; ++v) row[v] = load(rows + i * row_stride + c + v * kLanes);
#pragma GCC unroll 4
        for (int n = 0; n < kKeyBlock; ++n) {
            const Vec weight = broadcast(weights[n * kLanes + i]);
            for (int v = 0; v < V; ++v) acc[n][v] += weight * row[v];
        }
    }
    for (int n = 0; n < kKeyBlock; ++n)
        for (int v = 0; v < V; ++v) {
            const int column = c + v * kLanes;
            float* at = to + n * to_stride + column;
            const Vec old = load(at), sum = old + acc[n][v];
            const int left = width - column;
            store(at, left < kLanes ? select(lanes_below(left), sum, old) : sum);
        }
}

LARES_INLINE void add_key_rows(const float* weights, const float* rows, ptrdiff_t row_stride,
                               int count, int width, float* to, ptrdiff_t to_stride) {
    int c = 0;
    for (; c + kLanes < width; c += 2 * kLanes)
        add_key_columns<2>(weights, rows, row_stride, count, width, c, to, to_stride);
    if (c < width) add_key_columns<1>(weights, rows, row_stride, count, width, c, to, to_stride);
}

struct AttentionGradients {
    const float *context, *columns;  // (rows, dp) of the context, and its transpose
    // (rows, 3 dp): key and value parts come in as zero and are added to, the query part is left
    // alone; the query's, transposed.
    float *qkv, *q_columns;
};

// Gradients of attention_forward. scratch: 3 keys x kLanes.
inline void attention_backward(const AttentionShape& s, const Rows& rows, const AttentionInputs& in,
                               const AttentionGradients& g, float* scratch) {
    const float* qkv = in.qkv;
    const KeyKeep& keep = in.keep;
    const Groups& groups = rows.groups;
    const int32_t* ends = rows.ends;
    const ptrdiff_t row_stride = 3 * s.d_padded;
    // Keys, of which zeros are multiples here; a query's other numbers stay in its own lane.
    const bool cut = groups.cut_for(qkv + s.d_padded, row_stride, rows.count, s.d_padded);
    for (const LaneGroup *at = groups.begin(cut), *end = groups.end(cut); at < end; ++at) {
        const LaneGroup group = *at;
        const int count = group.keys();
        const IVec start = load(rows.starts + group.row);
        const float* keys = qkv + group.first_key * row_stride + s.d_padded;
        const float* values = keys + s.d_padded;
        float *p = scratch, *dropped = scratch + count * kLanes, *g_p = dropped + count * kLanes;
        for (int head = 0; head < s.heads; ++head) {
            const int column = head * s.head_dim;
            probabilities(s, group, head, in.q_columns, keys, row_stride, start, p);
            for_keys(count, g.columns + column * s.lane_stride + group.row, s.lane_stride,
                     values + column, row_stride, s.head_dim,
                     [&](int j, Vec v) LARES_INLINE_LAMBDA { store(g_p + j * kLanes, v); });
            // Softmax: g_score = P (g_P - sum_j P_j g_P_j).
            Vec along{};
            for (int j = 0; j < count; ++j) {
                Vec pj = load(p + j * kLanes), gj = load(g_p + j * kLanes), kept = pj;
                if (keep.words) {
                    kept = keep.apply(pj, group, j, head, start);
                    gj = keep.apply(gj, group, j, head, start);
                }
                // Numbers of another sequence do not count, nor does zero times infinity: where
                // P = 0.
                gj = select(pj == Vec{}, Vec{}, gj);
                along += pj * gj;
                store(dropped + j * kLanes, kept);
                store(g_p + j * kLanes, gj);
            }
            for (int j = 0; j < count; ++j) {
                const Vec pj = load(p + j * kLanes);
                store(g_p + j * kLanes, pj * (load(g_p + j * kLanes) - along) * broadcast(s.scale));
            }
            float* to = g.q_columns + column * s.lane_stride + group.row;
            for_columns(s.head_dim, g_p, count, keys + column, row_stride,
                        [&](int c, Vec v)
                            LARES_INLINE_LAMBDA { store(to + c * s.lane_stride, v); });
            int j = 0;
            // Keys of earlier groups that all queries of this one see.
            for (; !group.shared && group.first_key + j + kKeyBlock <= group.row; j += kKeyBlock) {
                float* g_key = g.qkv + (group.first_key + j) * row_stride + s.d_padded + column;
                add_key_rows(g_p + j * kLanes, qkv + group.row * row_stride + column, row_stride,
                             group.lanes, s.head_dim, g_key, row_stride);
                add_key_rows(dropped + j * kLanes,
                             g.context + ptrdiff_t(group.row) * s.d_padded + column, s.d_padded,
                             group.lanes, s.head_dim, g_key + s.d_padded, row_stride);
            }
            for (; j < count; ++j) {
                // The queries of this group that may see this key: from its own row to its
                // sequence's end.
                const int key = group.first_key + j;
                const int from = key > group.row ? key : group.row;
                const int stop =
                    ends[key] < group.row + group.lanes ? ends[key] : group.row + group.lanes;
                if (from >= stop) continue;
                const int lane = from - group.row;
                float* g_key = g.qkv + key * row_stride + s.d_padded + column;
                add_rows(g_p + j * kLanes + lane, qkv + from * row_stride + column, row_stride,
                         stop - from, s.head_dim, g_key);
                add_rows(dropped + j * kLanes + lane,
                         g.context + ptrdiff_t(from) * s.d_padded + column, s.d_padded, stop - from,
                         s.head_dim, g_key + s.d_padded);
            }
        }
    }
}

}  // namespace lares::LARES_ISA
