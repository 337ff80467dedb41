// One layer backward, from the tape of its forward: lares_kernels/reference/backward.py in
// registers.
#pragma once

#include "layer.hpp"
#include "spill.hpp"

namespace lares::cuda {

// Add a number a column to a vector of the warp's own gradients.
LARES_DEVICE void add_columns(float* to, Float a, Float b) {
    const Int column = first_column();
    const Mask first = lane_number() < 4;
    a = column_sum(a);
    b = column_sum(b);
    Float old_a, old_b;
    load_pair(old_a, old_b, to, column, first);
    store_pair(to, column, old_a + a, old_b + b, first);
}

// The gradient of a LayerNorm's output becomes that of its input `x`, which is lost; adds those of
// its weight and bias to `gradients`.
template <class S>
LARES_DEVICE void norm_backward(Rows<S>& g, Rows<S>& x, const float* parameters, float* gradients,
                                float eps) {
    Float inverse[2];
    normalise<S>(x, eps, inverse);
    Float mean[2] = {}, along[2] = {};
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        add_columns(gradients + 8 * j, g[j][0] * x[j][0] + g[j][2] * x[j][2],
                    g[j][1] * x[j][1] + g[j][3] * x[j][3]);
        add_columns(gradients + S::kWidth + 8 * j, g[j][0] + g[j][2], g[j][1] + g[j][3]);
        Float w[2];
        load_pair(w[0], w[1], parameters, first_column() + 8 * j);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) {
            g[j][i] = g[j][i] * w[i % 2];
            mean[i / 2] = mean[i / 2] + g[j][i];
            along[i / 2] = multiply_add(g[j][i], x[j][i], along[i / 2]);
        }
    }
    LARES_UNROLL
    for (int r = 0; r < 2; ++r) {
        mean[r] = quad_sum(mean[r]) * (1.0f / S::kWidth);
        along[r] = quad_sum(along[r]) * (1.0f / S::kWidth);
    }
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int r = i / 2;
            g[j][i] = (g[j][i] - mean[r] - x[j][i] * along[r]) * inverse[r];
        }
    }
}

// g_source += the gradient of the feed-forward's input `source`; leaves its units.
template <class S>
LARES_DEVICE void feed_forward_backward(Rows<S>& g_source, const Operand<S>& source,
                                        const Operand<S>& g_branch, const Layer<S>& layer,
                                        const LaresCudaCall& call, const Spill<S>& spill) {
    using T = typename S::Type;
    auto weights = layer.inner();
    const float* bias = layer.vectors + layer.places.up_bias();
    LARES_ROLLED
    for (int column = 0; column < call.d_ff; column += 16) {
        int up = column / 16 * 2 * S::kChunks;
        if constexpr (S::kStaged) {
            if (up > 0 && up % S::kPiece == 0) weights = layer.inner(up);
            up %= S::kPiece;
        }
        const int down = up + S::kChunks;
        Sums inner = column_bias(bias + column), g;
        add_product<S>(inner, source, weights, up);
        add_product_back<S>(g, g_branch, weights, down);
        activate_with_slope(call.activation, [&](auto function) {
            LARES_UNROLL
            for (int i = 0; i < 8; ++i) {
                const ValueAndSlope both = function(inner.c[i / 4][i % 4]);
                inner.c[i / 4][i % 4] = both.value;
                g.c[i / 4][i % 4] = g.c[i / 4][i % 4] * both.slope;
            }
        });
        Word operand[4];
        pack_operand<T>(operand, inner);
        spill.unit(spill.places.activated() + column / 16, operand);
        pack_operand<T>(operand, g);
        spill.unit(spill.places.inner_gradient() + column / 16, operand);
        add_to_rows_back<S>(g_source, operand, weights, up);
    }
}

// A head of a warp's queries, ready to be differentiated.
template <class S>
struct HeadBackward {
    using T = typename S::Type;

    Word query[S::kHead][4], g_mixed[S::kHead][4];
    Float most[2], share[2];  // greatest score, 1 / sum of exponentials
    Float along[2];           // sum over keys of probability times its gradient
    KeptKeys kept;
    float score_scale, keep_scale;

