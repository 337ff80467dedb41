// Scores of queries against a catalogue, a tile of queries and items at a time.
//
// Items are taken in blocks that stay in the cache while all queries pass by them. Each score is
// the same chain of multiply-adds wherever its item and query lie, so that equal items score
// equally.
#pragma once

#include "../../lares_kernels.h"
#include "gemm.hpp"

namespace lares::LARES_ISA {

constexpr int kBlockItems = 192;  // of a block; whole panels, and whole blocks of rows of a product
constexpr int kTileQueries = 48;  // of a tile
constexpr int kScoreStride = kBlockItems + 16;  // off the powers of two, which share cache sets
static_assert(kBlockItems % kPanel == 0 && kTileQueries % kFold == 0, "whole panels and operands");

constexpr float kNone = -kInfinity, kNaN = __builtin_nanf("");

// The greatest magnitude in `rows` padded rows; NaN where one is.
inline float largest_of(const float* from, int rows, int width) {
    IVec most{};  // of the bits, which order like magnitudes, with NaN above infinity
    for (ptrdiff_t i = 0; i < ptrdiff_t(rows) * width; i += kLanes)
        most = max(most, bits_as<IVec>(load(from + i)) & broadcast(int32_t(0x7fffffff)));
    int32_t bits = 0;
    for (int i = 0; i < kLanes; ++i) bits = max(bits, int32_t(most[i]));
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    return largest;
}

// False for NaN and infinity.
LARES_INLINE bool is_finite(float x) { return x - x == 0.0f; }

// Brings a padded row to length 1 and returns what it was divided by.
LARES_INLINE float normalise(float* row, int width) {
    constexpr float kShortest = 1e-12f;
    Vec squares = Vec{};
    for (int c = 0; c < width; c += kLanes) squares += load(row + c) * load(row + c);
    const float length = max(__builtin_sqrtf(sum_lanes(squares)), kShortest);
    for (int c = 0; c < width; c += kLanes) store(row + c, load(row + c) / broadcast(length));
    return length;
}

// The gradient of a row that was normalised to `unit` from `length`, in place.
LARES_INLINE void normalise_backward(float* gradient, const float* unit, float length, int width) {
    Vec along = Vec{};
    for (int c = 0; c < width; c += kLanes) along += load(gradient + c) * load(unit + c);
    // A row too short to be normalised was divided by a constant.
    const Vec part = broadcast(length > 1e-12f ? sum_lanes(along) : 0.0f);
    for (int c = 0; c < width; c += kLanes)
        store(gradient + c, (load(gradient + c) - part * load(unit + c)) / broadcast(length));
}

// A call's queries as they are multiplied.
class Queries {
  public:
    int count, width, padded;  // N, d, d in whole vectors
    float* rows;               // (N, padded): normalised if asked for, divided by the temperature
    float* lengths;            // (N,) what each was divided by, for cosine

    // `carve(arena)` takes what the op needs besides.
    template <class Carve>
    Queries(const LaresCatalogue& call, bool backward, int threads, const Carve& carve)
        : count(int(call.n_queries)), width(int(call.width)), padded(round_up(width, kLanes)) {
        arena_.carve([&] {
            // bfloat16 operands are made from pairs of vectors: room for one past the last row.
            rows = arena_.take<float>(size_t(count) * padded + 2 * kLanes);
            lengths = arena_.take<float>(size_t(count));
            left_room_ = arena_.take<Operand>(row_operands(count, padded));
            right_room_ =
                arena_.take<Operand>(tiles(count) * column_operands(kTileQueries, padded));
            carve(arena_);
        });
        const float scale = float(1.0 / call.temperature);
        for (int i = 0; i < 2 * kLanes; ++i) rows[size_t(count) * padded + i] = 0.0f;
        run_pieces(int(tiles(count)), threads, [&](int tile) {
            const int first = tile * kTileQueries, end = first + in_tile(tile);
            for (int n = first; n < end; ++n) {
                float* row = rows + size_t(n) * padded;
                std::memcpy(row, call.queries + size_t(n) * width, size_t(width) * sizeof(float));
                fill(row + width, row + padded, 0.0f);
                if (call.scores == LARES_COSINE) lengths[n] = normalise(row, padded);
                for (int c = 0; c < padded; c += kLanes)
                    store(row + c, load(row + c) * broadcast(scale));
            }
        });
        if constexpr (kBf16) {
            left_rows(rows, padded, count, width, left_room_);
            for (int tile = 0; backward && tile < int(tiles(count)); ++tile)
                right_columns(rows_of(tile), padded, in_tile(tile), padded, columns_room(tile));
        }
    }

