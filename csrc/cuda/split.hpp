// The low-latency plan, for calls of few sequences: a block takes one sequence through all steps,
// and what a layer computes is split by columns between all its warps. One launch does a whole
// call.
//
// State and residual sums are rows of eight lanes, four rows a warp, in registers for all steps.
// All else crosses shared memory between phases: operands in fragments, as many for each 16 rows,
// and sums in float32.
#pragma once

#include "attention.hpp"
#include "layer.hpp"
#include "split_rows.hpp"

namespace lares::cuda {

// Shared memory of a block after weights and vectors. What a phase writes lies where nothing is
// that another warp may still read in it:
//   heads (queries, keys and values; sums of W_o) | rest (the attention's input, then mixed values)
//   activated, over both of them
//   sums (the feed-forward's input; then sums of W_2)
template <class S>
struct SplitPlaces {
    int heads, rest, activated, sums;

    LARES_DEVICE SplitPlaces(const LaresCudaCall& call, int first) : heads(first) {
        const int tiles = call.unit_warps, mixed = call.n_heads * S::kHead;
        const int input = mixed > S::kChunks ? mixed : S::kChunks;
        rest = heads + tiles * 3 * mixed * kFragment;
        activated = heads;
        const int attention = 3 * mixed + input, inner = call.d_ff / 16;
        sums = heads + tiles * (attention > inner ? attention : inner) * kFragment;
    }
};

template <class S>
struct Split {
    static_assert(!S::kDrops, "a call with dropout runs in tiles");
    using T = typename S::Type;
    static constexpr int kMaxWarps = 16;

    const LaresCudaCall& call;
    const Block& block;
    unsigned char* shared;
    Places<S> places;
    int vectors_at;
    SplitPlaces<S> at;

    LARES_DEVICE Split(const LaresCudaCall& call, const Block& block, unsigned char* shared)
        : call(call),
          block(block),
          shared(shared),
          places{call.n_heads, call.d_ff},
          vectors_at(S::kResident ? call.n_layers * places.layer() * kFragment : 0),
          at(call, vectors_at + places.vectors(call.n_layers) * 4) {}

    LARES_DEVICE const float* vectors() const {
        return reinterpret_cast<const float*>(shared + vectors_at);
    }
    LARES_DEVICE float* sums(int offset) const { return reinterpret_cast<float*>(shared + offset); }

    LARES_DEVICE void run() const {
        if constexpr (S::kResident)
            copy_shared(block, shared, call.matrices, call.n_layers * places.layer() * kFragment);
        copy_shared(block, shared + vectors_at, call.vectors, places.vectors(call.n_layers) * 4);
        const SplitRows<S> rows(call, block);
        OwnRow<S> x = {};
        if (rows.any && call.adapter != LARES_ADAPTER_NONE) rows.first_state(x);
        copies_done();
        block.barrier();
        LARES_ROLLED
        for (int step = 1; step <= rows.depth; ++step) {
            step_input(x, rows);
            LARES_ROLLED
            for (int index = 0; index < call.n_layers; ++index) {
                const bool ends = step == rows.depth && index + 1 == call.n_layers;
                layer(x, rows, index, ends && call.final_state == nullptr);
            }
            if (rows.any) rows.write(x, step);
        }
    }

    // LayerNorm_core(adapter(s, H)), or H alone.
    LARES_DEVICE void step_input(OwnRow<S>& x, const SplitRows<S>& rows) const {
        OwnRow<S> hidden;
        rows.load(hidden, call.hidden, rows.hidden_row);
        if (call.adapter == LARES_ADAPTER_NONE) {
            copy_row<S>(x, hidden);
            return;
        }
        if (call.adapter == LARES_ADAPTER_CONCAT) {
            const Fragments<false> weights = {static_cast<const unsigned char*>(call.matrices) +
                                              call.n_layers * places.layer() * kFragment};
            const auto place = [](int n, int k) {
                return (k / S::kChunks * S::kChunks + n) * S::kChunks + k % S::kChunks;
            };
            if (rows.any) {
                rows.put_operand(shared + at.heads, 2 * S::kChunks, 0, x);
                rows.put_operand(shared + at.heads, 2 * S::kChunks, S::kChunks, hidden);
            }
            block.barrier();
            multiply(shared + at.heads, 2 * S::kChunks, weights, place, sums(at.sums), 1, 0, rows);
            block.barrier();
            clear_row<S>(x);
            if (rows.any)
                rows.add_sums(x, sums(at.sums), 1, vectors() + places.concat_bias(call.n_layers));
        } else {
            mix_rows<S>(x, hidden,
                        state_share(call.adapter, vectors() + places.gate(call.n_layers)));
        }
        row_norm<S>(x, vectors() + places.core_norm(call.n_layers), call.eps);
    }

