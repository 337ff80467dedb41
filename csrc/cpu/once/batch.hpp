// The sequences of a call, checked, put in order and cut into tiles.
#pragma once

#include <cstdint>

#include "../../lares_kernels.h"

namespace lares {

struct CallError {
    int code;
};

struct Sequence {
    int64_t row;         // first row of all N
    int64_t hidden_row;  // first row in `hidden`
    int64_t state_row;   // first row in `state` and `final_state`
    int64_t kept_row;    // first row in `kept`
    int64_t index;       // of S
    int length, depth;   // rows, and reasoning steps
    int newest;          // of the rows; those after it are padding that is computed
    int leading;         // of the rows: padding before the tokens, which is zero
    uint32_t stream;
};

// Consecutive sequences that are computed together.
struct Tile {
    int first, end;  // sequences
    int rows;
};

// Throws CallError or std::bad_alloc.
struct Batch {
    const Sequence* sequences;  // deepest first, else as given
    int n_sequences;
    const Tile* tiles;
    int n_tiles;
    int64_t rows = 0;       // N
    int64_t kept_rows = 0;  // of each step in `kept`
    int64_t hidden_rows = 0;
    int longest_tile = 0;

    Batch(const LaresCall& call, int tile_rows);
    ~Batch();
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

  private:
    struct Lists;
    Lists* lists_;
};

}  // namespace lares
