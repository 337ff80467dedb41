// All steps of the recurrence in one launch. A warp's rows stay in its registers from first to last
// step, the weights of all layers in shared memory for all steps of all tiles.
#pragma once

#include "layer.hpp"

namespace lares::cuda {

// Shared memory of a block, in this order: weights of all layers where they are resident, or two
// pieces where they are staged, vectors, what each warp exchanges, followed by its own that waits.
template <class S>
struct SharedPlaces {
    int weights, vectors, exchange;

    LARES_DEVICE SharedPlaces(const LaresCudaCall& call, const Places<S>& places)
        : weights(0),
          vectors(S::kResident ? call.n_layers * places.layer() * kFragment
                  : S::kStaged ? 2 * Stage<S>::kBytes
                               : 0),
          exchange(vectors + places.vectors(call.n_layers) * 4) {}
};

template <class S>
struct Forward {
    static constexpr int kMaxWarps = S::kMaxWarps;

    const LaresCudaCall& call;
    const Block& block;
    unsigned char* shared;
    Places<S> places;
    SharedPlaces<S> at;

    LARES_DEVICE Forward(const LaresCudaCall& call, const Block& block, unsigned char* shared)
        : call(call),
          block(block),
          shared(shared),
          places{call.n_heads, call.d_ff},
          at(call, places) {}

    LARES_DEVICE const unsigned char* matrices() const {
        return static_cast<const unsigned char*>(call.matrices);
    }
    LARES_DEVICE const float* vectors() const {
        return reinterpret_cast<const float*>(shared + at.vectors);
    }

    LARES_DEVICE Layer<S> layer(int index, Stage<S>* stage, Pass pass) const {
        const unsigned char* base = S::kResident ? shared : matrices();
        return {{base + index * places.layer() * kFragment},
                vectors() + index * places.layer_vector(),
                places,
                index,
                call.n_layers,
                stage,
                pass};
    }

    // kernel.run_tile() for every tile of this warp's unit.
    template <class Kernel>
    LARES_DEVICE void run_tiles(const Kernel& kernel) const {
        if (block.index >= *call.tile_count) return;
        if constexpr (S::kResident)
            copy_shared(block, shared + at.weights, call.matrices,
                        call.n_layers * places.layer() * kFragment);
        copy_shared(block, shared + at.vectors, call.vectors, places.vectors(call.n_layers) * 4);
        copies_done();
        block.barrier();
        const int index = block.warp / call.unit_warps;
        const Unit unit = {block, index, call.unit_warps,
                           shared + at.exchange + index * call.unit_warps * S::kOfWarp};
        // Neighbouring tiles go to different blocks, so that a small batch spreads over the card.
        // Their count is read again for each: held through all steps, even a word may be spilled.
        const int first = index * block.count + block.index, stride = call.units * block.count;
        if constexpr (S::kStaged) {
            Stage<S> stage = {block, shared + at.weights, matrices()};
            stage.bring(0, S::kPiece);
            // Units that have no tile left run without one as long as another of the block has.
            LARES_ROLLED
            for (int tile = first; tile - index * block.count < *call.tile_count; tile += stride)
                kernel.run_tile(unit, tile, &stage);
            copies_done();  // of a piece that nobody takes
        } else {
            LARES_ROLLED
            for (int tile = first; tile < *call.tile_count; tile += stride)
                kernel.run_tile(unit, tile, nullptr);
        }
    }

    LARES_DEVICE Tile tile_of(const Unit& unit, int number) const {
        const int rows = 16 * call.unit_warps;
        return {call.rows + number * (LARES_CUDA_FIELDS * rows),
                block.warp - unit.index * unit.warps, number};
    }
    // Packed row of a tile's first.
    LARES_DEVICE int start_of(const Tile& tile) const { return call.tile_start[tile.number]; }

    // The states before `step`, kept for backward.
    LARES_DEVICE float* kept(int step) const {
        return call.kept + int64_t(step - 1) * call.kept_rows * S::kWidth;
    }

    // Draws of layers outside the recurrence carry step 0.
    LARES_DEVICE int rng_step(int step) const {
        return call.adapter == LARES_ADAPTER_NONE ? 0 : step + call.steps_done;
    }