    static size_t tiles(int n) { return size_t(n + kTileQueries - 1) / kTileQueries; }
    int in_tile(int tile) const { return min(kTileQueries, count - tile * kTileQueries); }
    const float* rows_of(int tile) const { return rows + size_t(tile) * kTileQueries * padded; }

    // From query `first` on, as the left side of the scores.
    Left left(int first) const {
        if constexpr (kBf16) {
            const ptrdiff_t stride = round_up(width, 2 * kLanes) / 2;
            return {left_room_ + first * stride, stride};
        } else {
            return {as_operands(rows) + ptrdiff_t(first) * padded, padded};
        }
    }

    // A tile's queries as the right side of the items' gradients.
    Panels right(int tile) const {
        if constexpr (kBf16)
            return panels_of({columns_room(tile), padded});
        else
            return panels_of({as_operands(rows_of(tile)), padded});
    }

  private:
    static const Operand* as_operands(const float* p) {
        return reinterpret_cast<const Operand*>(p);
    }
    Operand* columns_room(int tile) const {
        return right_room_ + size_t(tile) * column_operands(kTileQueries, padded);
    }
    Arena arena_;
    Operand *left_room_, *right_room_;
};

// Some items that follow each other, as they are multiplied.
class ItemBlock {
  public:
    int first, count;
    float* rows;       // (kBlockItems, padded), zeros past the last item
    float* lengths;    // (kBlockItems,), for cosine
    float largest;     // magnitude of their numbers, NaN where one is; since measure()
    Array<int> aside;  // places of the items that set_aside() found

    explicit ItemBlock(const LaresCatalogue& call)
        : call_(call), width_(int(call.width)), padded_(round_up(width_, kLanes)) {}

    void carve(Arena& arena) {
        const size_t size = size_t(kBlockItems) * padded_;
        rows = arena.take<float>(size + 2 * kLanes);
        lengths = arena.take<float>(kBlockItems);
        panels_ = arena.take<Operand>(size);
        draft_ = arena.take<float>(kBf16 ? size_t(padded_) * kPanel : 0);
        right_room_ = arena.take<Operand>(column_operands(kBlockItems, padded_));
    }

    int columns() const { return round_up(count, kLanes); }

    // Takes block number `index` of the catalogue.
    void take(int index) {
        first = index * kBlockItems;
        count = int(min<int64_t>(kBlockItems, call_.n_items - first));
        for (int i = 0; i < count; ++i)
            lengths[i] = take_item(first + i, rows + size_t(i) * padded_);
        // To the end of the panel, for the transpositions.
        fill(rows + size_t(count) * padded_, rows + size_t(round_up(count, kPanel)) * padded_,
             0.0f);
        for (int panel = 0; panel < columns(); panel += kPanel) pack(panel);
    }

    // Finds `largest`: a pass over all numbers, which not every op has a use for.
    void measure() { largest = largest_of(rows, count, padded_); }

    // Takes items that are not finite out of what the queries' gradients are products of, where
    // such an item would spoil those of queries that exclude it, too: zero times NaN is NaN.
    void set_aside() {
        aside.resize(0);
        aside_rows_.resize(0);
        measure();
        for (int i = 0; i < count && !is_finite(largest); ++i) {
            float* row = rows + size_t(i) * padded_;
            if (is_finite(largest_of(row, 1, padded_))) continue;
            aside.push_back(i);
            for (int c = 0; c < padded_; ++c) aside_rows_.push_back(row[c]);
            fill(row, row + padded_, 0.0f);
        }
    }

    // Adds an item that was set aside, `scale` times, to the gradient of a query.
    void add_aside(size_t item, float scale, float* gradient) const {
        const float* row = aside_rows_.begin() + item * size_t(padded_);
        for (int c = 0; c < padded_; ++c) gradient[c] += scale * row[c];
    }

    // As the right side of the queries' gradients.
    Panels right() const {
        return panels_of(by_columns(rows, padded_, columns(), padded_, right_room_));
    }

    // Scores of queries `from .. from + n - 1`, into rows of kScoreStride.
    void score(const Queries& queries, int from, int n, float* scores) const {
        const Panels panels{panels_, ptrdiff_t(folds(padded_)) * kPanel, kPanel};
        product(n, columns(), width_, queries.left(from), panels, Store{scores, kScoreStride});
    }