    // x of the next layer from x of this one; `newest`: of the rows past attention the last 16
    // alone are wanted.
    LARES_DEVICE void layer(OwnRow<S>& x, const SplitRows<S>& rows, int index, bool newest) const {
        const Fragments<S::kResident> weights = {
            (S::kResident ? shared : static_cast<const unsigned char*>(call.matrices)) +
            index * places.layer() * kFragment};
        const float* of_layer = vectors() + index * places.layer_vector();
        const float *attn_norm = of_layer + places.attn_norm(),
                    *ffn_norm = of_layer + places.ffn_norm();
        const int from = newest ? rows.tiles - 1 : 0, mixed = call.n_heads * S::kHead;

        if (rows.any) rows.put_input(shared + at.rest, x, call.pre_norm ? attn_norm : nullptr);
        block.barrier();
        project(weights, of_layer, rows);
        block.barrier();
        attend(rows, from);
        block.barrier();
        const auto out_place = [&](int n, int k) {
            const int head = k / S::kHead, part = k - head * S::kHead;
            return head * places.head() + (3 * S::kHead + part) * S::kChunks + n;
        };
        multiply(shared + at.rest, mixed, weights, out_place, sums(at.heads), 1, from, rows);
        block.barrier();
        if (rows.any) {
            rows.add_sums(x, sums(at.heads), 1, of_layer + places.out_bias());
            if (!call.pre_norm) row_norm<S>(x, attn_norm, call.eps);
            rows.put_input(shared + at.sums, x, call.pre_norm ? ffn_norm : nullptr);
        }
        block.barrier();
        expand(weights, of_layer + places.up_bias(), from, rows);
        block.barrier();
        const auto down_place = [&](int n, int k) {
            return places.up() + (2 * k + 1) * S::kChunks + n;
        };
        multiply(shared + at.activated, call.d_ff / 16, weights, down_place, sums(at.sums),
                 call.split_parts, from, rows);
        block.barrier();
        if (rows.any) {
            rows.add_sums(x, sums(at.sums), call.split_parts, of_layer + places.down_bias());
            if (!call.pre_norm) row_norm<S>(x, ffn_norm, call.eps);
        }
    }

    // Queries, keys and values of all heads: a warp takes 16 columns for all rows.
    LARES_DEVICE void project(const Fragments<S::kResident>& weights, const float* of_layer,
                              const SplitRows<S>& rows) const {
        const int columns = call.n_heads * 3 * S::kHead;
        LARES_ROLLED
        for (int unit = block.warp; unit < columns; unit += block.warps) {
            const int head = unit / (3 * S::kHead), part = unit - head * 3 * S::kHead;
            const auto held = hold<S>(weights, head * places.head() + part * S::kChunks);
            const float* bias = of_layer + places.head_bias(head) + 16 * part;
            LARES_ROLLED
            for (int tile = 0; tile < rows.tiles; ++tile) {
                Operand<S> a;
                load_operand<S>(a, shared + at.rest + tile * S::kChunks * kFragment);
                Word made[4];
                if (part < S::kHead)
                    project_query<S>(made, a, held, 0, bias);
                else if (part < 2 * S::kHead)
                    project_key<S>(made, a, held, 0, bias);
                else
                    project_value<S>(made, a, held, 0, bias);
                store_shared(head_of(tile, head) + part * kFragment, made);
            }
        }
    }

    // Query, key and value of a head, of 16 rows.
    LARES_DEVICE unsigned char* head_of(int tile, int head) const {
        return shared + at.heads + (tile * call.n_heads + head) * 3 * S::kHead * kFragment;
    }