    LARES_DEVICE void run() const { run_tiles(*this); }

    // Steps that a unit goes through with its tile `number`: staged, those of the deepest tile that
    // the block's units run at a time.
    LARES_DEVICE int depth(const Unit& unit, const Tile& own, int number) const {
        if constexpr (!S::kStaged) return own.depth();
        const Int tile = number + (lane_number() - unit.index) * block.count;
        const Mask runs = both(lane_number() < call.units, tile < *call.tile_count);
        return warp_max(
            load(call.rows + kDepth, tile * (LARES_CUDA_FIELDS * 16 * unit.warps), runs, 0));
    }

    // True if staged weights have brought a unit here that has no tile left.
    LARES_DEVICE bool without_tile(int number) const {
        return S::kStaged && number >= *call.tile_count;
    }
    // Steps of a warp's deepest row.
    LARES_DEVICE int last_step(const Tile& tile) const {
        return warp_max(larger(tile.field(kDepth, tile.upper()), tile.field(kDepth, tile.lower())));
    }

    LARES_DEVICE void run_tile(const Unit& unit, int number, Stage<S>* stage) const {
        const bool none = without_tile(number);
        const Tile tile = tile_of(unit, none ? 0 : number);
        Rows<S> x = {};
        const int last = none ? 0 : last_step(tile);
        if (last > 0 && call.adapter != LARES_ADAPTER_NONE) first_state(x, tile);
        LARES_ROLLED
        for (int step = 1; step <= depth(unit, tile, number); ++step) {
            const bool runs = step <= last;
            if (runs) step_input(x, tile, step);
            LARES_ROLLED
            for (int index = 0; index < call.n_layers; ++index) {
                Work work = runs ? Work::kAll : Work::kNone;
                if (step == last && index + 1 == call.n_layers) work = work_of_last(tile, step);
                LayerDraws<S> draws = {call, tile, index, rng_step(step), {}};
                layer_forward<S>(x, layer(index, stage, Pass::kForward), unit, draws, work,
                                 NoTape());
            }
            if (runs) write(x, tile, step);
        }
    }

    // How far a warp's last step computes its last layer: to keys and values if its rows are
    // unread.
    LARES_DEVICE Work work_of_last(const Tile& tile, int step) const {
        if (call.final_state != nullptr) return Work::kAll;
        const Mask upper =
            both(tile.field(kNewest, tile.upper()) >= 0, tile.field(kDepth, tile.upper()) >= step);
        const Mask lower =
            both(tile.field(kNewest, tile.lower()) >= 0, tile.field(kDepth, tile.lower()) >= step);
        return any(upper) || any(lower) ? Work::kAll : Work::kKeys;
    }

    LARES_DEVICE void first_state(Rows<S>& x, const Tile& tile) const {
        if (call.state_mode == LARES_STATE_GIVEN) {
            const Int upper = tile.field(kStateRow, tile.upper());
            const Int lower = tile.field(kStateRow, tile.lower());
            load_rows<S>(x, call.state, upper, lower, upper >= 0, lower >= 0);
        } else if (call.state_mode == LARES_STATE_DRAWN) {
            const Int row = tile.shared_row();
            initial_state<S>(x, as_word(tile.field(kStream, row)),
                             as_word(tile.field(kPosition, row)), call.state_scale,
                             seed_at(call.seed));
        } else if (call.state_mode == LARES_STATE_ZERO) {
            clear<S>(x);
        } else {
            fault();
        }
    }

    // LayerNorm_core(adapter(s, H)), or H alone.
    LARES_DEVICE void step_input(Rows<S>& x, const Tile& tile, int step) const {
        if (call.kept != nullptr) keep(x, tile, step);
        adapt(x, tile);
        if (call.adapter != LARES_ADAPTER_NONE)
            layer_norm<S>(x, vectors() + places.core_norm(call.n_layers), call.eps);
    }

    LARES_DEVICE void load_hidden(Rows<S>& hidden, const Tile& tile) const {
        const Int upper = tile.field(kHiddenRow, tile.upper());
        const Int lower = tile.field(kHiddenRow, tile.lower());
        load_rows<S>(hidden, call.hidden, upper, lower, upper >= 0, lower >= 0);
    }

