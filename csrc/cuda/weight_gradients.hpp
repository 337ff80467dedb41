// Gradients of matrices and biases: products over all tokens and steps of what backward left.
//
// A warp takes one unit (16 rows or columns of a matrix) and a part of the tokens. Parts are added
// by the caller, in order: two runs give the same bits. The warps of a block take neighbouring
// units of the same tokens, whose side they find in the nearest cache.
#pragma once

#include "products.hpp"
#include "spill.hpp"

namespace lares::cuda {

// One kernel for heads of any width, which are counted in 16s: to `from` and `to` each 16 columns
// are a head of their own, which comes to the same places. Ahead: operands of a tile are loaded
// while those of the one before are multiplied. Transposed: backward left the sides so, of which
// each is read by many warps, a unit by one. The sums are the same, in the same order.
template <class T, int D, bool Ahead, bool Transposed>
struct WeightGradients {
    using S = Shape<T, D, 1, false, true>;
    static constexpr int kMaxWarps = 4;

    const LaresCudaCall& call;
    const Block& block;
    SpillPlaces<S> from;
    Places<S> to;

    LARES_DEVICE WeightGradients(const LaresCudaCall& call, const Block& block, unsigned char*)
        : call(call),
          block(block),
          from{call.n_heads * call.head_tiles, call.d_ff},
          to{call.n_heads * call.head_tiles, call.d_ff} {}

    // A unit, and where its products go.
    struct Unit {
        const unsigned char* units;  // of the first step and warp's tile
        const unsigned char* sides;
        int64_t step, tile;  // bytes to the next
        bool gradient;  // the unit is the gradient, the side the input; else the other way round
        int fragment;   // packed, of the product with the first 16 columns of the side
        int stride;     // of packed fragments, from there to the next 16 columns
        int bias;       // of the gradient, or -1: not wanted
    };

    LARES_DEVICE void run() const {
        const int of_layers = call.n_layers * from.units();
        const int units = of_layers + (call.concat_spill == nullptr ? 0 : 2 * S::kChunks);
        const int groups = (units + block.warps - 1) / block.warps;
        const int split = block.index / groups;
        const int number = (block.index - split * groups) * block.warps + block.warp;
        if (number >= units) return;
        const Unit unit = number < of_layers
                              ? layer_unit(number / from.units(), number % from.units())
                              : concat_unit(number - of_layers);
        multiply(unit, split);
    }

  private:
    LARES_DEVICE int64_t warp_tiles() const { return int64_t(call.max_tiles) * call.unit_warps; }

    LARES_DEVICE Unit layer_unit(int layer, int index) const {
        const int matrices = layer * to.layer(), vectors = layer * to.layer_vector();
        Unit unit;
        int side;
        unit.stride = 1;
        unit.bias = -1;
        if (index < from.inner_gradient()) {
            // Units of a head: query, key, value, which have biases, and mixed values.
            const int biased = 3 * call.head_tiles, of_head = 4 * call.head_tiles;
            const int head = index / of_head, part = index % of_head;
            unit.gradient = part < biased;
            unit.fragment = matrices + index * S::kChunks;
            side = unit.gradient ? kAttentionInput : kAttentionGradient;
            if (unit.gradient) unit.bias = vectors + 16 * (head * biased + part);
            if (index == biased) unit.bias = vectors + to.out_bias();
        } else if (index < from.activated()) {
            const int part = index - from.inner_gradient();
            unit.gradient = true;
            unit.fragment = matrices + to.up() + 2 * part * S::kChunks;
            side = kInnerInput;
            unit.bias = vectors + to.up_bias() + 16 * part;
        } else {
            const int part = index - from.activated();
            unit.gradient = false;
            unit.fragment = matrices + to.up() + (2 * part + 1) * S::kChunks;
            side = kInnerGradient;
            if (part == 0) unit.bias = vectors + to.down_bias();
        }
        unit.tile = int64_t(from.all()) * kFragment;
        unit.step = call.n_layers * warp_tiles() * unit.tile;
        const unsigned char* base =
            static_cast<const unsigned char*>(call.spill) + layer * warp_tiles() * unit.tile;
        unit.units = base + index * kFragment;
        unit.sides = base + from.side(side) * kFragment;
        return unit;
    }

    // 16 columns of the matrix of `concat`: of the state, then of H.
    LARES_DEVICE Unit concat_unit(int index) const {
        const int half = index / S::kChunks, column = index % S::kChunks;
        Unit unit;
        unit.gradient = false;
        unit.fragment = call.n_layers * to.layer() + half * S::kChunks * S::kChunks + column;
        unit.stride = S::kChunks;
        unit.bias = index == 0 ? to.concat_bias(call.n_layers) : -1;
        unit.tile = 3 * S::kChunks * kFragment;
        unit.step = warp_tiles() * unit.tile;
        const auto* base = static_cast<const unsigned char*>(call.concat_spill);
        unit.units = base + index * kFragment;
        unit.sides = base + 2 * S::kChunks * kFragment;
        return unit;
    }

    // A unit's operands of 16 tokens.
    struct Operands {
        Word own[4], side[S::kChunks][4];
    };

    // Tile `tile` of 16 rows at a step from first_step on. The depth of its first row is compared
    // where it is needed, and not before: it has to come from memory.
    struct Place {
        int step, tile, depth;
    };

