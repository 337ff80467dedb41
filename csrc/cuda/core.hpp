// Compile-time constants of a kernel, and the layout of packed parameters.
//
// Matrices come in fragments of 16 outputs x 16 inputs in 512 bytes, in the order in which lanes
// take them: lane (g, t) = 4 g + t holds the pairs W[g][2t..], W[g][2t + 8..], W[8 + g][2t..], W[8
// + g][2t + 8..]. So a fragment is the second operand of two products, and, its middle pairs
// swapped, the first of one. lares_kernels/cuda/packing.py packs them.
#pragma once

#include "lares_cuda.h"
#include "primitives.hpp"

namespace lares::cuda {

constexpr int kFragment = 512;  // bytes

// T: Bf16 or Fp16; D: width; Head: a head's width in 16s; Resident: weights in shared memory;
// Drops: whether there may be dropout, which costs registers; HeadPieces: weights that are not
// resident pass through shared memory in pieces (stage.hpp), that many to a head; 0: they do not.
template <class T, int D, int Head, bool Resident, bool Drops, int HeadPieces = 0>
struct Shape {
    static_assert(!Resident || HeadPieces == 0, "resident weights are in shared memory already");
    using Type = T;
    static constexpr int kWidth = D;
    static constexpr int kBlocks = D / 8;   // of 8 columns
    static constexpr int kChunks = D / 16;  // of 16 columns
    static constexpr int kHead = Head;
    static constexpr bool kResident = Resident;
    static constexpr bool kDrops = Drops;
    static constexpr bool kStaged = HeadPieces > 0;
    static constexpr int kMaxWarps = Drops || D > 64 || Head > 2 ? 8 : 12;
    // Columns of the inner layer at a time, in 16s; d_ff is a multiple of 32.
    static constexpr int kInner = D > 64 ? 1 : 2;
    // Words of 32 decisions that a branch of a row takes; each block of 64 starts a new word.
    static constexpr int kKeepWords = D > 64 ? D / 32 : 2;
    // With dropout and D > 64, residual rows are spilled to shared memory while the branch
    // accumulates: both do not fit registers.
    static constexpr bool kSpillsResidual = Drops && D > 64;
    // Backward: the gradient of attention's input is spilled while a head is differentiated.
    static constexpr bool kSpillsInputGradient = Head > 2;
    // A warp's shared memory: keys and values of 16 rows of one head, spilled rows.
    static constexpr int kExchange = 2 * Head * kFragment;
    static constexpr int kOfWarp = kExchange + (kSpillsResidual ? kBlocks * kFragment : 0);
    static constexpr int kHeadPieces = HeadPieces;
    static constexpr int kPiece = 4 * Head * kChunks / (kStaged ? HeadPieces : 1);  // fragments
};

// Rows of a warp's tile: lane (g, t) holds columns 8 j + 2 t and 8 j + 2 t + 1 of row g in
// x[j][0..1], of row g + 8 in x[j][2..3]. The same shape as the sums of a product.
template <class S>
using Rows = Float[S::kBlocks][4];

// The same rows as first operand of products, in 16 bits.
template <class S>
using Operand = Word[S::kChunks][4];

// Places in the packed parameters; matrices in fragments, vectors in numbers.
template <class S>
struct Places {
    int heads, inner;  // n_heads, d_ff

    LARES_DEVICE int head() const { return 4 * S::kHead * S::kChunks; }
    LARES_DEVICE int up() const { return heads * head(); }
    LARES_DEVICE int layer() const { return up() + inner / 16 * 2 * S::kChunks; }

    // A head's biases of query, key and value.
    LARES_DEVICE int head_bias(int index) const { return index * 48 * S::kHead; }
    LARES_DEVICE int out_bias() const { return heads * 48 * S::kHead; }
    LARES_DEVICE int attn_norm() const { return out_bias() + S::kWidth; }
    LARES_DEVICE int up_bias() const { return attn_norm() + 2 * S::kWidth; }
    LARES_DEVICE int down_bias() const { return up_bias() + inner; }
    LARES_DEVICE int ffn_norm() const { return down_bias() + S::kWidth; }
    LARES_DEVICE int layer_vector() const { return ffn_norm() + 2 * S::kWidth; }
    // After all layers.
    LARES_DEVICE int core_norm(int layers) const { return layers * layer_vector(); }
    LARES_DEVICE int concat_bias(int layers) const { return core_norm(layers) + 2 * S::kWidth; }
    LARES_DEVICE int gate(int layers) const { return concat_bias(layers) + S::kWidth; }
    LARES_DEVICE int vectors(int layers) const { return gate(layers) + 4; }
};

}  // namespace lares::cuda
