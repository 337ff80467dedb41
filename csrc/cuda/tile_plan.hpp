// The tile plan: which rows of which sequences share a tile.
//
// A tile is a few whole sequences, at most 16 rows for each warp of a unit. Sequences are taken in
// order, deepest first, and a tile is closed by the first one that does not fit it (next-fit). Row
// r of a tile that starts at packed row n is packed row n + r.
#pragma once

#include "tile.hpp"

namespace lares::cuda {

// Cuts the sequences into tiles; one block.
struct TilePlan {
    static constexpr int kMostWarps = 32;

    const LaresCudaCall& call;
    const Block& block;
    int32_t* totals;  // shared, one a warp

    LARES_DEVICE TilePlan(const LaresCudaCall& call, const Block& block, unsigned char* shared)
        : call(call), block(block), totals(reinterpret_cast<int32_t*>(shared)) {}

    LARES_DEVICE int sequences() const { return call.n_groups * call.rollouts; }

    // f(numbers of 32 neighbours, which of them are below `count`), by all warps of the block.
    template <class F>
    LARES_DEVICE void for_all(int count, F f) const {
        LARES_ROLLED
        for (int first = 32 * block.warp; first < count; first += 32 * block.warps) {
            const Int at = first + lane_number();
            f(at, at < count);
        }
    }

    LARES_DEVICE void meet() const {
        block.fence();
        block.barrier();
    }

    // out[i] = tokens of the sequences before the i-th, i = 0 .. count. A bad length is held to
    // 1 .. longest, so that it leads out of no array.
    LARES_DEVICE void prefix_sums(const int64_t* order, int rollouts, int count,
                                  int32_t* out) const {
        int before = 0;
        LARES_ROLLED
        for (int base = 0; base < count; base += 32 * block.warps) {
            const Int at = base + 32 * block.warp + lane_number();
            const Mask inside = at < count;
            const Int sequence = order == nullptr ? at : load(order, at, inside, 0);
            Int length = load(call.lengths, sequence / rollouts, inside, 0);
            length = smaller(larger(length, wide(1)), wide(call.longest));
            length = select(inside, length, wide(0));
            const Int sum = running_sum(length);
            const int total = warp_max(sum);
            store(totals, wide(block.warp), wide(total), lane_number() == 0);
            block.barrier();
            const Int warp = lane_number();
            const Int of_warp = load(totals, warp, warp < block.warps, 0);
            const int mine = warp_sum(select(warp < block.warp, of_warp, wide(0)));
            store(out, at, before + mine + sum - length, inside);
            before += warp_sum(of_warp);
            block.barrier();
        }
        if (block.warp == 0) store(out, wide(count), wide(before), lane_number() == 0);
    }

    LARES_DEVICE void run() const {
        const int count = sequences(), rows = 16 * call.unit_warps;
        prefix_sums(call.order, call.rollouts, count, call.starts);
        if (call.hidden_starts != nullptr)
            prefix_sums(nullptr, 1, call.n_groups, call.hidden_starts);
        meet();

        // The sequence that starts the next tile, if a tile starts here.
        for_all(count + 1, [&](Int at, Mask inside) {
            const Int end = load(call.starts, at, inside, 0) + rows;
            Int low = at;  // starts[low] <= end; every sequence has a token: at most `rows` fit
            LARES_ROLLED
            for (int step = rows; step > 0; step /= 2) {
                const Int probe = low + step;
                const Mask valid = both(inside, probe <= count);
                const Mask fits = both(valid, load(call.starts, probe, valid, 0) <= end);
                low = select(fits, probe, low);
            }
            store(call.jumps, at, low, inside);
        });

        // Tile t starts after t jumps from sequence 0: as many of the 1st, 2nd, 4th, ... powers of
        // the jump as t has bits.
        for_all(call.max_tiles + 1,
                [&](Int tile, Mask inside) { store(call.tile_sequence, tile, wide(0), inside); });
        int32_t *here = call.jumps, *there = call.jumps + count + 1;
        LARES_ROLLED
        for (int power = 1; power <= call.max_tiles; power *= 2) {
            meet();
            for_all(call.max_tiles + 1, [&](Int tile, Mask inside) {
                const Mask jumps = both(inside, (tile & power) != 0);
                const Int sequence = load(call.tile_sequence, tile, jumps, 0);
                store(call.tile_sequence, tile, load(here, sequence, jumps, 0), jumps);
            });
            for_all(count + 1, [&](Int at, Mask inside) {
                store(there, at, load(here, load(here, at, inside, 0), inside, 0), inside);
            });
            int32_t* const swapped = here;
            here = there;
            there = swapped;
        }
        meet();

        if (block.warp != 0) return;
        int tiles = 0;
        LARES_ROLLED
        for (int base = 0; base < call.max_tiles; base += 32) {
            const Int tile = base + lane_number();
            const Int sequence = load(call.tile_sequence, tile, tile < call.max_tiles, count);
            tiles += warp_sum(select(sequence < count, wide(1), wide(0)));
        }
        store(call.tile_count, wide(0), wide(tiles), lane_number() == 0);
    }
};

// Writes down what is known of each row; one block for each tile there may be.
struct TileRows {
    static constexpr int kMostWarps = 1;

