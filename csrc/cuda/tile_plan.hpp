// The tile plan: which rows of which sequences share a tile.
//
// A tile is a few whole sequences, at most 16 rows for each warp of a unit. 128 neighbouring
// sequences are cut into tiles on their own, first-fit: the deepest first, of those the longest,
// each into the first tile that has room for it. So a tile's deepest sequence is its first, and
// every row runs at least as many steps as the next. Tiles are numbered, and their rows packed,
// block after block. Row r of a tile that starts at packed row n is packed row n + r.
#pragma once

#include "draws.hpp"
#include "tile.hpp"

namespace lares::cuda {

// Fields of each sequence, or of each possible tile.
enum SequenceField : int {
    kMember,         // number, in the order taken, of the one that is placed here
    kPlace,          // its tile among its program's << 8 | its first row there
    kBefore,         // tokens of its program's sequences before it, as taken
    kBeforeAsGiven,  // and in the caller's order
    kFill,           // a tile's rows
    kStart,          // rows of its program's tiles before it
    kSequenceFields
};
static_assert(kSequenceFields == LARES_CUDA_SEQUENCE_FIELDS);

// Sums of a program: its tiles, its tokens, those of as many sequences in the caller's order.
enum ProgramSum : int { kTiles, kTokens, kTokensAsGiven, kProgramSums };
static_assert(kProgramSums == LARES_CUDA_PROGRAM_SUMS);

// How sequences are divided among programs, which are blocks of the grid.
struct Programs {
    static constexpr int kBlock = LARES_CUDA_BLOCK;

    const LaresCudaCall& call;

    LARES_DEVICE int sequences() const { return call.n_groups * call.rollouts; }
    LARES_DEVICE int of_program() const { return call.program_blocks * kBlock; }
    LARES_DEVICE int32_t* field(SequenceField which) const {
        return call.sequences + int64_t(which) * sequences();
    }
    LARES_DEVICE int32_t* sum(ProgramSum which) const { return call.sums + which * call.programs; }
    // A sum of the programs before one.
    LARES_DEVICE int sum_before(ProgramSum which, int program) const {
        Int found = wide(0);
        LARES_ROLLED
        for (int base = 0; base < program; base += 32) {
            const Int at = base + lane_number();
            found += load(sum(which), at, at < program, 0);
        }
        return warp_sum(found);
    }
    // Bad values are held in range, so that they lead out of no array.
    LARES_DEVICE static int held(int64_t value, int most) {
        return value < 1 ? 1 : value > most ? most : int(value);
    }
    LARES_DEVICE Int lengths(Int sequence, Mask inside) const {
        const Int length = load(call.lengths, sequence / call.rollouts, inside, 0);
        return select(inside, smaller(larger(length, wide(1)), wide(call.longest)), wide(0));
    }
};

// Cuts the sequences into tiles; a warp for each program.
struct TilePlan {
    static constexpr int kMaxWarps = 1;
    static constexpr int kEach = Programs::kBlock / 32;  // neighbours, which a lane takes

    const LaresCudaCall& call;
    const Block& block;
    Programs programs;

    LARES_DEVICE TilePlan(const LaresCudaCall& call, const Block& block, unsigned char*)
        : call(call), block(block), programs{call} {}

    using Numbers = Int[kEach];

    // Sums of all numbers before each; gives the sum of all.
    LARES_DEVICE static int sums_before(Numbers& before, const Numbers& x) {
        Int sum = wide(0);
        LARES_UNROLL
        for (int i = 0; i < kEach; ++i) {
            before[i] = sum;
            sum += x[i];
        }
        const Int upto = running_sum(sum);
        LARES_UNROLL
        for (int i = 0; i < kEach; ++i) before[i] += upto - sum;
        return warp_max(upto);
    }

    // Write the key of all draws to memory here, which saves a launch of its own.
    LARES_DEVICE void write_seed() const {
        const Seed key = call.seed_given == nullptr ? Seed{call.seed_low, call.seed_high}
                                                    : seed_at(call.seed_given);
        const Int lane = lane_number();
        store(reinterpret_cast<int32_t*>(call.seed), lane,
              select(lane == 0, wide(int(key.low)), wide(int(key.high))), lane < 2);
    }