    // Scores of queries `from .. from + n - 1`, at most kLanes, each with its own item of `ids`.
    void score_each(const Queries& queries, int from, int n, const int64_t* ids, float* scores) {
        for (int i = 0; i < n; ++i) take_item(ids[i], rows + size_t(i) * padded_);
        fill(rows + size_t(n) * padded_, rows + size_t(kPanel) * padded_, 0.0f);
        pack(0);
        const Left left = queries.left(from);
        for (int i = 0; i < n; ++i)
            product(1, kLanes, width_, {left.data + i * left.stride, left.stride},
                    {panels_, 0, kPanel},
                    [&](int, int, Vec v) LARES_INLINE_LAMBDA { scores[i] = v[i]; });
    }

  private:
    float take_item(int64_t item, float* row) const {
        if (call_.items_are_bf16) {
            const uint16_t* from = static_cast<const uint16_t*>(call_.items) + item * width_;
            for (int c = 0; c < width_; ++c) {
                const uint32_t bits = uint32_t(from[c]) << 16;
                std::memcpy(row + c, &bits, sizeof bits);
            }
        } else {
            const float* from = static_cast<const float*>(call_.items) + item * width_;
            std::memcpy(row, from, size_t(width_) * sizeof(float));
        }
        fill(row + width_, row + padded_, 0.0f);
        return call_.scores == LARES_COSINE ? normalise(row, padded_) : 1.0f;
    }

    // Items `at .. at + kPanel - 1` as a panel: one item a column.
    void pack(int at) {
        Operand* packed = panels_ + ptrdiff_t(at) * folds(padded_);
        float* panel = kBf16 ? draft_ : reinterpret_cast<float*>(packed);
        for (int j = 0; j < kPanel; j += kLanes)
            for (int c = 0; c < padded_; c += kLanes)
                transpose_block(rows + size_t(at + j) * padded_ + c, padded_,
                                panel + ptrdiff_t(c) * kPanel + j, kPanel);
        if constexpr (kBf16) by_columns(panel, kPanel, padded_, kPanel, packed);
    }

    const MatrixUnit unit_;  // for the products with it
    const LaresCatalogue& call_;
    int width_, padded_;
    Operand *panels_, *right_room_;
    float* draft_;
    Array<float> aside_rows_;  // (items set aside, padded)
};

// Each query's position in its row's excluded items while blocks are read in order.
class Excluded {
  public:
    explicit Excluded(const LaresCatalogue& call)
        : call_(call), each_(call.n_queries / call.n_rows) {}

    void carve(Arena& arena) {
        if (call_.n_excluded) places_ = arena.take_zeros<int32_t>(size_t(call_.n_queries));
    }

    // Writes `value` over the numbers (rows of kScoreStride) of items that the queries exclude.
    void write(const ItemBlock& block, int from, int n, float value, float* numbers) {
        if (call_.n_excluded == 0) return;
        for (int i = 0; i < n; ++i) {
            const int64_t* ids = call_.excluded + (from + i) / each_ * call_.n_excluded;
            int32_t place = places_[from + i];
            for (; place < call_.n_excluded && ids[place] < block.first + block.count; ++place)
                if (ids[place] >= block.first)
                    numbers[i * kScoreStride + ids[place] - block.first] = value;
            places_[from + i] = place;
        }
    }

    bool holds(int query, int64_t item) const {
        const int64_t* ids = call_.excluded + query / each_ * call_.n_excluded;
        int64_t low = 0, high = call_.n_excluded;
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            if (ids[middle] < item)
                low = middle + 1;
            else
                high = middle;
        }
        return low < call_.n_excluded && ids[low] == item;
    }

    // True if a score of an item that the query does not exclude is NaN; call before write().
    bool leaves_nan(const ItemBlock& block, int query, const float* scores) const {
        for (int c = 0; c < block.count; ++c)
            if (scores[c] != scores[c] && !holds(query, block.first + c)) return true;
        return false;
    }

  private:
    const LaresCatalogue& call_;
    int64_t each_;
    int32_t* places_ = nullptr;
};

inline int item_blocks(const LaresCatalogue& call) {
    return int((call.n_items + kBlockItems - 1) / kBlockItems);
}

// Blocks of part `part` of `parts`.
inline Range blocks_of_part(int blocks, int part, int parts) {
    return {int(int64_t(blocks) * part / parts), int(int64_t(blocks) * (part + 1) / parts)};
}

// One product with every item, in operations.
inline double product_operations(const LaresCatalogue& call) {
    return 2.0 * double(call.n_queries) * double(call.n_items) * double(call.width);
}

}  // namespace lares::LARES_ISA
