// The feed-forward of a layer, forward and backward, a chunk of its columns at a time.
#pragma once

#include "activations.hpp"
#include "layer_space.hpp"

namespace lares::LARES_ISA {

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
    const bool known = with_activation(activation, [&](auto act) {
        activate<decltype(act)>(rows, width, bias, inner, slope, stride);
    });
    if (!known) no_such_choice();
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

}  // namespace lares::LARES_ISA
