// All steps of the recurrence backward: each is computed again from its kept state.
#pragma once

#include "forward.hpp"
#include "layer_backward.hpp"

namespace lares::cuda {

template <class S>
struct Backward : Forward<S> {
    static_assert(S::kDrops, "the tape of a layer is written for branches of their own");
    using Base = Forward<S>;
    using Base::call;

    LARES_DEVICE Backward(const LaresCudaCall& call, const Block& block, unsigned char* shared)
        : Base(call, block, shared) {}

    LARES_DEVICE int warp_number() const {
        return this->block.index * this->block.warps + this->block.warp;
    }
    LARES_DEVICE float* gradients() const {
        return call.gradients + int64_t(warp_number()) * this->places.vectors(call.n_layers);
    }

    LARES_DEVICE void run() const { this->run_tiles(*this); }

    LARES_DEVICE void run_tile(const Unit& unit, int number, Stage<S>* stage) const {
        const bool none = this->without_tile(number);
        const Tile tile = this->tile_of(unit, none ? 0 : number);
        const int last = none ? 0 : this->last_step(tile);
        const int depth = this->depth(unit, tile, number);
        const int deepest = depth < call.last_step ? depth : call.last_step;
        Rows<S> g = {};
        if (call.carry != nullptr && call.last_step < call.max_steps)
            load_rows<S>(g, carry(tile), tile.upper(), tile.lower(), real(tile, tile.upper()),
                         real(tile, tile.lower()));
        LARES_ROLLED
        for (int step = deepest; step >= call.first_step; --step)
            run_step(g, unit, tile, step, step <= last, stage);
        if (this->without_tile(number)) return;
        // Looked up again: held through all steps, even a few words would be spilled.
        const Tile again = this->tile_of(unit, number);
        const Mask upper = real(again, again.upper()), lower = real(again, again.lower());
        if (call.carry != nullptr)
            store_rows<S>(carry(again), again.upper(), again.lower(), g, upper, lower);
        if (call.g_first != nullptr && call.first_step == 1)
            store_rows<S>(call.g_first, again.field(kStateRow, again.upper()),
                          again.field(kStateRow, again.lower()), g, upper, lower);
    }

    LARES_DEVICE Mask real(const Tile& tile, Int row) const {
        return tile.field(kHiddenRow, row) >= 0;
    }
    LARES_DEVICE float* carry(const Tile& tile) const {
        return call.carry + int64_t(this->start_of(tile)) * S::kWidth;
    }

    // The gradient of s_t becomes that of s_{t-1}; H's is added to where it lies.
    LARES_DEVICE void run_step(Rows<S>& g, const Unit& unit, const Tile& tile, int step, bool runs,
                               Stage<S>* stage) const {
        const Scratch<S> scratch = {
            static_cast<unsigned char*>(call.scratch) + int64_t(warp_number()) * call.scratch_bytes,
            call.n_layers};
        const StepBackward<S> at = {call, unit, tile, scratch, call.scratch_bytes, step, runs};
        Rows<S> x = {};
        if (runs) {
            output_gradients(g, tile, step);
            park<S>(scratch.waiting(), g);  // nothing needs it before the last layer
            kept_state(x, tile, step);
            this->adapt(x, tile);
            if (call.adapter != LARES_ADAPTER_NONE)
                layer_norm<S>(x, this->vectors() + this->places.core_norm(call.n_layers), call.eps);
        }
        LARES_ROLLED
        for (int index = 0; index < call.n_layers; ++index) {
            LayerDraws<S> draws = {call, tile, index, this->rng_step(step), {}};
            layer_forward<S>(x, this->layer(index, stage, Pass::kAgain), unit, draws,
                             runs ? Work::kAll : Work::kNone, ScratchTape<S>{scratch, index});
        }
        // Rows that do not run have no gradient yet. Cleared, they need no registers
        // meanwhile.
        clear<S>(g);
        if (runs) fetch<S>(g, scratch.waiting());
        LARES_ROLLED
        for (int index = call.n_layers - 1; index >= 0; --index) {
            LayerDraws<S> draws = {call, tile, index, this->rng_step(step), {}};
            layer_backward<S>(g, this->layer(index, stage, Pass::kBackward), index, at, draws,
                              gradients() + index * this->places.layer_vector(),
                              spill(tile, index, step));
        }
        if (!runs) return;
        if (call.adapter == LARES_ADAPTER_NONE)
            add_to_hidden(g, tile, step, 1.0f);
        else
            adapter_backward(g, tile, scratch, step);
    }

    LARES_DEVICE int64_t warp_tiles() const { return int64_t(call.max_tiles) * call.unit_warps; }

    LARES_DEVICE Spill<S> spill(const Tile& tile, int layer, int step) const {
        const SpillPlaces<S> places = {call.n_heads, call.d_ff};
        const int64_t row =
            (int64_t(step - call.first_step) * call.n_layers + layer) * warp_tiles() +
            tile.number * call.unit_warps + tile.warp;
        return {static_cast<unsigned char*>(call.spill) + row * places.all() * kFragment, places,
                call};
    }

    LARES_DEVICE void kept_state(Rows<S>& x, const Tile& tile, int step) const {
        if (call.adapter == LARES_ADAPTER_NONE) return;
        load_rows<S>(x, this->kept(step), tile.field(kKeptRow, tile.upper()),
                     tile.field(kKeptRow, tile.lower()), tile.field(kDepth, tile.upper()) >= step,
                     tile.field(kDepth, tile.lower()) >= step);
    }

