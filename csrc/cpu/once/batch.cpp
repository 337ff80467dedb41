#include "batch.hpp"

#include <algorithm>
#include <memory>
#include <vector>

namespace lares {
namespace {

constexpr int64_t kMostIds = int64_t(1) << 24, kMostRollouts = 256;
constexpr int64_t kMostSteps = (1 << 16) - 1, kLongest = 1 << 20;

}  // namespace

struct Batch::Lists {
    std::vector<Sequence> sequences;
    std::vector<Tile> tiles;

    void read(const LaresCall& call, Batch& batch);
    int cut(int tile_rows);
};

void Batch::Lists::read(const LaresCall& call, Batch& batch) {
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
    batch.hidden_rows = padded ? b_count * padded : start;
    batch.rows = start * g_count;
    batch.kept_rows = call.keeps_padding ? batch.hidden_rows * g_count : batch.rows;
}

// Returns the rows of the longest tile.
int Batch::Lists::cut(int tile_rows) {
    Tile tile{0, 0, 0};
    int longest = 0;
    auto close = [&] {
        tiles.push_back(tile);
        longest = std::max(longest, tile.rows);
        tile = {tile.end, tile.end, 0};
    };
    for (const Sequence& s : sequences) {
        if (tile.rows > 0 && tile.rows + s.length > tile_rows) close();
        tile.rows += s.length;
        ++tile.end;
    }
    close();
    return longest;
}

Batch::Batch(const LaresCall& call, int tile_rows) {
    auto lists = std::make_unique<Lists>();
    lists->read(call, *this);
    // A tile's sequences stop one after the other from its end: those that still run are a prefix.
    if (call.steps)
        std::stable_sort(lists->sequences.begin(), lists->sequences.end(),
                         [](const Sequence& a, const Sequence& b) { return a.depth > b.depth; });
    longest_tile = lists->cut(tile_rows);
    lists_ = lists.release();
    sequences = lists_->sequences.data();
    n_sequences = int(lists_->sequences.size());
    tiles = lists_->tiles.data();
    n_tiles = int(lists_->tiles.size());
}

Batch::~Batch() { delete lists_; }

}  // namespace lares