    // Zeros in place of rows that are not finite, whose probabilities become NaN (apart.hpp).
    LARES_DEVICE void set_apart() {
        Word trace = wide(0u);
        LARES_UNROLL
        for (int i = 0; i < 4 * S::kHead; ++i) {
            trace = add_trace<T>(trace, query[i / 4][i % 4]);
            trace = add_trace<T>(trace, g_mixed[i / 4][i % 4]);
        }
        if (!any(spoilt(trace))) return;
        LARES_UNROLL
        for (int r = 0; r < 2; ++r) {
            trace = wide(0u);
            LARES_UNROLL
            for (int i = 0; i < 2 * S::kHead; ++i) {
                trace = add_trace<T>(trace, query[i / 2][r + 2 * (i % 2)]);
                trace = add_trace<T>(trace, g_mixed[i / 2][r + 2 * (i % 2)]);
            }
            const Float none = quad_sum(select(spoilt(trace), wide(NAN), wide(0.0f)));
            share[r] = share[r] + none;
            LARES_UNROLL
            for (int i = 0; i < 2 * S::kHead; ++i) {
                Word &q = query[i / 2][r + 2 * (i % 2)], &g = g_mixed[i / 2][r + 2 * (i % 2)];
                q = select(none != 0.0f, wide(0u), q);
                g = select(none != 0.0f, wide(0u), g);
            }
        }
    }

    // Gradients through 16 more keys, columns 0..15, visible from first[r] to last[r]: adds to
    // those of the queries, and of these keys and values.
    LARES_DEVICE void add(Sums (&g_query)[S::kHead], Sums (&g_key)[S::kHead],
                          Sums (&g_value)[S::kHead], const unsigned char* keys,
                          const Int (&first)[2], const Int (&last)[2]) const {
        Sums score, g;
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word b[4];
            load_shared(b, keys + c * kFragment);
            add_product<T>(score, query[c], b);
            load_shared(b, keys + (S::kHead + c) * kFragment);
            transpose(b);
            add_product<T>(g, g_mixed[c], b);
        }
        const Int column = first_column();
        LARES_UNROLL
        for (int r = 0; r < 2; ++r) {
            const Word bits =
                window(r == 0 ? kept.upper : kept.lower, -first[r]) >> as_word(column);
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                LARES_UNROLL
                for (int e = 0; e < 2; ++e) {
                    const int i = 2 * r + e;
                    const Int key = column + (8 * half + e);
                    const Mask visible = both(key >= first[r], key <= last[r]);
                    const Float p = exp2(score.c[half][i] * score_scale - most[r]) * share[r];
                    const Float keeps =
                        select((bits & (1u << (8 * half + e))) != 0u, wide(keep_scale), wide(0.0f));
                    // Softmax: g_score = A (g_A - sum_j A_j g_A_j).
                    const Float g_score =
                        p * (g.c[half][i] * keeps - along[r]) * (score_scale * 0.6931471806f);
                    g.c[half][i] = select(visible, g_score, wide(0.0f));
                    score.c[half][i] = select(visible, p * keeps, wide(0.0f));
                }
            }
        }
        Word g_score[4], weights[4];
        pack_operand<T>(g_score, g);
        pack_operand<T>(weights, score);
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word b[4];
            load_shared(b, keys + c * kFragment);
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) b[i] = select(b[i] == kSpoiltKey, wide(0u), b[i]);
            transpose(b);
            add_product<T>(g_query[c], g_score, b);
        }
        transpose_quarters(g_score);
        transpose_quarters(weights);
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word rows[4] = {query[c][0], query[c][1], query[c][2], query[c][3]};
            transpose_quarters(rows);
            add_outer<T>(g_key[c], g_score, rows);
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) rows[i] = transpose(g_mixed[c][i]);
            add_outer<T>(g_value[c], weights, rows);
        }
    }
};

template <class S>
LARES_DEVICE void store_sums(unsigned char* to, const Sums (&sums)[S::kHead]) {
    LARES_UNROLL
    for (int i = 0; i < 2 * S::kHead; ++i) {
        const Float(&half)[4] = sums[i / 2].c[i % 2];
        const Word words[4] = {as_word(half[0]), as_word(half[1]), as_word(half[2]),
                               as_word(half[3])};
        store_fragment(to + i * kFragment, words);
    }
}

