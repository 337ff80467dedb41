// The catalogue ops.
//
// The catalogue is cut into parts whose number shapes alone decide, and what the parts found is
// added in order: any number of threads gives the same bits.
#pragma once

#include "math.hpp"
#include "scores.hpp"
#include "top_k.hpp"

namespace lares::LARES_ISA {

constexpr int kMostParts = 64;
// exp(s - shift) is summed with a shift that this much may lie below the greatest score: far from
// where floats end, and hardly ever exceeded once a few items have been seen.
constexpr float kSlack = 40.0f;
// The least shift: of a query whose own item's score is not finite, until one that is passes by.
constexpr float kLeast = -__FLT_MAX__;

// Parts of the catalogue, each with `numbers` of its own kept until the end.
inline int parts_of(int blocks, double numbers) {
    constexpr double kMostNumbers = 1 << 22;
    const int affordable = int(min(double(kMostParts), kMostNumbers / numbers));
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
        arena.reserve(ItemBlock::bytes(call));
        ItemBlock block(call, arena);
        const int end = min(groups, (piece + 1) * kGroups);
        for (int group = piece * kGroups; group < end; ++group) {
            int64_t ids[kLanes];
            const int from = group * kLanes, n = min(kLanes, queries.count - from);
            for (int i = 0; i < n; ++i) ids[i] = call.chosen[(from + i) / each];
            block.score_each(queries, from, n, ids, to + from);
        }
    });
}

