// Rows of a tile: what is known of them, and where they lie in memory.
//
// A tile is a few whole sequences, at most 16 rows for each warp of the unit that runs it
// (tile_plan.hpp cuts the batch into tiles). A warp owns 16 neighbouring rows of it.
#pragma once

#include "draws.hpp"

namespace lares::cuda {

// Fields of a row.
enum Field : int {
    kHiddenRow,  // of the caller's hidden; -1 past a tile's last row
    kStateRow,   // of the caller's states
    kStream,     // its sequence's first counter word
    kPosition,   // in its sequence
    kFirst,      // tile row of its sequence's first token
    kDepth,      // steps that its sequence runs; 0 past a tile's last row
    kNewest,     // its sequence's number if it is the newest token, else -1
    kKeptRow,    // of the states kept for backward, which lie in order of depth, not of tiles
};
static_assert(kKeptRow < LARES_CUDA_FIELDS);

// One warp's part of a tile.
struct Tile {
    const int32_t* info;  // (rows, LARES_CUDA_FIELDS)
    int warp;             // of the unit
    int number;           // of the tile

    // Row g of the warp's 16, and row g + 8, of the tile.
    LARES_DEVICE Int upper() const { return 16 * warp + (lane_number() >> 2); }
    LARES_DEVICE Int lower() const { return upper() + 8; }
    // Row g for even lanes, row g + 8 for odd ones: a quad's lanes share two rows.
    LARES_DEVICE Int shared_row() const { return upper() + 8 * (lane_number() & 1); }
    // Fields are read where they are used: they stay in the nearest cache, and registers are
    // scarce.
    LARES_DEVICE Int field(Field which, Int row) const {
        return load(info + which, row * LARES_CUDA_FIELDS);
    }
    // Steps of the deepest sequence: tiles take sequences in order of depth.
    LARES_DEVICE int depth() const { return info[kDepth]; }
};

// Read rows of `width` numbers where a mask holds, else zeros.
template <class S>
LARES_DEVICE void load_rows(Rows<S>& x, const float* base, Int upper, Int lower, Mask has_upper,
                            Mask has_lower) {
    const Int column = first_column();
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        load_pair(x[j][0], x[j][1], base, upper * S::kWidth + column + 8 * j, has_upper);
        load_pair(x[j][2], x[j][3], base, lower * S::kWidth + column + 8 * j, has_lower);
    }
}

template <class S>
LARES_DEVICE void store_rows(float* base, Int upper, Int lower, const Rows<S>& x, Mask has_upper,
                             Mask has_lower) {
    const Int column = first_column();
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        store_pair(base, upper * S::kWidth + column + 8 * j, x[j][0], x[j][1], has_upper);
        store_pair(base, lower * S::kWidth + column + 8 * j, x[j][2], x[j][3], has_lower);
    }
}

// Rows in float32 that a warp leaves for itself, in shared or global memory.
template <class S>
LARES_DEVICE void park(unsigned char* to, const Rows<S>& x) {
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        const Word words[4] = {as_word(x[j][0]), as_word(x[j][1]), as_word(x[j][2]),
                               as_word(x[j][3])};
        store_fragment(to + j * kFragment, words);
    }
    forget_written();
}

template <class S>
LARES_DEVICE void fetch(Rows<S>& x, const unsigned char* from) {
    LARES_UNROLL
    for (int j = 0; j < S::kBlocks; ++j) {
        Word words[4];
        load_written(words, from + j * kFragment);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) x[j][i] = as_float(words[i]);
    }
}

}  // namespace lares::cuda
