// One layer on a warp's rows, post- or pre-norm.
#pragma once

#include "attention.hpp"

namespace lares::cuda {

// A layer's parameters.
template <class S>
struct Layer {
    Fragments<S::kResident> weights;
    const float* vectors;  // in shared memory
    Places<S> places;
};

// What a warp does in a layer. All warps of a unit meet at its barriers, whatever they do.
enum class Work {
    kNone,  // no row of its runs
    kKeys,  // later warps read its keys and values, nobody the rest
    kAll,
};

// The dropout decisions of a layer and step. A quad's four lanes draw for its two rows: lanes 0 and 1
// (rows g and g + 8) the residual's words, lanes 2 and 3 those of the first two heads, or, where a
// row of a branch takes two words, those of the feed-forward's.
template <class S>
struct LayerDraws {
    const LaresCudaCall& call;
    const Tile& tile;
    int layer, step;
    Word words[4];

    LARES_DEVICE Seed seed() const { return {call.seed_low, call.seed_high}; }

    LARES_DEVICE void draw() {
        const Mask second = (lane_number() & 2) != 0;
        const Word residual = wide(site_word(kSiteResidual, layer, step));
        const int planes = call.residual.planes > call.attention.planes || S::kWords > 1
                               ? call.residual.planes
                               : call.attention.planes;
        Word site = residual, pair{}, bits = wide(call.residual.bits);
        if constexpr (S::kWords > 1) {
            pair = select(second, wide(1u), wide(0u));
        } else {
            site = select(second, wide(site_word(kSiteAttention, layer, step)), residual);
            bits = select(second, wide(call.attention.bits), bits);
        }
        draw_words(words, site, pair, bits, planes);
    }

    LARES_DEVICE void draw_words(Word (&to)[4], Word site, Word pair, Word bits, int planes) const {
        const Int row = tile.shared_row();
        keep_words(to, as_word(tile.field(kStream, row)), as_word(tile.field(kPosition, row)), site,
                   pair, bits, planes, seed());
    }

    // Add a branch (0: attention, 1: feed-forward) of which some columns are dropped.
    LARES_DEVICE void add_branch(Rows<S>& x, const Rows<S>& branch, int which) const {
        Word upper[2 * S::kWords], lower[2 * S::kWords];
        LARES_UNROLL
        for (int i = 0; i < 2 * S::kWords; ++i) {
            const Word word = words[S::kWords > 1 ? i : 2 * which + i];
            const int lane = S::kWords > 1 ? 2 * which : 0;
            upper[i] = quad_lane(word, lane);
            lower[i] = quad_lane(word, lane + 1);
        }
        add_dropped<S>(x, branch, upper, lower, call.residual.scale);
    }
};

// Words of two heads' attention dropout, `lane` and the next lane of a quad holding those of rows g and
// g + 8.
template <class S>
struct HeadDraws {
    Word words[4] = {};
    int lane = 0;

    // Get ready for `head`, one after the other.
    LARES_DEVICE void next(const LayerDraws<S>& draws, int head) {
        if (head % 2 != 0) return;
        if (S::kWords == 1 && head == 0) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) words[i] = draws.words[i];
            lane = 2;
        } else {
            const LaresCudaRate& rate = draws.call.attention;
            draws.draw_words(words, wide(site_word(kSiteAttention, draws.layer, draws.step)),
                             wide(uint32_t(head / 2)), wide(rate.bits), rate.planes);
            lane = 0;
        }
    }
    LARES_DEVICE KeptKeys kept(int head) const {
        KeptKeys bits;
        LARES_UNROLL
        for (int i = 0; i < 2; ++i) {
            const Word word = head % 2 == 0 ? words[i] : words[2 + i];
            bits.upper[i] = quad_lane(word, lane);
            bits.lower[i] = quad_lane(word, lane + 1);
        }
        return bits;
    }
};