    // Add what the call's outputs hand to s_t: at a sequence's last step also all that repeats it.
    LARES_DEVICE void output_gradients(Rows<S>& g, const Tile& tile, int step) const {
        const Int depth[2] = {tile.field(kDepth, tile.upper()), tile.field(kDepth, tile.lower())};
        const Int newest[2] = {tile.field(kNewest, tile.upper()),
                               tile.field(kNewest, tile.lower())};
        const Mask ends[2] = {depth[0] == step, depth[1] == step};
        Rows<S> more;
        if (call.g_state != nullptr) {
            load_rows<S>(more, call.g_state, tile.field(kStateRow, tile.upper()),
                         tile.field(kStateRow, tile.lower()), ends[0], ends[1]);
            add<S>(g, more);
        }
        if (call.g_trajectory == nullptr) return;
        const Mask here[2] = {both(newest[0] >= 0, depth[0] >= step),
                              both(newest[1] >= 0, depth[1] >= step)};
        const bool ending = any(ends[0]) || any(ends[1]);
        LARES_ROLLED
        for (int later = step; later <= (ending ? call.max_steps : step); ++later) {
            const Mask upper = later == step ? here[0] : both(here[0], ends[0]);
            const Mask lower = later == step ? here[1] : both(here[1], ends[1]);
            load_rows<S>(more, call.g_trajectory + int64_t(later - 1) * S::kWidth,
                         newest[0] * call.max_steps, newest[1] * call.max_steps, upper, lower);
            add<S>(g, more);
        }
    }

    // Rows of H that a step used get `share` of `g` more.
    LARES_DEVICE void add_to_hidden(const Rows<S>& g, const Tile& tile, int step,
                                    float share) const {
        const Int rollout = (tile.field(kStream, tile.upper()) >> 24) & 255;
        const Int rollout_below = (tile.field(kStream, tile.lower()) >> 24) & 255;
        const Int upper = rollout * call.n_hidden_rows + tile.field(kHiddenRow, tile.upper());
        const Int lower = rollout_below * call.n_hidden_rows + tile.field(kHiddenRow, tile.lower());
        const Mask has_upper = tile.field(kDepth, tile.upper()) >= step;
        const Mask has_lower = tile.field(kDepth, tile.lower()) >= step;
        Rows<S> sum;
        load_rows<S>(sum, call.g_hidden, upper, lower, has_upper, has_lower);
        LARES_UNROLL
        for (int j = 0; j < S::kBlocks; ++j) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) sum[j][i] = multiply_add(g[j][i], wide(share), sum[j][i]);
        }
        store_rows<S>(call.g_hidden, upper, lower, sum, has_upper, has_lower);
    }

    LARES_DEVICE void adapter_backward(Rows<S>& g, const Tile& tile, const Scratch<S>& scratch,
                                       int step) const {
        const int norm = this->places.core_norm(call.n_layers);
        Rows<S> x = {};
        park<S>(scratch.waiting(), g);  // the adapter's matrix wants the registers
        kept_state(x, tile, step);
        this->adapt(x, tile);
        fetch<S>(g, scratch.waiting());
        norm_backward<S>(g, x, this->vectors() + norm, gradients() + norm, call.eps);
        if (call.adapter == LARES_ADAPTER_CONCAT) {
            concat_backward(g, tile, step);
            return;
        }
        const float share = this->share_of_state();
        if (call.adapter == LARES_ADAPTER_GATE) gate_backward(g, tile, step, share);
        add_to_hidden(g, tile, step, 1.0f - share);
        LARES_UNROLL
        for (int j = 0; j < S::kBlocks; ++j) {
            LARES_UNROLL
            for (int i = 0; i < 4; ++i) g[j][i] = g[j][i] * share;
        }
    }

    LARES_DEVICE void gate_backward(const Rows<S>& g, const Tile& tile, int step,
                                    float share) const {
        // The state's gradient, then that of H: one after the other, since three sets of rows do
        // not fit registers.
        Rows<S> x = {};
        kept_state(x, tile, step);
        Float total = dot<S>(g, x);
        forget_written();
        this->load_hidden(x, tile);
        total = total - dot<S>(g, x);
        float* to = gradients() + this->places.gate(call.n_layers);
        const Mask first = lane_number() == 0;
        Float sum, nothing;
        load_pair(sum, nothing, to, wide(0), first);
        total = column_sum(quad_sum(total)) * (share * (1.0f - share));
        store_pair(to, wide(0), sum + total, nothing, first);
    }

    LARES_DEVICE void concat_backward(Rows<S>& g, const Tile& tile, int step) const {
        const int64_t row = int64_t(step - call.first_step) * warp_tiles() +
                            tile.number * call.unit_warps + tile.warp;
        unsigned char* to =
            static_cast<unsigned char*>(call.concat_spill) + row * 3 * S::kChunks * kFragment;
        const auto leave = [&](const Operand<S>& rows, int which, bool transposed) {
            store_side<S>(to + which * S::kChunks * kFragment, rows, transposed);
        };
        Operand<S> operand;
        Rows<S> x = {};
        kept_state(x, tile, step);
        pack_rows<S>(operand, x);
        leave(operand, 0, false);
        this->load_hidden(x, tile);
        pack_rows<S>(operand, x);
        leave(operand, 1, false);
        pack_rows<S>(operand, g);
        leave(operand, 2, transposes_sides<S>(call));
        const Fragments<false> weights = this->concat_weights();
        LARES_ROLLED
        for (int half = 1; half >= 0; --half) {
            clear<S>(g);
            LARES_UNROLL
            for (int k = 0; k < S::kChunks; ++k)
                add_to_rows_back<S>(g, operand[k], weights, (half * S::kChunks + k) * S::kChunks);
            if (half == 1) add_to_hidden(g, tile, step, 1.0f);
        }
    }
};

}  // namespace lares::cuda