    const LaresCudaCall& call;
    const Block& block;

    LARES_DEVICE TileRows(const LaresCudaCall& call, const Block& block, unsigned char*)
        : call(call), block(block) {}

    LARES_DEVICE void run() const {
        const int tile = block.index, rows = 16 * call.unit_warps;
        if (tile >= *call.tile_count) return;
        const int first = call.tile_sequence[tile], last = call.tile_sequence[tile + 1];
        const int start = call.starts[first], end = call.starts[last];
        store(call.tile_start, wide(tile), wide(start), lane_number() == 0);
        int32_t* info = call.rows + tile * (LARES_CUDA_FIELDS * rows);
        const int row_limit = call.n_hidden_rows * call.rollouts;
        LARES_ROLLED
        for (int base = 0; base < rows; base += 32) {
            const Int r = base + lane_number(), row = start + r;
            const Mask real = both(r < rows, row < smaller(wide(end), wide(row_limit)));
            Int low = wide(first);  // starts[low] <= row
            LARES_ROLLED
            for (int step = rows / 2; step > 0; step /= 2) {
                // A tile of n rows has at most n sequences.
                const Int probe = smaller(low + step, wide(last));
                low = select(both(real, load(call.starts, probe, real, 0) <= row), probe, low);
            }
            write(info, r, r < rows, real, low, row);
        }
    }

    LARES_DEVICE void write(int32_t* info, Int r, Mask inside, Mask real, Int taken,
                            Int row) const {
        const Int sequence = call.order == nullptr ? taken : load(call.order, taken, real, 0);
        const Int start = load(call.starts, taken, real, 0);
        const Int length = load(call.starts, taken + 1, real, 0) - start;
        const Int position = row - start;
        const Int group = sequence / call.rollouts, rollout = sequence - group * call.rollouts;
        Int hidden_row = group * call.padded_length + position;
        Int state_row = sequence * call.padded_length + position;
        if (call.hidden_starts != nullptr) {
            const Int hidden_start = load(call.hidden_starts, group, real, 0);
            hidden_row = hidden_start + position;
            state_row = call.rollouts * hidden_start + rollout * length + position;
        }
        hidden_row = smaller(hidden_row, wide(call.n_hidden_rows - 1));
        state_row = smaller(state_row, wide(call.n_hidden_rows * call.rollouts - 1));
        const Int number =
            call.sequence_ids == nullptr ? group : load(call.sequence_ids, group, real, 0);
        Int depth = wide(call.max_steps);
        if (call.num_steps != nullptr)
            depth = smaller(load(call.num_steps, sequence, real, 0), depth);

        const auto put = [&](Field field, Int value, int other) {
            store(info + field, r * LARES_CUDA_FIELDS, select(real, value, wide(other)), inside);
        };
        put(kHiddenRow, hidden_row, -1);
        put(kStateRow, state_row, -1);
        put(kStream, number | (rollout << 24), 0);
        put(kPosition, position, 0);
        put(kDepth, depth, 0);
        put(kNewest, select(position == length - 1, sequence, wide(-1)), -1);
        store(info + kFirst, r * LARES_CUDA_FIELDS, select(real, r - position, r), inside);
    }
};

}  // namespace lares::cuda
