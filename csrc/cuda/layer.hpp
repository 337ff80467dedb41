// One layer on a warp's rows, post- or pre-norm.
#pragma once

#include "activations.hpp"
#include "attention.hpp"
#include "stage.hpp"

namespace lares::cuda {

// The order in which staged weights are taken: that in which they lie, for all layers; or backward
// layers from last to first, of each the feed-forward before the heads, after all layers in the
// former order, which come again.
enum class Pass { kForward, kAgain, kBackward };

// A layer's parameters.
template <class S>
struct Layer {
    Fragments<S::kResident> weights;
    const float* vectors;  // in shared memory
    Places<S> places;
    // Of staged weights.
    int index, layers;
    Stage<S>* stage;
    Pass pass;

    // A head's weights, of which `half` of wide rows if they are staged: first queries and keys,
    // then values and outputs. Fragments are numbered from the head's first in any case.
    LARES_DEVICE auto head(int number, int half = 0) const {
        if constexpr (S::kStaged)
            return take(number * S::kHeadPieces + half).from(-half * S::kPiece);
        else
            return weights.from(number * places.head());
    }

    // The feed-forward's weights, if staged those of a piece that begins with fragment `part`.
    LARES_DEVICE auto inner(int part = 0) const {
        if constexpr (S::kStaged)
            return take((places.up() + part) / S::kPiece);
        else
            return weights.from(places.up() + part);
    }
    // Staged: how a warp that has no use for the feed-forward meets the others.
    LARES_DEVICE void pass_inner() const {
        LARES_ROLLED
        for (int part = 0; part < places.layer() - places.up(); part += S::kPiece) inner(part);
    }

  private:
    // Take a piece, and have the next brought; the first of all after the last, for another step or
    // tile.
    LARES_DEVICE Fragments<true> take(int piece) const {
        const int size = places.layer(), up = places.up();
        int of = index, first = (piece + 1) * S::kPiece;
        if (pass == Pass::kBackward) {
            if (first == up) {
                of = index > 0 ? index - 1 : 0;
                first = index > 0 ? up : 0;
            } else if (first >= size) {
                first = 0;
            }
        } else if (first >= size) {
            const bool ends = index + 1 == layers, turns = ends && pass == Pass::kAgain;
            of = turns ? index : ends ? 0 : index + 1;
            first = turns ? up : 0;
        }
        const int left = size - first;
        return stage->take(of * size + first, left < S::kPiece ? left : S::kPiece);
    }
};

// A warp's part in a layer. All warps of a unit meet at its barriers, whatever they do.
enum class Work {
    kNone,  // no row of its runs
    kKeys,  // later warps read its keys and values only
    kAll,
};

// The dropout decisions of a layer and step. A quad's four lanes draw for its two rows: lanes 0 and
// 1 (rows g and g + 8) the residual's words, lanes 2 and 3 those of the first two heads. Those of
// wide rows are drawn where they are needed, a branch or two heads at a time.
template <class S>
struct LayerDraws {
    const LaresCudaCall& call;
    const Tile& tile;
    int layer, step;
    Word words[4];

    LARES_DEVICE Seed seed() const { return seed_at(call.seed); }

    LARES_DEVICE void draw() {
        if constexpr (S::kSpillsResidual) return;
        const Mask second = (lane_number() & 2) != 0;
        const Word site = select(second, wide(site_word(kSiteAttention, layer, step)),
                                 wide(site_word(kSiteResidual, layer, step)));
        const Word bits = select(second, wide(call.attention.bits), wide(call.residual.bits));
        const int planes = call.residual.planes > call.attention.planes ? call.residual.planes
                                                                        : call.attention.planes;
        draw_words(words, site, 0, bits, planes);
    }

    LARES_DEVICE void draw_words(Word (&to)[4], Word site, int pair, Word bits, int planes) const {
        const Int row = tile.shared_row();
        keep_words(to, as_word(tile.field(kStream, row)), as_word(tile.field(kPosition, row)), site,
                   pair, bits, planes, seed());
    }