template <class S>
LARES_DEVICE void add_sums(Sums (&sums)[S::kHead], const unsigned char* from) {
    LARES_UNROLL
    for (int i = 0; i < 2 * S::kHead; ++i) {
        Word words[4];
        load_written(words, from + i * kFragment);
        LARES_UNROLL
        for (int k = 0; k < 4; ++k) sums[i / 2].c[i % 2][k] += as_float(words[k]);
    }
}

// State that a warp's layers share in one step of backward.
template <class S>
struct StepBackward {
    const LaresCudaCall& call;
    const Unit& unit;
    const Tile& tile;
    Scratch<S> scratch;
    int scratch_stride;  // bytes from a warp of the unit to the next
    int step;
    bool runs;

    // First key row, and depth, of the first row of a warp of the unit: rows are in order of both.
    LARES_DEVICE int first_of(int warp) const {
        return tile.info[16 * warp * LARES_CUDA_FIELDS + kFirst];
    }
    LARES_DEVICE bool runs_of(int warp) const {
        return tile.info[16 * warp * LARES_CUDA_FIELDS + kDepth] >= step;
    }

    // g_source += the gradient of the attention's input `source`; leaves its units. All warps of
    // the unit meet here.
    LARES_DEVICE void attention(Rows<S>& g_source, const Layer<S>& layer,
                                const LayerDraws<S>& draws, const Spill<S>& spill) const {
        LARES_ROLLED
        for (int head = 0; head < call.n_heads; ++head) {
            const auto weights = layer.head(head);
            const float* bias = layer.vectors + layer.places.head_bias(head);
            unsigned char* own = unit.exchange + tile.warp * S::kOfWarp;
            if (runs) {
                Operand<S> source;
                spill.read_side(source, kAttentionInput);
                head_keys<S>(own, source, weights, bias);
            }
            unit.barrier();
            if constexpr (S::kSpillsInputGradient)
                if (runs) park<S>(scratch.aside(), g_source);
            Sums g_query[S::kHead] = {}, g_key[S::kHead] = {}, g_value[S::kHead] = {};
            if (runs) {
                through_keys(g_query, g_key, g_value, head, weights, bias, draws, spill);
                if constexpr (S::kSpillsInputGradient) keep_units(g_query, spill, head, 0);
            }
            unit.memory_barrier();
            if constexpr (S::kSpillsInputGradient) clear<S>(g_source);
            if (runs) {
                LARES_ROLLED
                for (int later = tile.warp + 1; later < unit.warps; ++later) {
                    if (!runs_of(later) || first_of(later) > 16 * tile.warp + 15) break;
                    const Scratch<S> theirs = {scratch.base + (later - tile.warp) * scratch_stride,
                                               call.n_layers};
                    const unsigned char* from = theirs.keys(later - tile.warp);
                    add_sums<S>(g_key, from);
                    add_sums<S>(g_value, from + 2 * S::kHead * kFragment);
                }
                if constexpr (S::kSpillsInputGradient) {
                    keep_units(g_key, spill, head, 1);
                    keep_units(g_value, spill, head, 2);
                    fetch<S>(g_source, scratch.aside());
                    add_kept_units(g_source, weights, spill, head);
                } else {
                    leave(g_source, g_query, weights, head, 0, spill);
                    leave(g_source, g_key, weights, head, 1, spill);
                    leave(g_source, g_value, weights, head, 2, spill);
                }
            }
            // Before the next head's keys and gradients take the place of these; the next piece is
            // a barrier, too.
            if constexpr (!S::kStaged) unit.barrier();
        }
    }

