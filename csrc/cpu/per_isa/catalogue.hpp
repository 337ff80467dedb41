// The catalogue ops.
//
// The catalogue is cut into parts whose number shapes alone decide, and what the parts found is
// added in order: any number of threads gives the same bits.
#pragma once

#include "math.hpp"
#include "scores.hpp"
#include "top_k.hpp"

namespace lares::LARES_ISA {

constexpr int kMaxParts = 64;
// exp(s - shift) is summed with a shift that this much may lie below the greatest score: far from
// where floats end, and hardly ever exceeded once a few items have been seen.
constexpr float kSlack = 40.0f;
// The least shift: of a query whose own item's score is not finite, until one that is passes by.
constexpr float kLeast = -__FLT_MAX__;

// Parts of the catalogue, each with `numbers` of its own kept until the end.
inline int parts_of(int blocks, double numbers) {
    constexpr double kMaxNumbers = 1 << 22;
    const int affordable = int(min(double(kMaxParts), kMaxNumbers / numbers));
    return min(blocks, max(8, affordable));
}

// Each query's score of its own item; exactly what it scores among all.
inline void chosen_scores(const LaresCatalogue& call, const Queries& queries, int threads,
                          float* to) {
    const int64_t each = call.n_queries / call.n_rows;
    const int groups = (queries.count + kLanes - 1) / kLanes;
    constexpr int kGroups = 64;  // of a piece
    run_pieces((groups + kGroups - 1) / kGroups, threads, [&](int piece) {
        Arena arena;
        ItemBlock block(call);
        arena.carve([&] { block.carve(arena); });
        const int end = min(groups, (piece + 1) * kGroups);
        for (int group = piece * kGroups; group < end; ++group) {
            int64_t ids[kLanes];
            const int from = group * kLanes, n = min(kLanes, queries.count - from);
            for (int i = 0; i < n; ++i) ids[i] = call.chosen[(from + i) / each];
            block.score_each(queries, from, n, ids, to + from);
        }
    });
}

// Numbers past a block's last item, in its last vector, take no part.
inline void clear_past(const ItemBlock& block, int n, float* numbers, float value) {
    if (block.count == block.columns()) return;
    for (int i = 0; i < n; ++i)
        fill(numbers + i * kScoreStride + block.count, numbers + i * kScoreStride + block.columns(),
             value);
}

// Blocks of the catalogue that pass by all queries, one after the other.
struct Passage {
    Arena arena;
    ItemBlock block;
    Excluded excluded;
    float* scores;  // (kTileQueries, kScoreStride) of a tile with the block

    // `carve(arena)` takes what the op needs besides.
    template <class Carve>
    Passage(const LaresCatalogue& call, const Carve& carve) : block(call), excluded(call) {
        arena.carve([&] {
            block.carve(arena);
            excluded.carve(arena);
            scores = arena.take<float>(size_t(kTileQueries) * kScoreStride);
            carve(arena);
        });
    }

    // begin() and end() of every block, between them body(tile, first query, queries) of every
    // tile of queries.
    template <class Begin, class Body, class End>
    void run(const Queries& queries, Range blocks, const Begin& begin, const Body& body,
             const End& end) {
        const int tiles = int(Queries::tiles(queries.count));
        for (int index = blocks.first; index < blocks.end; ++index) {
            block.take(index);
            begin();
            for (int tile = 0; tile < tiles; ++tile) {
                const int from = tile * kTileQueries, n = queries.in_tile(tile);
                block.score(queries, from, n, scores);
                body(tile, from, n);
            }
            end();
        }
    }

    // Gives what takes no part that value: items that queries exclude, and numbers past the block's
    // last item.
    void leave_out(int from, int n, float value) {
        clear_past(block, n, scores, value);
        excluded.write(block, from, n, value, scores);
    }
};

// Sums of exp(s - shift), and of exp(s - shift) (s - shift) for the entropy, of one part, lane by
// lane.
struct Sums {
    float *shift, *sum, *weighted;  // (N,), (N, kLanes), (N, kLanes)

    void carve(int count, bool entropy, Arena& arena) {
        const size_t lanes = size_t(count) * kLanes;
        shift = arena.take<float>(size_t(count));
        sum = arena.take_zeros<float>(lanes);
        weighted = entropy ? arena.take_zeros<float>(lanes) : nullptr;
    }