    LARES_DEVICE void run() const {
        if (block.index == 0 && block.warp == 0) write_seed();
        const int of_program = programs.of_program(), count = programs.sequences();
        const int begin = block.index * of_program;
        int tiles = 0, tokens = 0, as_given = 0;
        LARES_ROLLED
        for (int first = begin; first < begin + of_program && first < count;
             first += Programs::kBlock) {
            Numbers key, length, given, fill, before, before_given;
            LARES_UNROLL
            for (int i = 0; i < kEach; ++i) {
                const Int at = first + kEach * lane_number() + i;
                const Mask inside = at < count;
                const Int sequence = call.order == nullptr ? at : load(call.order, at, inside, 0);
                length[i] = programs.lengths(sequence, inside);
                given[i] = call.order == nullptr ? length[i] : programs.lengths(at, inside);
                Int depth = wide(1);
                if (call.num_steps != nullptr)
                    depth = smaller(larger(load(call.num_steps, sequence, inside, 0), wide(1)),
                                    wide(call.max_steps));
                key[i] = select(inside, depth << 8 | length[i], wide(0));
                fill[i] = wide(0);
            }
            sums_before(before, length);
            const int of_block = sums_before(before_given, given);
            LARES_UNROLL
            for (int i = 0; i < kEach; ++i) {
                const Int at = first + kEach * lane_number() + i;
                store(programs.field(kBefore), at, tokens + before[i], at < count);
                store(programs.field(kBeforeAsGiven), at, as_given + before_given[i], at < count);
            }
            as_given += of_block;
            fill_tiles(key, fill, first, tiles);
            tokens += write_tiles(fill, begin, tiles, tokens);
        }
        const Mask once = lane_number() == 0;
        store(programs.sum(kTiles), wide(block.index), wide(tiles), once);
        store(programs.sum(kTokens), wide(block.index), wide(tokens), once);
        store(programs.sum(kTokensAsGiven), wide(block.index), wide(as_given), once);
    }

    // Puts a block's sequences into tiles. Those of one key, which is their depth << 8 | length, at
    // once: as many into each tile as it has room for.
    LARES_DEVICE void fill_tiles(Numbers& key, Numbers& fill, int first, int tiles) const {
        const int rows = 16 * call.unit_warps;
        int done = first;
        LARES_ROLLED
        while (true) {
            Int best = key[0];
            LARES_UNROLL
            for (int i = 1; i < kEach; ++i) best = larger(best, key[i]);
            const int of_all = warp_max(best);
            if (of_all == 0) return;
            const int length = of_all & 0xff;
            // x / length of x up to 128 is x inverse >> 16.
            const int inverse = 65536 / length + 1;
            Numbers same, rank, room, earlier;
            LARES_UNROLL
            for (int i = 0; i < kEach; ++i) {
                same[i] = select(key[i] == of_all, wide(1), wide(0));
                room[i] = (rows - fill[i]) * inverse >> 16;
            }
            const int count = sums_before(rank, same);
            sums_before(earlier, room);
            Int most = wide(0);
            LARES_UNROLL
            for (int i = 0; i < kEach; ++i) {
                const Int at = first + kEach * lane_number() + i;
                store(programs.field(kMember), done + rank[i], at, same[i] > 0);
                key[i] = select(same[i] > 0, wide(0), key[i]);
                room[i] = smaller(larger(count - earlier[i], wide(0)), room[i]);
                most = larger(most, room[i]);
            }
            const int times = warp_max(most);
            LARES_ROLLED
            for (int k = 0; k < times; ++k) {
                LARES_UNROLL
                for (int i = 0; i < kEach; ++i) {
                    const Int tile = tiles + kEach * lane_number() + i;
                    const Mask has = room[i] > k;
                    store(programs.field(kPlace), done + earlier[i] + k, tile << 8 | fill[i], has);
                    fill[i] += select(has, wide(length), wide(0));
                }
            }
            done += count;
        }
    }