    // Mixed values: a warp takes 16 rows of a head.
    LARES_DEVICE void attend(const SplitRows<S>& rows, int from) const {
        const int count = (rows.tiles - from) * call.n_heads;
        LARES_ROLLED
        for (int unit = block.warp; unit < count; unit += block.warps) {
            const int tile = from + unit / call.n_heads, head = unit % call.n_heads;
            Word query[S::kHead][4];
            LARES_UNROLL
            for (int c = 0; c < S::kHead; ++c)
                load_shared(query[c], head_of(tile, head) + c * kFragment);
            const Int row = lane_number() >> 2;
            const Int first[2] = {wide(0), wide(0)}, own_last[2] = {row, row + 8},
                      last[2] = {wide(15), wide(15)};
            Softmax<S> softmax;
            const int keys = S::kHead * kFragment;
            softmax.template add<true>(query, head_of(tile, head) + keys, first, own_last,
                                       call.score_scale, {});
            LARES_ROLLED
            for (int earlier = tile - 1; earlier >= 0; --earlier)
                softmax.template add<false>(query, head_of(earlier, head) + keys, first, last,
                                            call.score_scale, {});
            Word mixed[S::kHead][4];
            softmax.finish(mixed, 1.0f);
            unsigned char* to =
                shared + at.rest + (tile * call.n_heads + head) * S::kHead * kFragment;
            LARES_UNROLL
            for (int c = 0; c < S::kHead; ++c) store_shared(to + c * kFragment, mixed[c]);
        }
    }

    // act(W_1 a + b_1): a warp takes 16 columns of the inner layer for all rows.
    LARES_DEVICE void expand(const Fragments<S::kResident>& weights, const float* bias, int from,
                             const SplitRows<S>& rows) const {
        const int columns = call.d_ff / 16;
        LARES_ROLLED
        for (int column = block.warp; column < columns; column += block.warps) {
            const auto held = hold<S>(weights, places.up() + 2 * column * S::kChunks);
            LARES_ROLLED
            for (int tile = from; tile < rows.tiles; ++tile) {
                Operand<S> a;
                load_operand<S>(a, shared + at.sums + tile * S::kChunks * kFragment);
                Sums inner = column_bias(bias + 16 * column);
                add_product<S>(inner, a, held, 0);
                activate(call.activation, [&](auto function) {
                    LARES_UNROLL
                    for (int i = 0; i < 8; ++i) {
                        Float& x = inner.c[i / 4][i % 4];
                        x = function(x);
                    }
                });
                Word made[4];
                pack_operand<T>(made, inner);
                store_shared(shared + at.activated + (tile * columns + column) * kFragment, made);
            }
        }
    }

    // to = a W^T, all outputs of `chunks` fragments of inputs: a warp takes 16 columns of 16 rows,
    // and one of `parts` of the inputs, whose sums lie one after the other. `place` says where the
    // fragment of outputs n and inputs k is.
    template <class W, class Place>
    LARES_DEVICE void multiply(const unsigned char* operand, int chunks, const W& weights,
                               Place place, float* to, int parts, int from,
                               const SplitRows<S>& rows) const {
        const int units = (rows.tiles - from) * S::kChunks * parts;
        LARES_ROLLED
        for (int unit = block.warp; unit < units; unit += block.warps) {
            const int n = unit % S::kChunks, rest = unit / S::kChunks;
            const int part = rest % parts, tile = from + rest / parts;
            const unsigned char* a = operand + tile * chunks * kFragment;
            // Two chains of products, which need not wait for each other; chunks come in pairs.
            Sums s[2];
            const int end = chunks * (part + 1) / parts;
            for (int k = chunks * part / parts; k < end; k += 2) {
                LARES_UNROLL
                for (int i = 0; i < 2; ++i) {
                    Word w[4], x[4];
                    weights.load(w, place(n, k + i));
                    load_shared(x, a + (k + i) * kFragment);
                    add_product<T>(s[i], x, w);
                }
            }
            const Int row = 16 * tile + (lane_number() >> 2), column = first_column() + 16 * n;
            float* base = to + part * rows.part_size();
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                LARES_UNROLL
                for (int r = 0; r < 2; ++r)
                    store_pair(base, (row + 8 * r) * kSumStride<S> + column + 8 * half,
                               s[0].c[half][2 * r] + s[1].c[half][2 * r],
                               s[0].c[half][2 * r + 1] + s[1].c[half][2 * r + 1]);
            }
        }
    }
};

}  // namespace lares::cuda