    // The i-th one of all steps; one that runs no step past the last.
    LARES_DEVICE Place place_of(int i, int tiles, int end) const {
        const int step = i < end ? i / tiles : 0, tile = i < end ? i - step * tiles : 0;
        const int32_t* info = call.rows + int64_t(16) * tile * LARES_CUDA_FIELDS;
        return {step, tile, i < end ? info[kDepth] : 0};
    }
    // Rows are in order of depth: if the first of 16 does not run, none does.
    LARES_DEVICE bool runs(const Place& place) const {
        return place.depth >= call.first_step + place.step;
    }

    LARES_DEVICE int64_t start_of(const Unit& unit, const Place& place) const {
        return place.step * unit.step + place.tile * unit.tile;
    }
    LARES_DEVICE void load(Operands& to, const Unit& unit, const Place& place) const {
        const int64_t at = start_of(unit, place);
        load_fragment(to.own, unit.units + at);
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k)
            load_fragment(to.side[k], unit.sides + at + k * kFragment);
    }

    struct Products {
        Sums sums[S::kChunks];
        // Over tokens: of the unit if it is the gradient, else of each 16 columns of the side.
        Sums totals[S::kChunks];
    };

    // side_of(k, words) gives the k-th 16 columns of the side.
    template <class Sides>
    LARES_DEVICE void add(Products& to, const Unit& unit, Word (&own)[4], Sides side_of) const {
        const Word ones[4] = {pack<T>(wide(1.0f), wide(1.0f)), pack<T>(wide(1.0f), wide(1.0f)),
                              pack<T>(wide(1.0f), wide(1.0f)), pack<T>(wide(1.0f), wide(1.0f))};
        transpose_quarters(own);
        if (unit.gradient) add_outer<T>(to.totals[0], own, ones);
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) {
            Word side[4];
            side_of(k, side);
            if constexpr (!Transposed) transpose_quarters(side);
            if (unit.gradient) {
                add_outer<T>(to.sums[k], own, side);
            } else {
                add_outer<T>(to.sums[k], side, own);
                if (unit.bias >= 0) add_outer<T>(to.totals[k], side, ones);
            }
        }
    }

    LARES_DEVICE void multiply(const Unit& unit, int split) const {
        Products products;
        const int tiles = *call.tile_count * call.unit_warps;
        const int end = (call.last_step - call.first_step + 1) * tiles;
        if constexpr (Ahead) {
            Operands operands = {};
            const auto side_of = [&](int k, Word(&side)[4]) {
                LARES_UNROLL
                for (int i = 0; i < 4; ++i) side[i] = operands.side[k][i];
            };
            Place here = place_of(split, tiles, end);
            Place there = place_of(split + call.splits, tiles, end);
            if (runs(here)) load(operands, unit, here);
            LARES_ROLLED
            for (int i = split; i < end; i += call.splits) {
                Operands next = {};
                if (runs(there)) load(next, unit, there);
                const Place after = place_of(i + 2 * call.splits, tiles, end);
                if (runs(here)) add(products, unit, operands.own, side_of);
                operands = next;
                here = there;
                there = after;
            }
        } else {
            LARES_ROLLED
            for (int i = split; i < end; i += call.splits) {
                const Place here = place_of(i, tiles, end);
                if (!runs(here)) continue;
                const int64_t at = start_of(unit, here);
                Word own[4];
                load_fragment(own, unit.units + at);
                add(products, unit, own, [&](int k, Word(&side)[4]) {
                    load_fragment(side, unit.sides + at + k * kFragment);
                });
            }
        }
        write(unit, split, products.sums, products.totals);
    }

    LARES_DEVICE void write(const Unit& unit, int split, const Sums (&sums)[S::kChunks],
                            const Sums (&totals)[S::kChunks]) const {
        const int concat = call.concat_spill == nullptr ? 0 : 2 * S::kChunks * S::kChunks;
        const int64_t fragments = call.n_layers * to.layer() + concat;
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) {
            float* matrix =
                call.g_matrices + (split * fragments + unit.fragment + k * unit.stride) * 256;
            // As fragments are packed: the pairs of row g, then those of row g + 8.
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) {
                const Float(&half)[4] = sums[k].c[i % 2];
                put(matrix, 8 * lane_number() + 2 * i, half[i / 2 * 2], half[i / 2 * 2 + 1],
                    lane_number() >= 0);
            }
        }
        if (unit.bias < 0) return;
        float* vector = call.g_vectors + int64_t(split) * to.vectors(call.n_layers) + unit.bias;
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) {
            if (unit.gradient && k > 0) break;
            // All columns are the same; lanes of even rows write theirs and the next row's.
            const Int row = lane_number() >> 2;
            const Float below = as_float(next_row(as_word(totals[k].c[0][0])));
            const Float below_lower = as_float(next_row(as_word(totals[k].c[0][2])));
            const Mask writes = both((lane_number() & 3) == 0, (row & 1) == 0);
            put(vector + 16 * k, row, totals[k].c[0][0], below, writes);
            put(vector + 16 * k, row + 8, totals[k].c[0][2], below_lower, writes);
        }
    }

    LARES_DEVICE void put(float* base, Int index, Float a, Float b, Mask mask) const {
        if (!call.begins) {
            Float old_a, old_b;
            load_pair(old_a, old_b, base, index, mask);
            a += old_a;
            b += old_b;
        }
        store_pair(base, index, a, b, mask);
    }
};

}  // namespace lares::cuda