  private:
    template <class W>
    LARES_DEVICE void through_keys(Sums (&g_query)[S::kHead], Sums (&g_key)[S::kHead],
                                   Sums (&g_value)[S::kHead], int head, const W& weights,
                                   const float* bias, const LayerDraws<S>& draws,
                                   const Spill<S>& spill) const {
        HeadBackward<S> back;
        back.score_scale = call.score_scale;
        back.keep_scale = call.attention.scale;
        back.kept = draws.kept_keys(head);
        Operand<S> rows;
        spill.read_side(rows, kAttentionInput);
        head_query<S>(back.query, rows, weights, bias);
        spill.read_side(rows, kAttentionGradient);
        Sums g_mixed[S::kHead];
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            add_product_back<S>(g_mixed[c], rows, weights, (3 * S::kHead + c) * S::kChunks);
            pack_operand<typename S::Type>(back.g_mixed[c], g_mixed[c]);
        }
        forward_again(back, g_mixed, head, spill);
        back.set_apart();

        const Int row = lane_number() >> 2;
        const Int first[2] = {tile.field(kFirst, tile.upper()) - 16 * tile.warp,
                              tile.field(kFirst, tile.lower()) - 16 * tile.warp};
        // Earlier keys first: what they get is written at once, so that registers are free again.
        const int earliest = first_of(tile.warp);
        LARES_ROLLED
        for (int warp = tile.warp - 1; 16 * warp + 15 >= earliest; --warp) {
            const int distance = tile.warp - warp;
            const Int from[2] = {first[0] + 16 * distance, first[1] + 16 * distance};
            const Int last[2] = {wide(15), wide(15)};
            Sums their_key[S::kHead], their_value[S::kHead];
            back.add(g_query, their_key, their_value, unit.exchange + warp * S::kOfWarp, from,
                     last);
            store_sums<S>(scratch.keys(distance), their_key);
            store_sums<S>(scratch.keys(distance) + 2 * S::kHead * kFragment, their_value);
        }
        const Int own_last[2] = {row, row + 8};
        back.add(g_query, g_key, g_value, unit.exchange + tile.warp * S::kOfWarp, first, own_last);
    }

    // The head forward once more, for the softmax's sums and the mixed values, which are left.
    LARES_DEVICE void forward_again(HeadBackward<S>& back, const Sums (&g_mixed)[S::kHead],
                                    int head, const Spill<S>& spill) const {
        const Int row = lane_number() >> 2;
        Int first[2] = {tile.field(kFirst, tile.upper()) - 16 * tile.warp,
                        tile.field(kFirst, tile.lower()) - 16 * tile.warp};
        const Int own_last[2] = {row, row + 8};
        const int earliest = first_of(tile.warp);
        Softmax<S> softmax;
        softmax.template add<true>(back.query, unit.exchange + tile.warp * S::kOfWarp, first,
                                   own_last, call.score_scale, back.kept);
        LARES_ROLLED
        for (int warp = tile.warp - 1; 16 * warp + 15 >= earliest; --warp) {
            first[0] = first[0] + 16;
            first[1] = first[1] + 16;
            const Int last[2] = {wide(15), wide(15)};
            softmax.template add<false>(back.query, unit.exchange + warp * S::kOfWarp, first, last,
                                        call.score_scale, back.kept);
        }
        LARES_UNROLL
        for (int r = 0; r < 2; ++r) {
            back.most[r] = softmax.most[r];
            back.share[r] = inverse(quad_sum(softmax.total[r]));
        }
        Word mixed[S::kHead][4];
        softmax.finish(mixed, call.attention.scale);
        Float along[2] = {};
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            spill.unit(spill.places.head(head) + 3 * S::kHead + c, mixed[c]);
            LARES_UNROLL
            for (int i = 0; i < 8; ++i) {
                const int r = i % 4 / 2;
                along[r] = multiply_add(g_mixed[c].c[i / 4][i % 4],
                                        softmax.context[c].c[i / 4][i % 4], along[r]);
            }
        }
        back.along[0] = quad_sum(along[0]);
        back.along[1] = quad_sum(along[1]);
    }

    LARES_DEVICE void keep_unit(Word (&operand)[4], const Sums& g, const Spill<S>& spill, int head,
                                int column) const {
        pack_operand<typename S::Type>(operand, g);
        spill.unit(spill.places.head(head) + column, operand);
    }

    // Gradients of queries (0), keys (1) or values (2) of a head go to the input and are left.
    template <class W>
    LARES_DEVICE void leave(Rows<S>& g_source, const Sums (&g)[S::kHead], const W& weights,
                            int head, int which, const Spill<S>& spill) const {
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word operand[4];
            keep_unit(operand, g[c], spill, head, which * S::kHead + c);
            add_to_rows_back<S>(g_source, operand, weights, (which * S::kHead + c) * S::kChunks);
        }
    }

    // The same in two halves, between which they are not held.
    LARES_DEVICE void keep_units(const Sums (&g)[S::kHead], const Spill<S>& spill, int head,
                                 int which) const {
        LARES_UNROLL
        for (int c = 0; c < S::kHead; ++c) {
            Word operand[4];
            keep_unit(operand, g[c], spill, head, which * S::kHead + c);
        }
        forget_written();
    }

    template <class W>
    LARES_DEVICE void add_kept_units(Rows<S>& g_source, const W& weights, const Spill<S>& spill,
                                     int head) const {
        LARES_ROLLED
        for (int column = 0; column < 3 * S::kHead; ++column) {
            Word operand[4];
            load_written(operand, spill.base + (spill.places.head(head) + column) * kFragment);
            add_to_rows_back<S>(g_source, operand, weights, column * S::kChunks);
        }
    }
};

