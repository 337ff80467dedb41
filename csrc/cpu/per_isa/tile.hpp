// A tile's sequences through all reasoning steps, forward and backward, without leaving the cache.
#pragma once

#include "adapter.hpp"
#include "tile_arrays.hpp"
#include "window_layer.hpp"

namespace lares::LARES_ISA {

// Forward.

// True if forward saves what backward reads.
inline bool keeps(const CallPlan& plan) {
    return plan.call.kept != nullptr && plan.shape.recurrent();
}

struct ForwardTile {
    TileRows rows;
    LayerSpace layer;  // of one layer after the other
    AdapterSpace adapter;
    float* state;        // of the step, and x of each layer but the first
    NormTape last_norm;  // of the step's last LayerNorm, where it is kept

    ForwardTile(const CallPlan& plan, const Tile& place, const TileSizes& z, Arena& arena)
        : rows(plan, place, arena),
          layer(plan.shape, z, OperandRoom(plan.shape, z, arena), false, arena),
          adapter(z, layer.room, arena),
          state(adapter.state) {
        if (keeps(plan) && plan.shape.post) last_norm = take_tape(z, arena);
    }
};

// Keeps what backward reads of sequence i's step: its state or, post-norm, its last LayerNorm.
inline void keep_step(const CallPlan& plan, const ForwardTile& t, const Step& step, int i) {
    const Shape& s = plan.shape;
    const LiveSequence live = t.rows.live_rows(step, i);
    const int64_t to = plan.kept_row(t.rows.sequence(i), step.number) + live.from;
    const float* from = s.post ? t.last_norm.normalised : t.state;
    write_rows(from + ptrdiff_t(live.first) * s.dp, live.count, s.d, s.dp,
               plan.call.kept + to * s.d);
    if (s.post)
        std::memcpy(plan.call.kept_rstd + to, t.last_norm.rstd + live.first,
                    size_t(live.count) * sizeof(float));
}

// Writes a step's newest rows, and the last states of the sequences that end with it.
inline void write_step(const CallPlan& plan, const ForwardTile& t, const Step& step) {
    const LaresCall& call = plan.call;
    const int d = plan.shape.d, dp = plan.shape.dp;
    for (int i = 0; i < step.running; ++i) {
        const Sequence& q = t.rows.sequence(i);
        const bool ends = i >= step.continuing;
        const float* newest = t.state + ptrdiff_t(t.rows.newest_row(step, i)) * dp;
        float* to = call.trajectory + (q.index * call.max_steps + step.number - 1) * d;
        // Past its own depth a sequence's last row is repeated.
        const int64_t times = ends ? call.max_steps - step.number + 1 : 1;
        for (int64_t n = 0; n < times; ++n) write_rows(newest, 1, d, dp, to + n * d);
        if (ends && call.final_state) {
            write_rows(t.state + ptrdiff_t(t.rows.first_row(i)) * dp, q.length, d, dp,
                       call.final_state + q.state_row * d);
            clear_padding(plan, q, q.state_row, call.final_state);
        }
        if (keeps(plan)) keep_step(plan, t, step, i);
    }
}

inline void forward_step(const CallPlan& plan, ForwardTile& t, const Step& step) {
    const Shape& s = plan.shape;
    const Core core = plan.core();
    const float* x = t.adapter.hidden;
    if (s.recurrent()) {
        adapt(core, step.rows.count, t.adapter, t.state);
        hide_padding(plan, t.rows, step.running, t.state);
        x = t.state;
    }
    for (int l = 0; l < s.layers; ++l, x = t.state) {
        const bool last = l + 1 == s.layers;
        t.layer.ffn_norm = last ? t.last_norm : NormTape{};
        any_layer_forward(core, l, plan.rng_step(step.number), step.rows,
                          last ? step.live : step.all, t.layer, x, t.state, true);
        // A row that is live alone is no padding.
        hide_padding(plan, t.rows, last && step.live.map ? step.continuing : step.running, t.state);
    }
}

inline void forward_tile(const CallPlan& plan, const Tile& place, Arena& arena) {
    const MatrixUnit unit;
    const TileSizes z(plan.shape, plan.batch.longest_tile);
    ForwardTile t = arena.carve([&] { return ForwardTile(plan, place, z, arena); });
    read_hidden(plan, t.rows, t.adapter.hidden);
    if (plan.shape.recurrent()) read_first_state(plan, t.rows, t.rows.total_rows(), t.state);
    for (int number = 1; number <= t.rows.depth(); ++number) {
        const Step step = t.rows.step(number, plan.call.final_state);
        forward_step(plan, t, step);
        write_step(plan, t, step);
    }
}

// Backward.

struct BackwardTile {
    TileRows rows;
    OperandRoom room;
    BackwardSpace space;
    AdapterSpace adapter;
    Array<LayerSpace> layers;
    Array<float*> inputs;  // of each layer
    float* unused;         // output of the last one
    float *g, *g_hidden;   // gradients: of what the way back has come to, and of H