// Takes every block of a part, and of each every tile of queries: body(block, tile, first query,
// queries, scores).
template <class Begin, class Body, class End>
void walk(const LaresCatalogue& call, const Queries& queries, Range blocks, ItemBlock& block,
          float* scores, const Begin& begin, const Body& body, const End& end) {
    const int tiles = int(Queries::tiles(queries.count));
    (void)call;
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

constexpr size_t kScores = size_t(kTileQueries) * kScoreStride;

// Numbers past a block's last item, in its last vector, take no part.
inline void clear_past(const ItemBlock& block, int n, float* numbers, float value) {
    if (block.count == block.columns()) return;
    for (int i = 0; i < n; ++i)
        fill(numbers + i * kScoreStride + block.count, numbers + i * kScoreStride + block.columns(),
             value);
}

// Sums of exp(s - shift), and of exp(s - shift) (s - shift) for the entropy, of one part, lane by
// lane.
struct Sums {
    float *shift, *sum, *weighted;  // (N,), (N, kLanes), (N, kLanes)

    static size_t bytes(int count, bool entropy) {
        return Arena::bytes_of<float>(size_t(count)) +
               (entropy ? 2 : 1) * Arena::bytes_of<float>(size_t(count) * kLanes);
    }

    // `first_shift` of every query is finite.
    Sums(int count, bool entropy, const float* first_shift, Arena& arena) {
        const size_t lanes = size_t(count) * kLanes;
        shift = arena.take<float>(size_t(count));
        sum = arena.take<float>(lanes);
        weighted = entropy ? arena.take<float>(lanes) : nullptr;
        std::memcpy(shift, first_shift, size_t(count) * sizeof(float));
        fill(sum, sum + lanes, 0.0f);
        if (entropy) fill(weighted, weighted + lanes, 0.0f);
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

// What a part found of a query.
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
    Arena arena;
    arena.reserve(ItemBlock::bytes(call) + Excluded::bytes(call) + Arena::bytes_of<float>(kScores) +
                  Sums::bytes(queries.count, kEntropy));
    ItemBlock block(call, arena);
    Excluded excluded(call, arena);
    float* scores = arena.take<float>(kScores);
    Sums sums(queries.count, kEntropy, first_shift, arena);
    walk(
        call, queries, blocks, block, scores, [] {},
        [&](int, int from, int n) {
            clear_past(block, n, scores, kNone);
            excluded.write(block, from, n, kNone, scores);
            for (int i = 0; i < n; ++i)
                sums.add<kEntropy>(from + i, scores + i * kScoreStride, block.columns());
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
    Arena arena;
    arena.reserve(Queries::bytes(call) + 2 * Arena::bytes_of<float>(count) +
                  Arena::bytes_of<PartSum>(count * size_t(parts)));
    const Queries queries(call, false, threads, arena);
    float *wanted = arena.take<float>(count), *shift = arena.take<float>(count);
    PartSum* found = arena.take<PartSum>(count * size_t(parts));
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
inline void score_gradients(const LaresCatalogue& call, const ItemBlock& block, Excluded& excluded,
                            int from, int n, float* scores) {
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
    clear_past(block, n, scores, 0.0f);
    excluded.write(block, from, n, 0.0f, scores);
}

inline void gradients_of_part(const LaresCatalogue& call, const Queries& queries, Range blocks,
                              float* g_queries) {
    const int padded = queries.padded;
    const size_t block_size = size_t(kBlockItems) * padded;
    Arena arena;
    arena.reserve(ItemBlock::bytes(call) + Excluded::bytes(call) + Arena::bytes_of<float>(kScores) +
                  Arena::bytes_of<float>(block_size) +
                  Arena::bytes_of<Operand>(row_operands(kTileQueries, kBlockItems)) +
                  Arena::bytes_of<Operand>(column_operands(kTileQueries, kBlockItems)));
    ItemBlock block(call, arena);
    Excluded excluded(call, arena);
    float* scores = arena.take<float>(kScores);
    float* g_block = arena.take<float>(block_size);
    Operand* left_room = arena.take<Operand>(row_operands(kTileQueries, kBlockItems));
    Operand* columns_room = arena.take<Operand>(column_operands(kTileQueries, kBlockItems));
    if (g_queries) fill(g_queries, g_queries + size_t(queries.count) * padded, 0.0f);
    Panels items{};
    walk(
        call, queries, blocks, block, scores,
        [&] {
            if (call.n_excluded) block.set_aside();
            if (g_queries) items = block.right();
            if (call.g_items) fill(g_block, g_block + block_size, 0.0f);
        },
        [&](int tile, int from, int n) {
            score_gradients(call, block, excluded, from, n, scores);
            const int columns = block.columns();
            if (g_queries) {
                float* to = g_queries + size_t(from) * padded;
                const Left left = left_rows(scores, kScoreStride, n, columns, left_room);
                product(n, padded, columns, left, items, add_to_rows(to, padded));
                for (size_t k = 0; k < block.aside.size(); ++k)
                    for (int i = 0; i < n; ++i)
                        if (!excluded.holds(from + i, block.first + block.aside[k]))
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
    Arena arena;
    const size_t all = call.g_queries ? size * size_t(parts) : 0;
    arena.reserve(Queries::bytes(call) + Arena::bytes_of<float>(all));
    const Queries queries(call, true, threads, arena);
    float* found = arena.take<float>(all);
    run_pieces(parts, threads, [&](int part) {
        gradients_of_part(call, queries, blocks_of_part(blocks, part, parts),
                          call.g_queries ? found + size_t(part) * size : nullptr);
    });
    if (call.g_queries) write_query_gradients(call, queries, parts, threads, found);
}

// Counted for a query with a score that is NaN: below zero whatever is added, for there are at most
// 2^30 items.
constexpr int32_t kBroken = INT32_MIN;

inline void ranks(const LaresCatalogue& call) {
    const int threads = threads_for(call.threads, product_operations(call));
    const size_t count = size_t(call.n_queries);
    const int blocks = item_blocks(call);
    const int parts = parts_of(blocks, double(count));
    Arena arena;
    arena.reserve(Queries::bytes(call) + 2 * Arena::bytes_of<float>(count) +
                  Arena::bytes_of<int32_t>(count * size_t(parts)));
    const Queries queries(call, false, threads, arena);
    float *wanted = arena.take<float>(count), *reach = arena.take<float>(count);
    int32_t* found = arena.take<int32_t>(count * size_t(parts));
    chosen_scores(call, queries, threads, wanted);
    // Times an item's largest number, what no sum on the way to its score exceeds: below
    // kSafe none is infinite, and no score NaN.
    constexpr float kSafe = 1e38f;
    for (size_t n = 0; n < count; ++n)
        reach[n] = largest_of(queries.rows + n * size_t(queries.padded), 1, queries.padded) *
                   float(queries.width);
    run_pieces(parts, threads, [&](int part) {
        Arena own;
        own.reserve(ItemBlock::bytes(call) + Excluded::bytes(call) +
                    Arena::bytes_of<float>(kScores));
        ItemBlock block(call, own);
        Excluded excluded(call, own);
        float* scores = own.take<float>(kScores);
        int32_t* counts = found + size_t(part) * count;
        fill(counts, counts + count, 0);
        walk(
            call, queries, blocks_of_part(blocks, part, parts), block, scores,
            [&] { block.measure(); },
            [&](int, int from, int n) {
                for (int i = 0; i < n; ++i)
                    if (!(reach[from + i] * block.largest < kSafe) &&
                        excluded.leaves_nan(block, from + i, scores + i * kScoreStride))
                        counts[from + i] = kBroken;
                // NaN is at least as high as nothing.
                clear_past(block, n, scores, kNaN);
                excluded.write(block, from, n, kNaN, scores);
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
    Arena arena;
    arena.reserve(Queries::bytes(call));
    const Queries queries(call, false, threads, arena);
    // Whatever the parts are, the best of all are the same.
    const int parts = min(blocks, threads == 1 ? 1 : 2 * threads);
    const int k = int(call.k);
    BestOfParts found(queries.count, parts, k);
    run_pieces(parts, threads, [&](int part) {
        Arena own;
        own.reserve(ItemBlock::bytes(call) + Excluded::bytes(call) +
                    Arena::bytes_of<float>(kScores));
        ItemBlock block(call, own);
        Excluded excluded(call, own);
        float* scores = own.take<float>(kScores);
        Candidates* best = found.of_part(part);
        walk(
            call, queries, blocks_of_part(blocks, part, parts), block, scores, [] {},
            [&](int, int from, int n) {
                clear_past(block, n, scores, kNone);
                excluded.write(block, from, n, kNone, scores);
                for (int i = 0; i < n; ++i)
                    best[from + i].add(scores + i * kScoreStride, block.columns(), block.first, k);
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