    // A head's bits of attention dropout. Those of the first two are there, the others are drawn
    // when they are needed, rather than held in registers.
    LARES_DEVICE KeptKeys kept_keys(int head) const {
        Word pair[4];
        int lane = 0;
        if (!S::kSpillsResidual && head < 2) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) pair[i] = words[i];
            lane = 2;
        } else {
            draw_words(pair, wide(site_word(kSiteAttention, layer, step)), head / 2,
                       wide(call.attention.bits), call.attention.planes);
        }
        KeptKeys kept;
        LARES_UNROLL
        for (int i = 0; i < 2; ++i) {
            const Word word = head % 2 == 0 ? pair[i] : pair[2 + i];
            kept.upper[i] = quad_lane(word, lane);
            kept.lower[i] = quad_lane(word, lane + 1);
        }
        return kept;
    }

    // Add a branch (0: attention, 1: feed-forward) of which some columns are dropped.
    LARES_DEVICE void add_branch(Rows<S>& x, const Rows<S>& branch, int which) const {
        Word drawn[4], upper[S::kKeepWords], lower[S::kKeepWords];
        if constexpr (S::kSpillsResidual)
            draw_words(drawn, wide(site_word(kSiteResidual, layer, step)), which,
                       wide(call.residual.bits), call.residual.planes);
        LARES_UNROLL
        for (int i = 0; i < S::kKeepWords; ++i) {
            const Word word = S::kSpillsResidual ? drawn[i] : words[2 * which + i];
            upper[i] = quad_lane(word, 0);
            lower[i] = quad_lane(word, 1);
        }
        add_dropped<S>(x, branch, upper, lower, call.residual.scale);
    }
};

// acc += W_o (Dropout_attn(A) V); `a` is the branch's input.
template <class S>
LARES_DEVICE void attention(Rows<S>& acc, const Operand<S>& a, const Layer<S>& layer,
                            const Unit& unit, const LayerDraws<S>& draws, Work work) {
    const LaresCudaCall& call = draws.call;
    const Tile& tile = draws.tile;
    unsigned char* own = unit.exchange + tile.warp * S::kOfWarp;
    constexpr bool kHalves = S::kStaged && S::kHeadPieces == 2;
    LARES_ROLLED
    for (int head = 0; head < call.n_heads; ++head) {
        auto weights = layer.head(head);
        const float* bias = layer.vectors + layer.places.head_bias(head);
        Word query[S::kHead][4] = {};
        if constexpr (kHalves) {
            LeftKeys<S> left = {own};
            if (work != Work::kNone) left.leave_keys(a, weights, bias);
            if (work == Work::kAll) head_query<S>(query, a, weights, bias);
            weights = layer.head(head, 1);
            if (work != Work::kNone) {
                left.leave_values(a, weights, bias);
                left.set_apart();
            }
        } else {
            if (work != Work::kNone) head_keys<S>(own, a, weights, bias);
        }
        unit.barrier();
        if (work == Work::kAll) {
            KeptKeys kept = {};
            if constexpr (S::kDrops) kept = draws.kept_keys(head);
            if constexpr (!kHalves) head_query<S>(query, a, weights, bias);
            const Int row = lane_number() >> 2;
            Int first[2] = {tile.field(kFirst, tile.upper()), tile.field(kFirst, tile.lower())};
            // No warp before this one holds a row that this one sees.
            const int earliest =
                16 * tile.warp - warp_max(16 * tile.warp - smaller(first[0], first[1]));
            first[0] = first[0] - 16 * tile.warp;
            first[1] = first[1] - 16 * tile.warp;
            const Int own_last[2] = {row, row + 8};
            Softmax<S> softmax;
            softmax.template add<true>(query, own, first, own_last, call.score_scale, kept);
            LARES_ROLLED
            for (int warp = tile.warp - 1; 16 * warp + 15 >= earliest; --warp) {
                first[0] = first[0] + 16;
                first[1] = first[1] + 16;
                const Int last[2] = {wide(15), wide(15)};
                softmax.template add<false>(query, unit.exchange + warp * S::kOfWarp, first, last,
                                            call.score_scale, kept);
            }
            Word mixed[S::kHead][4];
            softmax.finish(mixed, S::kDrops ? call.attention.scale : 1.0f);
            LARES_UNROLL
            for (int c = 0; c < S::kHead; ++c)
                add_to_rows<S>(acc, mixed[c], weights, (3 * S::kHead + c) * S::kChunks);
        }
        // Before the next head's keys take the place of these; the next piece is a barrier, too.
        if constexpr (!S::kStaged) unit.barrier();
    }
}