    template <bool kEntropy>
    void add(int query, const float* scores, int columns) {
        const Vec by = broadcast(shift[query]);
        Vec most = broadcast(kNone), total = Vec{}, moment = Vec{};
        for (int c = 0; c < columns; c += kLanes) {
            const Vec s = load(scores + c);
            most = max(most, s);
            const Vec share = exp(s - by);
            total += share;
            if constexpr (kEntropy) moment += share * max(broadcast(-87.3f), s - by);
        }
        if (__builtin_expect(lanes_above(most, by + broadcast(kSlack)) != 0, 0)) {
            move_shift<kEntropy>(query, max_lanes(most));
            return add<kEntropy>(query, scores, columns);
        }
        float* to = sum + size_t(query) * kLanes;
        store(to, load(to) + total);
        if constexpr (kEntropy) {
            to = weighted + size_t(query) * kLanes;
            store(to, load(to) + moment);
        }
    }

  private:
    template <bool kEntropy>
    void move_shift(int query, float to) {
        const float down = max(shift[query] - to, kLeast);  // below zero; infinity times 0 is NaN
        const Vec scale = broadcast(__builtin_expf(down));
        float* sums = sum + size_t(query) * kLanes;
        store(sums, load(sums) * scale);
        if constexpr (kEntropy) {
            float* moments = weighted + size_t(query) * kLanes;
            store(moments, load(moments) * scale + broadcast(down) * load(sums));
        }
        shift[query] = to;
    }
};

// One query's sums in one part of the catalogue.
struct PartSum {
    double shift, sum, weighted;
};

inline double in_double(const float* lanes) {
    double sum = 0.0;
    for (int i = 0; i < kLanes; ++i) sum += double(lanes[i]);
    return sum;
}

template <bool kEntropy>
void sum_part(const LaresCatalogue& call, const Queries& queries, const float* first_shift,
              Range blocks, PartSum* found) {
    Sums sums;
    Passage passage(call, [&](Arena& arena) { sums.carve(queries.count, kEntropy, arena); });
    // Every one is finite.
    std::memcpy(sums.shift, first_shift, size_t(queries.count) * sizeof(float));
    passage.run(
        queries, blocks, [] {},
        [&](int, int from, int n) {
            passage.leave_out(from, n, kNone);
            for (int i = 0; i < n; ++i)
                sums.add<kEntropy>(from + i, passage.scores + i * kScoreStride,
                                   passage.block.columns());
        },
        [] {});
    for (int n = 0; n < queries.count; ++n) {
        const size_t lanes = size_t(n) * kLanes;
        found[n] = {sums.shift[n], in_double(sums.sum + lanes),
                    kEntropy ? in_double(sums.weighted + lanes) : 0.0};
    }
}

inline void log_probability(const LaresCatalogue& call) {
    const int threads = threads_for(call.threads, product_operations(call));
    const size_t count = size_t(call.n_queries);
    const int blocks = item_blocks(call);
    const int parts = parts_of(blocks, 4.0 * double(count));
    float *wanted, *shift;
    PartSum* found;
    const Queries queries(call, false, threads, [&](Arena& arena) {
        wanted = arena.take<float>(count);
        shift = arena.take<float>(count);
        found = arena.take<PartSum>(count * size_t(parts));
    });
    chosen_scores(call, queries, threads, wanted);
    for (size_t n = 0; n < count; ++n) shift[n] = is_finite(wanted[n]) ? wanted[n] : kLeast;
    run_pieces(parts, threads, [&](int part) {
        const auto range = blocks_of_part(blocks, part, parts);
        PartSum* to = found + size_t(part) * count;
        call.entropy ? sum_part<true>(call, queries, shift, range, to)
                     : sum_part<false>(call, queries, shift, range, to);
    });
    for (size_t n = 0; n < count; ++n) {
        double most = found[n].shift, sum = 0.0, weighted = 0.0;
        for (int part = 1; part < parts; ++part)
            most = max(most, found[size_t(part) * count + n].shift);
        for (int part = 0; part < parts; ++part) {
            const PartSum& each = found[size_t(part) * count + n];
            const double scale = __builtin_exp(each.shift - most);
            sum += scale * each.sum;
            weighted += scale * (each.weighted + (each.shift - most) * each.sum);
        }
        // The score that is the shift, or one above it, adds 1 at least. Where none does, all are
        // -infinity, and that less itself is NaN.
        const double log_sum = sum < 0.5 ? double(kNaN) : __builtin_log(sum);
        call.log_probability[n] = float(double(wanted[n]) - most - log_sum);
        call.normaliser[n] = float(most + log_sum);
        if (call.entropy) call.entropy[n] = float(log_sum - weighted / sum);
    }
}

// Turns a tile's scores into the loss's gradient by them.
inline void score_gradients(const LaresCatalogue& call, Passage& passage, int from, int n) {
    const ItemBlock& block = passage.block;
    float* scores = passage.scores;
    const int64_t each = call.n_queries / call.n_rows;
    for (int i = 0; i < n; ++i) {
        float* row = scores + i * kScoreStride;
        const Vec normaliser = broadcast(call.normaliser[from + i]);
        const Vec scale = broadcast(-call.g_log_probability[from + i]);
        for (int c = 0; c < block.columns(); c += kLanes) {
            const Vec log_share = load(row + c) - normaliser;
            // Zero itself, and not in effect: what it is multiplied with may be as large as floats
            // go.
            const Vec share = select(log_share < broadcast(-87.3f), Vec{}, exp(log_share));
            store(row + c, share * scale);
        }
        const int64_t place = call.chosen[(from + i) / each] - block.first;
        if (place >= 0 && place < block.count) row[place] += call.g_log_probability[from + i];
    }
    passage.leave_out(from, n, 0.0f);
}

inline void gradients_of_part(const LaresCatalogue& call, const Queries& queries, Range blocks,
                              float* g_queries) {
    const int padded = queries.padded;
    const size_t block_size = size_t(kBlockItems) * padded;
    float* g_block;
    Operand *left_room, *columns_room;
    Passage passage(call, [&](Arena& arena) {
        g_block = arena.take<float>(block_size);
        left_room = arena.take<Operand>(row_operands(kTileQueries, kBlockItems));
        columns_room = arena.take<Operand>(column_operands(kTileQueries, kBlockItems));
    });
    ItemBlock& block = passage.block;
    float* scores = passage.scores;
    if (g_queries) fill(g_queries, g_queries + size_t(queries.count) * padded, 0.0f);
    Panels items{};
    passage.run(
        queries, blocks,
        [&] {
            if (call.n_excluded) block.set_aside();
            if (g_queries) items = block.right();
            if (call.g_items) fill(g_block, g_block + block_size, 0.0f);
        },
        [&](int tile, int from, int n) {
            score_gradients(call, passage, from, n);
            const int columns = block.columns();
            if (g_queries) {
                float* to = g_queries + size_t(from) * padded;
                const Left left = left_rows(scores, kScoreStride, n, columns, left_room);
                product(n, padded, columns, left, items, add_to_rows(to, padded));
                for (size_t k = 0; k < block.aside.size(); ++k)
                    for (int i = 0; i < n; ++i)
                        if (!passage.excluded.holds(from + i, block.first + block.aside[k]))
                            block.add_aside(k, scores[i * kScoreStride + block.aside[k]],
                                            to + size_t(i) * padded);
            }
            if (call.g_items) {
                const Left left = left_columns(scores, kScoreStride, n, columns, columns_room);
                product<true>(columns, padded, n, left, queries.right(tile),
                              add_to_rows(g_block, padded));
            }
        },
        [&] {
            size_t aside = 0;  // how many of these were before item i
            for (int i = 0; call.g_items && i < block.count; ++i) {
                float* row = g_block + size_t(i) * padded;
                const bool is_aside = aside < block.aside.size() && block.aside[aside] == i;
                aside += is_aside;
                if (call.scores == LARES_COSINE && is_aside) {
                    if (largest_of(row, 1, padded) != 0.0f) fill(row, row + padded, kNaN);
                } else if (call.scores == LARES_COSINE) {
                    normalise_backward(row, block.rows + size_t(i) * padded, block.lengths[i],
                                       padded);
                }
                std::memcpy(call.g_items + (int64_t(block.first) + i) * queries.width, row,
                            size_t(queries.width) * sizeof(float));
            }
        });
}

// The queries' gradients from those of the parts, which lie one after the other.
inline void write_query_gradients(const LaresCatalogue& call, const Queries& queries, int parts,
                                  int threads, float* found) {
    const int padded = queries.padded;
    const size_t size = size_t(queries.count) * padded;
    const Vec scale = broadcast(float(1.0 / call.temperature));
    const Vec temperature = broadcast(float(call.temperature));
    run_pieces(int(Queries::tiles(queries.count)), threads, [&](int tile) {
        const int first = tile * kTileQueries, end = first + queries.in_tile(tile);
        for (int n = first; n < end; ++n) {
            float* row = found + size_t(n) * padded;
            for (int c = 0; c < padded; c += kLanes) {
                Vec sum = load(row + c);
                for (int part = 1; part < parts; ++part) sum += load(row + size_t(part) * size + c);
                store(row + c, sum * scale);
            }
            if (call.scores == LARES_COSINE) {
                float* unit = queries.rows + size_t(n) * padded;
                for (int c = 0; c < padded; c += kLanes)
                    store(unit + c, load(unit + c) * temperature);
                normalise_backward(row, unit, queries.lengths[n], padded);
            }
            std::memcpy(call.g_queries + size_t(n) * queries.width, row,
                        size_t(queries.width) * sizeof(float));
        }
    });
}

inline void gradients(const LaresCatalogue& call) {
    const int threads = threads_for(call.threads, 3 * product_operations(call));
    const int blocks = item_blocks(call);
    const size_t size = size_t(call.n_queries) * size_t(round_up(int(call.width), kLanes));
    const int parts = parts_of(blocks, double(size));
    float* found = nullptr;
    const Queries queries(call, true, threads, [&](Arena& arena) {
        if (call.g_queries) found = arena.take<float>(size * size_t(parts));
    });
    run_pieces(parts, threads, [&](int part) {
        gradients_of_part(call, queries, blocks_of_part(blocks, part, parts),
                          found ? found + size_t(part) * size : nullptr);
    });
    if (found) write_query_gradients(call, queries, parts, threads, found);
}

// Counted for a query with a score that is NaN: below zero whatever is added, for there are at most
// 2^30 items.
constexpr int32_t kBroken = INT32_MIN;

inline void ranks(const LaresCatalogue& call) {
    const int threads = threads_for(call.threads, product_operations(call));
    const size_t count = size_t(call.n_queries);
    const int blocks = item_blocks(call);
    const int parts = parts_of(blocks, double(count));
    float *wanted, *reach;
    int32_t* found;
    const Queries queries(call, false, threads, [&](Arena& arena) {
        wanted = arena.take<float>(count);
        reach = arena.take<float>(count);
        found = arena.take<int32_t>(count * size_t(parts));
    });
    chosen_scores(call, queries, threads, wanted);
    // Times an item's largest number, what no sum on the way to its score exceeds: below
    // kSafe none is infinite, and no score NaN.
    constexpr float kSafe = 1e38f;
    for (size_t n = 0; n < count; ++n)
        reach[n] = largest_of(queries.rows + n * size_t(queries.padded), 1, queries.padded) *
                   float(queries.width);
    run_pieces(parts, threads, [&](int part) {
        Passage passage(call, [](Arena&) {});
        ItemBlock& block = passage.block;
        const float* scores = passage.scores;
        int32_t* counts = found + size_t(part) * count;
        fill(counts, counts + count, 0);
        passage.run(
            queries, blocks_of_part(blocks, part, parts), [&] { block.measure(); },
            [&](int, int from, int n) {
                for (int i = 0; i < n; ++i)
                    if (!(reach[from + i] * block.largest < kSafe) &&
                        passage.excluded.leaves_nan(block, from + i, scores + i * kScoreStride))
                        counts[from + i] = kBroken;
                // NaN is at least as high as nothing.
                passage.leave_out(from, n, kNaN);
                for (int i = 0; i < n; ++i) {
                    const Vec least = broadcast(wanted[from + i]);
                    IVec ahead = IVec{};
                    for (int c = 0; c < block.columns(); c += kLanes)
                        ahead -= IVec(load(scores + i * kScoreStride + c) >= least);
                    int32_t lanes[kLanes];
                    std::memcpy(lanes, &ahead, sizeof lanes);
                    for (int32_t lane : lanes) counts[from + i] += lane;
                }
            },
            [] {});
    });
    for (size_t n = 0; n < count; ++n) {
        int64_t ahead = -1;  // the target counted itself
        for (int part = 0; part < parts; ++part) ahead += found[size_t(part) * count + n];
        call.ranks[n] = max<int64_t>(ahead, -1);
    }
}

inline void top_k(const LaresCatalogue& call) {
    const int threads = threads_for(call.threads, product_operations(call));
    const int blocks = item_blocks(call);
    const Queries queries(call, false, threads, [](Arena&) {});
    // Whatever the parts are, the best of all are the same.
    const int parts = min(blocks, threads == 1 ? 1 : 2 * threads);
    const int k = int(call.k);
    BestOfParts found(queries.count, parts, k);
    run_pieces(parts, threads, [&](int part) {
        Passage passage(call, [](Arena&) {});
        Candidates* best = found.of_part(part);
        passage.run(
            queries, blocks_of_part(blocks, part, parts), [] {},
            [&](int, int from, int n) {
                passage.leave_out(from, n, kNone);
                for (int i = 0; i < n; ++i)
                    best[from + i].add(passage.scores + i * kScoreStride, passage.block.columns(),
                                       passage.block.first, k);
            },
            [] {});
    });
    run_pieces(int(Queries::tiles(queries.count)), threads, [&](int tile) {
        const int first = tile * kTileQueries, end = first + queries.in_tile(tile);
        for (int n = first; n < end; ++n)
            found.write(n, call.top_scores + int64_t(n) * k, call.top_ids + int64_t(n) * k);
    });
}

}  // namespace lares::LARES_ISA