// acc += W_o (Dropout_attn(A) V); `a` is the branch's input.
template <class S>
LARES_DEVICE void attention(Rows<S>& acc, const Operand<S>& a, const Layer<S>& layer,
                            const Unit& unit, const LayerDraws<S>& draws, Work work) {
    const LaresCudaCall& call = draws.call;
    const Tile& tile = draws.tile;
    HeadDraws<S> head_draws;
    LARES_ROLLED
    for (int head = 0; head < call.n_heads; ++head) {
        const auto weights = layer.weights.from(head * layer.places.head());
        const float* bias = layer.vectors + layer.places.head_bias(head);
        HeadKeys<S> own;
        if (work != Work::kNone) {
            head_keys<S>(own, a, weights, bias);
            if (unit.warps > 1) own.store(unit.exchange + tile.warp * S::kExchange);
        }
        unit.barrier();
        if (work == Work::kAll) {
            Word query[S::kHead][4];
            head_query<S>(query, a, weights, bias);
            KeptKeys kept = {};
            if constexpr (S::kDrops) {
                head_draws.next(draws, head);
                kept = head_draws.kept(head);
            }
            const Int row = lane_number() >> 2;
            Int first[2] = {tile.field(kFirst, tile.upper()), tile.field(kFirst, tile.lower())};
            // No warp before this one holds a row that this one sees.
            const int earliest = 16 * tile.warp - warp_max(16 * tile.warp - smaller(first[0], first[1]));
            first[0] = first[0] - 16 * tile.warp;
            first[1] = first[1] - 16 * tile.warp;
            const Int own_last[2] = {row, row + 8};
            Softmax<S> softmax;
            softmax.template add<true>(query, own, first, own_last, call.score_scale, kept);
            LARES_ROLLED
            for (int warp = tile.warp - 1; 16 * warp + 15 >= earliest; --warp) {
                HeadKeys<S> keys;
                keys.load(unit.exchange + warp * S::kExchange);
                first[0] = first[0] + 16;
                first[1] = first[1] + 16;
                const Int last[2] = {wide(15), wide(15)};
                softmax.template add<false>(query, keys, first, last, call.score_scale, kept);
            }
            Word mixed[S::kHead][4];
            softmax.finish(mixed, S::kDrops ? call.attention.scale : 1.0f);
            LARES_UNROLL
            for (int c = 0; c < S::kHead; ++c)
                add_to_rows<S>(acc, mixed[c], weights, (3 * S::kHead + c) * S::kChunks);
        }
        unit.barrier();  // before the next head's keys take the place of these
    }
}

// acc += W_2 act(W_1 a + b_1), a few columns of the inner layer at a time.
template <class S>
LARES_DEVICE void feed_forward(Rows<S>& acc, const Operand<S>& a, const Layer<S>& layer,
                               const LaresCudaCall& call) {
    constexpr int kParts = kFeedForward / 16;
    const auto weights = layer.weights.from(layer.places.up());
    const float* bias = layer.vectors + layer.places.up_bias();
    LARES_ROLLED
    for (int column = 0; column < call.d_ff; column += kFeedForward) {
        Word inner[kParts][4];
        const int part = column / 16 * 2 * S::kChunks;
        LARES_UNROLL
        for (int i = 0; i < kParts; ++i) {
            Sums s = column_bias(bias + column + 16 * i);
            add_product<S>(s, a, weights, part + i * 2 * S::kChunks);
            activate(s.c[0], call.activation);
            activate(s.c[1], call.activation);
            pack_operand<typename S::Type>(inner[i], s);
        }
        LARES_UNROLL
        for (int i = 0; i < kParts; ++i)
            add_to_rows<S>(acc, inner[i], weights, part + (2 * i + 1) * S::kChunks);
    }
}

// The input of a branch: the rows, normalised first in a pre-norm layer.
template <class S>
LARES_DEVICE void branch_input(Operand<S>& a, const Rows<S>& x, const float* norm,
                               const LaresCudaCall& call) {
    if (call.pre_norm) {
        Rows<S> normal;
        LARES_UNROLL
        for (int j = 0; j < S::kBlocks; ++j) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) normal[j][i] = x[j][i];
        }
        layer_norm<S>(normal, norm, call.eps);
        pack_rows<S>(a, normal);
    } else {
        pack_rows<S>(a, x);
    }
}

// x of the next layer from x of this one.
template <class S>
LARES_DEVICE void layer_forward(Rows<S>& x, const Layer<S>& layer, const Unit& unit,
                                LayerDraws<S>& draws, Work work) {
    const LaresCudaCall& call = draws.call;
    const float *vectors = layer.vectors, *attn_norm = vectors + layer.places.attn_norm(),
                *ffn_norm = vectors + layer.places.ffn_norm();
    Operand<S> a;
    // Without dropout a branch is summed on top of the rows it is added to: no registers of its own.
    Rows<S> branch;
    auto& sums = *(S::kDrops ? &branch : &x);
    if (work != Work::kNone) {
        branch_input<S>(a, x, attn_norm, call);
        if constexpr (S::kDrops) {
            draws.draw();
            clear<S>(branch);
        }
        add_bias<S>(sums, vectors + layer.places.out_bias());
    }
    attention<S>(sums, a, layer, unit, draws, work);
    if (work != Work::kAll) return;
    if constexpr (S::kDrops) draws.add_branch(x, branch, 0);
    if (!call.pre_norm) layer_norm<S>(x, attn_norm, call.eps);

    branch_input<S>(a, x, ffn_norm, call);
    if constexpr (S::kDrops) clear<S>(branch);
    add_bias<S>(sums, vectors + layer.places.down_bias());
    feed_forward<S>(sums, a, layer, call);
    if constexpr (S::kDrops) draws.add_branch(x, branch, 1);
    if (!call.pre_norm) layer_norm<S>(x, ffn_norm, call.eps);
}

}  // namespace lares::cuda