    // The state's share in the adapter's mean.
    LARES_DEVICE float share_of_state() const {
        return state_share(call.adapter, vectors() + places.gate(call.n_layers));
    }

    // The adapter of a state, in place; H alone where there is none.
    LARES_DEVICE void adapt(Rows<S>& x, const Tile& tile) const {
        if (call.adapter == LARES_ADAPTER_NONE) {
            load_hidden(x, tile);
            return;
        }
        Rows<S> hidden;
        load_hidden(hidden, tile);
        if (call.adapter == LARES_ADAPTER_CONCAT) {
            concat(x, hidden);
            return;
        }
        const float share = share_of_state();
        LARES_UNROLL
        for (int j = 0; j < S::kBlocks; ++j) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) x[j][i] = x[j][i] * share + hidden[j][i] * (1.0f - share);
        }
    }

    LARES_DEVICE Fragments<false> concat_weights() const {
        return {matrices() + call.n_layers * places.layer() * kFragment};
    }

    // W [s ; H] + b; its weights, read once a step, are not resident.
    LARES_DEVICE void concat(Rows<S>& x, const Rows<S>& hidden) const {
        const Fragments<false> weights = concat_weights();
        Operand<S> of_state, of_hidden;
        pack_rows<S>(of_state, x);
        pack_rows<S>(of_hidden, hidden);
        const float* bias = vectors() + places.concat_bias(call.n_layers);
        LARES_ROLLED
        for (int n = 0; n < S::kChunks; ++n) {
            Sums s = column_bias(bias + 16 * n);
            add_product<S>(s, of_state, weights, n * S::kChunks);
            add_product<S>(s, of_hidden, weights, (S::kChunks + n) * S::kChunks);
            LARES_UNROLL
            for (int half = 0; half < 2; ++half) {
                Float(&made)[4] = next_block<S>(x);
                LARES_UNROLL
                for (int i = 0; i < 4; ++i) made[i] = s.c[half][i];
            }
        }
    }

    // The state before `step`, for backward.
    LARES_DEVICE void keep(const Rows<S>& x, const Tile& tile, int step) const {
        store_rows<S>(
            kept(step), tile.field(kKeptRow, tile.upper()), tile.field(kKeptRow, tile.lower()), x,
            tile.field(kDepth, tile.upper()) >= step, tile.field(kDepth, tile.lower()) >= step);
    }

    // Write a step's outputs. Finished sequences run on with their warp's others, but
    // write nothing.
    LARES_DEVICE void write(const Rows<S>& x, const Tile& tile, int step) const {
        const Int depth[2] = {tile.field(kDepth, tile.upper()), tile.field(kDepth, tile.lower())};
        const Int newest[2] = {tile.field(kNewest, tile.upper()),
                               tile.field(kNewest, tile.lower())};
        const Mask here[2] = {both(newest[0] >= 0, depth[0] >= step),
                              both(newest[1] >= 0, depth[1] >= step)};
        if (any(here[0]) || any(here[1])) {
            float* to = call.trajectory + int64_t(step - 1) * S::kWidth;
            store_rows<S>(to, newest[0] * call.max_steps, newest[1] * call.max_steps, x, here[0],
                          here[1]);
        }
        const Mask ends[2] = {depth[0] == step, depth[1] == step};
        if (!any(ends[0]) && !any(ends[1])) return;
        // A trajectory repeats its last state; most warps have no sequence's newest row.
        const Mask last[2] = {both(here[0], ends[0]), both(here[1], ends[1])};
        const int repeats = any(last[0]) || any(last[1]) ? call.max_steps : step;
        LARES_ROLLED
        for (int later = step + 1; later <= repeats; ++later) {
            float* to = call.trajectory + int64_t(later - 1) * S::kWidth;
            store_rows<S>(to, newest[0] * call.max_steps, newest[1] * call.max_steps, x, last[0],
                          last[1]);
        }
        if (call.last != nullptr && repeats == call.max_steps)
            store_rows<S>(call.last, newest[0], newest[1], x, last[0], last[1]);
        if (call.final_state != nullptr)
            store_rows<S>(call.final_state, tile.field(kStateRow, tile.upper()),
                          tile.field(kStateRow, tile.lower()), x, ends[0], ends[1]);
    }
};

}  // namespace lares::cuda
