// Memory that backward spills to: for itself, and for the products of weight gradients.
//
// Gradients of outputs (`units` and `sides` below) and inputs of the four products of a layer lie
// as operands of 16 tokens x 16 columns. *Units* are 16 columns of something as wide as the heads
// or the feed-forward: gradients of queries, keys and values of each head; mixed values; gradients
// of the inner layer; its activations. *Sides* are as wide as a token: the attention's input, the
// gradient of its output, the same of the feed-forward.
#pragma once

#include "products.hpp"
#include "tile.hpp"

namespace lares::cuda {

enum Side : int { kAttentionInput, kAttentionGradient, kInnerInput, kInnerGradient, kSides };

// Places in what a layer leaves of 16 tokens, in fragments.
template <class S>
struct SpillPlaces {
    int heads, inner;

    LARES_DEVICE int head_units() const { return 4 * S::kHead; }
    // Units of a head: query, key, value, mixed; S::kHead each.
    LARES_DEVICE int head(int index) const { return index * head_units(); }
    LARES_DEVICE int inner_gradient() const { return heads * head_units(); }
    LARES_DEVICE int activated() const { return inner_gradient() + inner / 16; }
    LARES_DEVICE int units() const { return activated() + inner / 16; }
    LARES_DEVICE int side(int which) const { return units() + which * S::kChunks; }
    LARES_DEVICE int all() const { return side(kSides); }
};

// True if the quarters of sides are stored transposed. Kernels that stream weights have no
// registers for it.
template <class S>
LARES_DEVICE bool transposes_sides(const LaresCudaCall& call) {
    return S::kResident && call.transposed;
}

template <class S>
LARES_DEVICE void store_side(unsigned char* to, const Operand<S>& rows, bool transposed) {
    if (transposed) {
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) {
            Word left[4] = {rows[k][0], rows[k][1], rows[k][2], rows[k][3]};
            transpose_quarters(left);
            store_fragment(to + k * kFragment, left);
        }
    } else {
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) store_fragment(to + k * kFragment, rows[k]);
    }
}

// Spilled data of one layer, step and warp.
template <class S>
struct Spill {
    unsigned char* base;
    SpillPlaces<S> places;
    const LaresCudaCall& call;

    LARES_DEVICE void unit(int index, const Word (&operand)[4]) const {
        store_fragment(base + index * kFragment, operand);
    }
    LARES_DEVICE void side(int which, const Operand<S>& rows) const {
        store_side<S>(base + places.side(which) * kFragment, rows, transposes_sides<S>(call));
        forget_written();
    }
    LARES_DEVICE void read_side(Operand<S>& rows, int which) const {
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k)
            load_written(rows[k], base + (places.side(which) + k) * kFragment);
        if (!transposes_sides<S>(call)) return;
        LARES_UNROLL
        for (int k = 0; k < S::kChunks; ++k) transpose_quarters(rows[k]);
    }
};

// A warp's scratch memory: for each layer its input and both residual sums, then two more sets of
// rows that wait, then what it has for the keys of the unit's earlier warps.
template <class S>
struct Scratch {
    static constexpr int kRows = S::kBlocks * kFragment;
    static constexpr int kKeys = 4 * S::kHead * kFragment;  // gradients of key and value, float32

    unsigned char* base;
    int layers;

    LARES_DEVICE unsigned char* tape(int layer, int which) const {
        return base + (3 * layer + which) * kRows;
    }
    LARES_DEVICE unsigned char* waiting() const { return tape(layers, 0); }
    LARES_DEVICE unsigned char* aside() const { return tape(layers, 1); }
    LARES_DEVICE unsigned char* keys(int distance) const {
        return tape(layers, 2) + (distance - 1) * kKeys;
    }
};

template <class S>
struct ScratchTape {
    Scratch<S> scratch;
    int layer;

    template <class>
    LARES_DEVICE void keep(int which, const Rows<S>& x) const {
        park<S>(scratch.tape(layer, which), x);
    }
};

}  // namespace lares::cuda