// acc += W_2 act(W_1 a + b_1), a few columns of the inner layer at a time.
template <class S>
LARES_DEVICE void feed_forward(Rows<S>& acc, const Operand<S>& a, const Layer<S>& layer,
                               const LaresCudaCall& call) {
    auto weights = layer.inner();
    const float* bias = layer.vectors + layer.places.up_bias();
    LARES_ROLLED
    for (int column = 0; column < call.d_ff; column += 16 * S::kInner) {
        Sums inner[S::kInner];
        int part = column / 16 * 2 * S::kChunks;
        if constexpr (S::kStaged) {
            if (part > 0 && part % S::kPiece == 0) weights = layer.inner(part);
            part %= S::kPiece;
        }
        LARES_UNROLL
        for (int i = 0; i < S::kInner; ++i) {
            inner[i] = column_bias(bias + column + 16 * i);
            add_product<S>(inner[i], a, weights, part + i * 2 * S::kChunks);
        }
        activate(call.activation, [&](auto function) {
            LARES_UNROLL
            for (int i = 0; i < 8 * S::kInner; ++i) {
                Float& x = inner[i / 8].c[i / 4 % 2][i % 4];
                x = function(x);
            }
        });
        LARES_UNROLL
        for (int i = 0; i < S::kInner; ++i) {
            Word activated[4];
            pack_operand<typename S::Type>(activated, inner[i]);
            add_to_rows<S>(acc, activated, weights, part + (2 * i + 1) * S::kChunks);
        }
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

// A layer's tape for backward; forward keeps none.
struct NoTape {
    template <class S>
    LARES_DEVICE void keep(int, const Rows<S>&) const {}
};

// x of the next layer from x of this one. `tape` receives x and both residual sums before any
// LayerNorm of them.
template <class S, class Tape>
LARES_DEVICE void layer_forward(Rows<S>& x, const Layer<S>& layer, const Unit& unit,
                                LayerDraws<S>& draws, Work work, const Tape& tape) {
    const LaresCudaCall& call = draws.call;
    unsigned char* waiting = unit.exchange + draws.tile.warp * S::kOfWarp + S::kExchange;
    const float *vectors = layer.vectors, *attn_norm = vectors + layer.places.attn_norm(),
                *ffn_norm = vectors + layer.places.ffn_norm();
    // Set also where nothing is done: what may be left from before would be held in registers
    // through all steps.
    Operand<S> a = {};
    // Without dropout a branch is summed on top of the rows it is added to: no registers of its
    // own.
    Rows<S> branch = {};
    auto& sums = *(S::kDrops ? &branch : &x);
    if (work != Work::kNone) {
        tape.template keep<S>(0, x);
        branch_input<S>(a, x, attn_norm, call);
        if constexpr (S::kDrops) draws.draw();
        if constexpr (S::kSpillsResidual) park<S>(waiting, x);
        add_bias<S>(sums, vectors + layer.places.out_bias());
    }
    attention<S>(sums, a, layer, unit, draws, work);
    if (work != Work::kAll) {
        clear<S>(x);  // unread; cleared, it needs no registers meanwhile
        if constexpr (S::kStaged) layer.pass_inner();
        return;
    }
    if constexpr (S::kSpillsResidual) fetch<S>(x, waiting);
    if constexpr (S::kDrops) draws.add_branch(x, branch, 0);
    tape.template keep<S>(1, x);
    if (!call.pre_norm) layer_norm<S>(x, attn_norm, call.eps);

    branch_input<S>(a, x, ffn_norm, call);
    if constexpr (S::kSpillsResidual) park<S>(waiting, x);
    if constexpr (S::kDrops) clear<S>(branch);
    add_bias<S>(sums, vectors + layer.places.down_bias());
    feed_forward<S>(sums, a, layer, call);
    if constexpr (S::kSpillsResidual) fetch<S>(x, waiting);
    if constexpr (S::kDrops) draws.add_branch(x, branch, 1);
    tape.template keep<S>(2, x);
    if (!call.pre_norm) layer_norm<S>(x, ffn_norm, call.eps);
}

}  // namespace lares::cuda
