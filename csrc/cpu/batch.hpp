// The sequences of a call, checked, put in order and cut into tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../lares_kernels.h"

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

struct Batch {
    std::vector<Sequence> sequences;  // deepest first, else as given
    std::vector<Tile> tiles;
    int64_t rows = 0;       // N
    int64_t kept_rows = 0;  // of each step in `kept`
    int64_t hidden_rows = 0;
    int longest_tile = 0, most_sequences = 0;

    Batch(const LaresCall& call, int tile_rows) {
        read(call);
        // A tile's sequences stop one after the other from its end: those that still run are a
        // prefix.
        if (call.steps)
            std::stable_sort(
                sequences.begin(), sequences.end(),
                [](const Sequence& a, const Sequence& b) { return a.depth > b.depth; });
        cut(tile_rows);
    }

  private:
    static constexpr int64_t kMostIds = int64_t(1) << 24, kMostRollouts = 256;
    static constexpr int64_t kMostSteps = (1 << 16) - 1, kLongest = 1 << 20;

    void read(const LaresCall& call) {
        const int64_t b_count = call.n_sequences, g_count = call.rollouts;
        if (b_count < 1 || g_count < 1 || g_count > kMostRollouts || b_count > kMostIds)
            throw CallError{LARES_BAD_ARGUMENT};
        if (call.max_steps < 1 || call.max_steps > kMostSteps) throw CallError{LARES_BAD_STEPS};
        if (call.steps_done < 0 || call.steps_done + call.max_steps > kMostSteps)
            throw CallError{LARES_BAD_STEPS};
        if (call.adapter == LARES_ADAPTER_NONE && (call.max_steps != 1 || call.steps_done != 0))
            throw CallError{LARES_BAD_STEPS};
        const int64_t padded = call.padded_length;
        const bool left = call.padding != LARES_PADDING_RIGHT;
        const bool zeros = call.padding == LARES_PADDING_LEFT_ZEROS;
        const bool whole = call.mixer != LARES_MIXER_ATTENTION;  // windows, padding too
        if (zeros && !padded) throw CallError{LARES_BAD_LENGTH};
        sequences.reserve(size_t(b_count * g_count));
        int64_t start = 0;
        for (int64_t b = 0; b < b_count; ++b) {
            const int64_t tokens = call.lengths[b], length = zeros || whole ? padded : tokens;
            if (tokens < 1 || length > kLongest || (padded && tokens > padded))
                throw CallError{LARES_BAD_LENGTH};
            const int64_t before = padded && left ? padded - length : 0;
            const int64_t id = call.sequence_ids ? call.sequence_ids[b] : b;
            if (id < 0 || id >= kMostIds) throw CallError{LARES_BAD_ID};
            for (int64_t g = 0; g < g_count; ++g) {
                Sequence s;
                s.index = b * g_count + g;
                s.length = int(length);
                s.newest = int(whole ? tokens - 1 : length - 1);
                s.leading = zeros ? int(length - tokens) : 0;
                s.hidden_row = padded ? b * padded + before : start;
                s.row = start * g_count + g * length;
                s.state_row = padded ? s.index * padded + before : s.row;
                s.kept_row = call.keeps_padding ? s.state_row : s.row;
                const int64_t depth = call.steps ? call.steps[s.index] : call.max_steps;
                if (depth < 1 || depth > call.max_steps) throw CallError{LARES_BAD_STEPS};
                s.depth = int(depth);
                s.stream = uint32_t(id) | uint32_t(g) << 24;
                sequences.push_back(s);
            }
            start += length;
        }
        if (!padded && start != call.n_rows) throw CallError{LARES_BAD_LENGTH};
        hidden_rows = padded ? b_count * padded : start;
        rows = start * g_count;
        kept_rows = call.keeps_padding ? hidden_rows * g_count : rows;
    }

    void cut(int tile_rows) {
        Tile tile{0, 0, 0};
        auto close = [&] {
            tiles.push_back(tile);
            longest_tile = std::max(longest_tile, tile.rows);
            most_sequences = std::max(most_sequences, tile.end - tile.first);
            tile = {tile.end, tile.end, 0};
        };
        for (const Sequence& s : sequences) {
            if (tile.rows > 0 && tile.rows + s.length > tile_rows) close();
            tile.rows += s.length;
            ++tile.end;
        }
        close();
    }
};

}  // namespace lares