// A branch's gradient from that of the sum it was added to: what dropout kept, scaled, as operand.
template <class S>
LARES_DEVICE void branch_gradient(Operand<S>& g_branch, const Rows<S>& g,
                                  const LayerDraws<S>& draws, int which) {
    Rows<S> branch;
    clear<S>(branch);
    draws.add_branch(branch, g, which);
    pack_rows<S>(g_branch, branch);
}

// The gradient of a layer's output becomes that of its input. `gradients` are the warp's own of the
// layer's LayerNorms, laid out like its vectors.
template <class S>
LARES_DEVICE void layer_backward(Rows<S>& g, const Layer<S>& layer, int index,
                                 const StepBackward<S>& at, LayerDraws<S>& draws, float* gradients,
                                 const Spill<S>& spill) {
    const LaresCudaCall& call = at.call;
    const Scratch<S>& scratch = at.scratch;
    const int attn = layer.places.attn_norm(), ffn = layer.places.ffn_norm();
    Operand<S> source, g_branch;
    Rows<S> x, g_source;
    const auto norm = [&](Rows<S>& of, int tape, int place) {
        fetch<S>(x, scratch.tape(index, tape));
        norm_backward<S>(of, x, layer.vectors + place, gradients + place, call.eps);
    };
    if (at.runs) {
        draws.draw();
        if (!call.pre_norm) norm(g, 2, ffn);
        branch_gradient<S>(g_branch, g, draws, 1);
        spill.side(kInnerGradient, g_branch);
        park<S>(scratch.waiting(), g);
        fetch<S>(x, scratch.tape(index, 1));
        layer_norm<S>(x, layer.vectors + (call.pre_norm ? ffn : attn), call.eps);
        pack_rows<S>(source, x);
        spill.side(kInnerInput, source);
        clear<S>(g_source);
        feed_forward_backward<S>(g_source, source, g_branch, layer, call, spill);
        // Never three sets of rows at a time: wide ones do not fit registers.
        if (call.pre_norm) {
            norm(g_source, 1, ffn);
            fetch<S>(g, scratch.waiting());
            add<S>(g, g_source);
        } else {
            fetch<S>(g, scratch.waiting());
            add<S>(g, g_source);
            norm(g, 1, attn);
        }

        branch_gradient<S>(g_branch, g, draws, 0);
        spill.side(kAttentionGradient, g_branch);
        park<S>(scratch.waiting(), g);
        fetch<S>(x, scratch.tape(index, 0));
        branch_input<S>(source, x, layer.vectors + attn, call);
        spill.side(kAttentionInput, source);
    } else if constexpr (S::kStaged) {
        layer.pass_inner();
    }
    clear<S>(g_source);
    at.attention(g_source, layer, draws, spill);
    clear<S>(g);  // as in Backward::run_step
    if (!at.runs) return;
    if (call.pre_norm) norm(g_source, 0, attn);
    fetch<S>(g, scratch.waiting());
    add<S>(g, g_source);
}

}  // namespace lares::cuda
