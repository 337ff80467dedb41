#include "batch.hpp"

#include <algorithm>
#include <memory>
#include <vector>

namespace lares {
namespace {

constexpr int64_t kMaxIds = int64_t(1) << 24, kMaxRollouts = 256;
constexpr int64_t kMaxSteps = (1 << 16) - 1, kLongest = 1 << 20;

bool between(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

void check(const LaresCall& call) {
    if (!between(call.n_sequences, 1, kMaxIds) || !between(call.rollouts, 1, kMaxRollouts))
        throw CallError{LARES_BAD_ARGUMENT};
    const bool once = call.adapter == LARES_ADAPTER_NONE;
    if (!between(call.max_steps, 1, once ? 1 : kMaxSteps) ||
        !between(call.steps_done, 0, once ? 0 : kMaxSteps - call.max_steps))
        throw CallError{LARES_BAD_STEPS};
    if (call.padding == LARES_PADDING_LEFT_ZEROS && !call.padded_length)
        throw CallError{LARES_BAD_LENGTH};
}

// Fields that the rollouts of sequence b share, and the place of the first of them. `start` is the
// first of its packed rows.
Sequence sequence_of(const LaresCall& call, int64_t b, int64_t start) {
    const int64_t padded = call.padded_length, tokens = call.lengths[b];
    const bool zeros = call.padding == LARES_PADDING_LEFT_ZEROS;
    const bool whole = call.mixer != LARES_MIXER_ATTENTION;  // windows, padding too
    const int64_t length = zeros || whole ? padded : tokens;
    if (tokens < 1 || length > kLongest || (padded && tokens > padded))
        throw CallError{LARES_BAD_LENGTH};
    const int64_t before = padded && call.padding != LARES_PADDING_RIGHT ? padded - length : 0;
    const int64_t id = call.sequence_ids ? call.sequence_ids[b] : b;
    if (!between(id, 0, kMaxIds - 1)) throw CallError{LARES_BAD_ID};
    Sequence s{};
    s.index = b * call.rollouts;
    s.length = int(length);
    s.newest = int(whole ? tokens - 1 : length - 1);
    s.leading = zeros ? int(length - tokens) : 0;
    s.hidden_row = padded ? b * padded + before : start;
    s.row = start * call.rollouts;
    s.state_row = padded ? s.index * padded + before : s.row;
    s.stream = uint32_t(id);
    return s;
}

Sequence rollout_of(const LaresCall& call, Sequence s, int64_t g) {
    s.index += g;
    s.row += g * s.length;
    s.state_row += g * (call.padded_length ? call.padded_length : s.length);
    s.kept_row = call.keeps_padding ? s.state_row : s.row;
    s.stream |= uint32_t(g) << 24;
    const int64_t depth = call.steps ? call.steps[s.index] : call.max_steps;
    if (!between(depth, 1, call.max_steps)) throw CallError{LARES_BAD_STEPS};
    s.depth = int(depth);
    return s;
}

}  // namespace

struct Batch::Lists {
    std::vector<Sequence> sequences;
    std::vector<Tile> tiles;

    void read(const LaresCall& call, Batch& batch);
    int cut(int tile_rows);
};

void Batch::Lists::read(const LaresCall& call, Batch& batch) {
    check(call);
    sequences.reserve(size_t(call.n_sequences * call.rollouts));
    int64_t start = 0;
    for (int64_t b = 0; b < call.n_sequences; ++b) {
        const Sequence shared = sequence_of(call, b, start);
        for (int64_t g = 0; g < call.rollouts; ++g)
            sequences.push_back(rollout_of(call, shared, g));
        start += shared.length;
    }
    const int64_t padded = call.padded_length;
    if (!padded && start != call.n_rows) throw CallError{LARES_BAD_LENGTH};
    batch.hidden_rows = padded ? call.n_sequences * padded : start;
    batch.rows = start * call.rollouts;
    batch.kept_rows = call.keeps_padding ? batch.hidden_rows * call.rollouts : batch.rows;
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