    // Write the fields of a block's tiles and add their count to `tiles`; return their rows.
    LARES_DEVICE int write_tiles(const Numbers& fill, int begin, int& tiles, int tokens) const {
        Numbers before;
        const int rows = sums_before(before, fill);
        Int used = wide(0);
        LARES_UNROLL
        for (int i = 0; i < kEach; ++i) {
            const Mask has = fill[i] > 0;
            const Int at = begin + tiles + kEach * lane_number() + i;
            store(programs.field(kFill), at, fill[i], has);
            store(programs.field(kStart), at, tokens + before[i], has);
            used += select(has, wide(1), wide(0));
        }
        tiles += warp_sum(used);
        return rows;
    }
};

// Writes down what is known of each row; a warp for each place that a sequence has.
struct TileRows {
    static constexpr int kMaxWarps = 8;

    const LaresCudaCall& call;
    const Block& block;
    Programs programs;

    LARES_DEVICE TileRows(const LaresCudaCall& call, const Block& block, unsigned char*)
        : call(call), block(block), programs{call} {}

    LARES_DEVICE int row_limit() const { return call.n_hidden_rows * call.rollouts; }

    LARES_DEVICE void run() const {
        const int at = block.index * block.warps + block.warp;
        if (at >= programs.sequences()) return;
        if (at == 0) {
            // Bad lengths of packed sequences may add up to more than there is room for.
            const int tiles = programs.sum_before(kTiles, call.programs);
            store(call.tile_count, wide(0), smaller(wide(tiles), wide(call.max_tiles)),
                  lane_number() == 0);
        }
        const int program = at / programs.of_program();
        const int member = programs.field(kMember)[at], place = programs.field(kPlace)[at];
        const int of_program = program * programs.of_program() + (place >> 8);
        const int tile = programs.sum_before(kTiles, program) + (place >> 8);
        const int before = programs.sum_before(kTokens, program);
        const int start = before + programs.field(kStart)[of_program];
        const int kept = before + programs.field(kBefore)[member];
        if (tile >= call.max_tiles) return;
        const int row = place & 0xff;
        if (row == 0) store(call.tile_start, wide(tile), wide(start), lane_number() == 0);
        const int sequence = call.order == nullptr ? member : int(call.order[member]);
        const int length = Programs::held(call.lengths[sequence / call.rollouts], call.longest);
        // A tile's last sequence sees to the rows after it, too.
        const int rows = 16 * call.unit_warps;
        const int end = row + length == programs.field(kFill)[of_program] ? rows : row + length;
        int32_t* info = call.rows + int64_t(tile) * (LARES_CUDA_FIELDS * rows);
        LARES_ROLLED
        for (int r = row; r < end; r += 32) {
            const Int here = r + lane_number();
            write(info, here, here < end, here - row, sequence, length, start, kept);
        }
    }

    LARES_DEVICE void write(int32_t* info, Int r, Mask inside, Int position, int sequence,
                            int length, int start, int kept) const {
        const Mask real = both(position < length, start + r < row_limit());
        const int group = sequence / call.rollouts, rollout = sequence - group * call.rollouts;
        int first_hidden = group * call.padded_length, first_state = sequence * call.padded_length;
        if (call.padded_length == 0) {
            first_state = programs.sum_before(kTokensAsGiven, sequence / programs.of_program()) +
                          programs.field(kBeforeAsGiven)[sequence];
            first_hidden = (first_state - rollout * length) / call.rollouts;
        }
        // Unchecked ids may be any number; the higher bits address a rollout.
        const int number =
            call.sequence_ids == nullptr ? group : int(call.sequence_ids[group] & 0xffffff);
        int depth = call.max_steps;
        if (call.num_steps != nullptr) depth = Programs::held(call.num_steps[sequence], depth);

        const auto put = [&](Field field, Int value, int other) {
            store(info + field, r * LARES_CUDA_FIELDS, select(real, value, wide(other)), inside);
        };
        put(kHiddenRow, smaller(first_hidden + position, wide(call.n_hidden_rows - 1)), -1);
        put(kStateRow, smaller(first_state + position, wide(row_limit() - 1)), -1);
        put(kStream, wide(number | (rollout << 24)), 0);
        put(kPosition, position, 0);
        put(kDepth, wide(depth), 0);
        put(kKeptRow, smaller(kept + position, wide(row_limit() - 1)), -1);
        put(kNewest, select(position == length - 1, wide(sequence), wide(-1)), -1);
        store(info + kFirst, r * LARES_CUDA_FIELDS, select(real, r - position, r), inside);
    }
};

}  // namespace lares::cuda