    BackwardTile(const CallPlan& plan, const Tile& place, const TileSizes& z, Arena& arena)
        : rows(plan, place, arena),
          room(plan.shape, z, arena),
          space(plan.shape, z, arena),
          adapter(z, room, arena) {
        adapter.norm = take_tape(z, arena);
        for (int l = 0; l < plan.shape.layers; ++l) {
            layers.push_back(LayerSpace(plan.shape, z, room, true, arena));
            inputs.push_back(arena.take<float>(z.act));
        }
        unused = arena.take<float>(z.act);
        g = arena.take<float>(z.act);
        g_hidden = arena.take_zeros<float>(z.act);
    }
};

// Forward's step again, from its stored state.
inline void repeat_step(const CallPlan& plan, BackwardTile& t, const Step& step) {
    const Shape& s = plan.shape;
    const Core core = plan.core();
    const int count = step.rows.count;
    if (s.recurrent()) {
        read_state_before(plan, t.rows, step, t.adapter.state);
        adapt(core, count, t.adapter, t.inputs[0]);
        hide_padding(plan, t.rows, step.running, t.inputs[0]);
    } else {
        std::memcpy(t.inputs[0], t.adapter.hidden, size_t(count) * s.dp * sizeof(float));
    }
    for (size_t l = 0; l < t.layers.size(); ++l) {
        const bool last = l + 1 == t.layers.size();
        // Backward needs only the LayerNorm of the last layer's output, which forward saved.
        const bool finish = !last || (s.post && !s.recurrent());
        float* y = last ? t.unused : t.inputs[l + 1];
        any_layer_forward(core, int(l), plan.rng_step(step.number), step.rows,
                          last ? step.live : step.all, t.layers[l], t.inputs[l], y, finish);
        if (!last) hide_padding(plan, t.rows, step.running, y);
    }
    if (s.post && s.recurrent())
        read_last_norm(plan, t.rows, step, t.layers[t.layers.size() - 1].ffn_norm);
}

// t.g: in, the gradient of the state after the step; out, of the one before.
inline void backward_step(const CallPlan& plan, BackwardTile& t, const Step& step,
                          const GradientLayout& layout, float* grads) {
    const Shape& s = plan.shape;
    const Core core = plan.core();
    add_output_gradients(plan, t.rows, step, t.g);
    hide_padding(plan, t.rows, step.running, t.g);
    repeat_step(plan, t, step);
    if (step.live.map) gather_rows(t.g, step.live, s.dp, t.g);
    for (size_t l = t.layers.size(); l-- > 0;) {
        const bool last = l + 1 == t.layers.size();
        any_layer_backward(core, int(l), step.rows, last ? step.live : step.all, t.layers[l],
                           t.inputs[l], t.g, t.space, layout.layer(grads, int(l)));
        hide_padding(plan, t.rows, step.running, t.g);
    }
    if (s.recurrent())
        adapt_backward(core, step.rows.count, t.adapter, t.g, t.space.g_in, t.g_hidden, layout,
                       grads);
    else  // H itself is what the layers read
        std::memcpy(t.g_hidden, t.g, size_t(step.rows.count) * s.dp * sizeof(float));
}

// Gradients of H and of the first state; `g_hidden` is backward_tile's.
inline void write_input_gradients(const CallPlan& plan, const BackwardTile& t, float* g_hidden) {
    const Shape& s = plan.shape;
    const LaresCall& call = plan.call;
    const bool alone = call.rollouts == 1;
    for (int i = 0; i < t.rows.sequences(); ++i) {
        const Sequence& q = t.rows.sequence(i);
        const ptrdiff_t first = ptrdiff_t(t.rows.first_row(i)) * s.dp;
        write_rows(t.g_hidden + first, q.length, s.d, s.dp,
                   g_hidden + (alone ? q.hidden_row : q.row) * s.d);
        if (alone) clear_padding(plan, q, q.hidden_row, g_hidden);
        if (call.g_first_state && s.recurrent()) {
            write_rows(t.g + first, q.length, s.d, s.dp, call.g_first_state + q.state_row * s.d);
            clear_padding(plan, q, q.state_row, call.g_first_state);
        }
    }
}

// Adds to `grads`; `g_hidden` takes the tile's rows: like hidden for one rollout, else packed,
// every rollout apart.
inline void backward_tile(const CallPlan& plan, const Tile& place, const GradientLayout& layout,
                          float* grads, float* g_hidden, Arena& arena) {
    const MatrixUnit unit;
    const TileSizes z(plan.shape, plan.batch.longest_tile);
    BackwardTile t = arena.carve([&] { return BackwardTile(plan, place, z, arena); });
    read_hidden(plan, t.rows, t.adapter.hidden);
    for (int number = t.rows.depth(); number >= 1; --number)
        backward_step(plan, t, t.rows.step(number, plan.call.g_state), layout, grads);
    write_input_gradients(plan, t, g_hidden);
}

}  // namespace lares::LARES_ISA
