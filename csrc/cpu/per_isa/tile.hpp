// A tile's sequences through all reasoning steps, forward and backward, without leaving the cache.
#pragma once

#include "tile_rows.hpp"

namespace lares::LARES_ISA {

// Sizes of a tile's buffers, for the longest tile of a call.
struct TileSizes {
    int rows;      // to whole vectors, and one more for reads past the end
    size_t act;    // floats of a (rows, dp) buffer
    size_t lanes;  // floats of a transposed one
    size_t keep;   // words of one set of dropout blocks
    int longest;

    TileSizes(const Shape& s, int tile_rows)
        : rows(round_up(tile_rows, kLanes) + kLanes),
          act(size_t(rows) * s.dp),
          lanes(size_t(rows + kLanes) * s.dp),
          longest(tile_rows) {
        const int key_blocks = (tile_rows + 63) / 64;
        keep = size_t(rows) * 2 * max((s.d + 63) / 64 * 2, key_blocks * s.heads);
    }

    // Operands of one form of the widest matrix that is multiplied.
    size_t row_room(const Shape& s) const { return row_operands(rows, widest(s)); }
    size_t column_room(const Shape& s) const { return column_operands(rows, widest(s)); }
    size_t room_bytes(const Shape& s) const {
        return (2 * row_room(s) + 4 * column_room(s)) * sizeof(Operand) + 8 * kAlignment;
    }
    static int widest(const Shape& s) { return max(3 * s.dp, kChunk); }

    // What layers that mix windows need besides; `scratch` takes BSARec's spectra then.
    size_t window_floats(const Shape& s, bool tape) const {
        if (!s.windowed()) return 0;
        const size_t bands = s.banded() ? act + keep + size_t(s.bands()) * s.dp : 0;
        return (tape ? act + rows : 0) + bands;
    }
    size_t scratch(const Shape& s) const {
        const size_t attention = 3 * size_t(longest + kLanes) * kLanes;
        return max(attention, s.banded() ? size_t(s.bands()) * s.dp : 0);
    }
    size_t inner_keep(const Shape& s) const {
        return s.inner_dropout.on() ? size_t(rows) * 2 * ((s.f + 63) / 64) : 0;
    }

    size_t layer_bytes(const Shape& s, bool tape) const {
        const size_t inner = size_t(rows) * (tape ? 2 * s.fp : kChunk);
        const size_t floats = 6 * act + 3 * act + 2 * lanes + inner + (tape ? 2 * act : 0) +
                              2 * rows + 2 * keep + 3 * size_t(longest + kLanes) * kLanes;
        return (floats + inner_keep(s) + window_floats(s, tape)) * sizeof(float) + 28 * kAlignment;
    }
};

inline float* zeroed(Arena& arena, size_t floats) {
    float* at = arena.take<float>(floats);
    std::memset(at, 0, floats * sizeof(float));
    return at;
}

inline OperandRoom take_room(const Shape& s, const TileSizes& z, Arena& arena) {
    OperandRoom room;
    for (auto& rows : room.rows) rows = arena.take<Operand>(z.row_room(s));
    for (auto& columns : room.columns) columns = arena.take<Operand>(z.column_room(s));
    return room;
}

inline LayerSpace take_layer(const Shape& s, const TileSizes& z, const OperandRoom& room, bool tape,
                             Arena& arena) {
    LayerSpace t{};
    t.room = room;
    t.attn_in = s.post ? nullptr : arena.take<float>(z.act);
    t.qkv = arena.take<float>(3 * z.act);
    t.q_columns = arena.take<float>(z.lanes);
    t.context_columns = zeroed(arena, z.lanes);  // columns past d stay zero
    t.context = arena.take<float>(z.act);
    t.residual = arena.take<float>(z.act);
    t.branch = arena.take<float>(z.act);
    t.u = arena.take<float>(z.act);
    t.ffn_in = s.post ? t.u : arena.take<float>(z.act);
    t.inner_stride = tape ? s.fp : kChunk;
    t.inner = arena.take<float>(size_t(z.rows) * t.inner_stride);
    if (tape) {
        t.slope = arena.take<float>(size_t(z.rows) * t.inner_stride);
        t.attn_norm = {arena.take<float>(z.act), arena.take<float>(z.rows)};
        t.ffn_norm = {arena.take<float>(z.act), arena.take<float>(z.rows)};
    }
    if (s.windowed() && tape) t.filter_norm = {arena.take<float>(z.act), arena.take<float>(z.rows)};
    if (s.banded()) {
        t.low = arena.take<float>(z.act);
        t.band_keep = arena.take<uint32_t>(z.keep);
    }
    t.attn_keep = arena.take<uint32_t>(z.keep);
    t.residual_keep = arena.take<uint32_t>(z.keep);
    if (s.inner_dropout.on()) t.inner_keep = arena.take<uint32_t>(z.inner_keep(s));
    t.keep_stride = z.rows;
    t.scratch = arena.take<float>(z.scratch(s));
    return t;
}

inline void read_rows(const float* from, int rows, int d, int dp, float* to) {
    if (d == dp) {
        std::memcpy(to, from, size_t(rows) * d * sizeof(float));
        return;
    }
    for (int r = 0; r < rows; ++r) {
        std::memcpy(to + ptrdiff_t(r) * dp, from + ptrdiff_t(r) * d, size_t(d) * sizeof(float));
        std::memset(to + ptrdiff_t(r) * dp + d, 0, size_t(dp - d) * sizeof(float));
    }
}

inline void write_rows(const float* from, int rows, int d, int dp, float* to) {
    for (int r = 0; r < rows; ++r)
        std::memcpy(to + ptrdiff_t(r) * d, from + ptrdiff_t(r) * dp, size_t(d) * sizeof(float));
}

// Zeros in the padding beside a sequence whose first row in `array` is `row`.
inline void clear_padding(const CallPlan& plan, const Sequence& q, int64_t row, float* array) {
    const int64_t padding = plan.call.padded_length - q.length, d = plan.shape.d;
    const int64_t first = plan.call.padding == LARES_PADDING_RIGHT ? row + q.length : row - padding;
    if (padding > 0) std::memset(array + first * d, 0, size_t(padding * d) * sizeof(float));
}

// Zeros in those rows (.., dp) of a tile's first `sequences` that are padding.
inline void hide_padding(const CallPlan& plan, const TileRows& tile, int sequences, float* rows) {
    if (plan.call.padding != LARES_PADDING_LEFT_ZEROS) return;
    const size_t row_bytes = size_t(plan.shape.dp) * sizeof(float);
    for (int i = 0; i < sequences; ++i)
        std::memset(rows + ptrdiff_t(tile.first_row(i)) * plan.shape.dp, 0,
                    size_t(tile.sequence(i).leading) * row_bytes);
}

// H of the tile's rows.
inline void read_hidden(const CallPlan& plan, const TileRows& tile, float* hidden) {
    const Shape& s = plan.shape;
    for (int i = 0; i < tile.sequences(); ++i)
        read_rows(plan.call.hidden + tile.sequence(i).hidden_row * s.d, tile.sequence(i).length,
                  s.d, s.dp, hidden + ptrdiff_t(tile.first_row(i)) * s.dp);
    hide_padding(plan, tile, tile.sequences(), hidden);
}

// s_0 of the tile's rows.
inline void read_first_state(const CallPlan& plan, const TileRows& tile, int rows, float* state) {
    const Shape& s = plan.shape;
    if (plan.call.state_mode == LARES_STATE_ZERO) {
        std::memset(state, 0, size_t(rows) * s.dp * sizeof(float));
        return;
    }
    for (int i = 0; i < tile.sequences() && tile.first_row(i) < rows; ++i) {
        const Sequence& q = tile.sequence(i);
        float* to = state + ptrdiff_t(tile.first_row(i)) * s.dp;
        if (plan.call.state_mode == LARES_STATE_GIVEN) {
            read_rows(plan.call.state + q.state_row * s.d, q.length, s.d, s.dp, to);
            std::memset(to, 0, size_t(q.leading) * size_t(s.dp) * sizeof(float));
            continue;
        }
        if (plan.call.state_mode != LARES_STATE_DRAWN) no_such_choice();
        float drawn[512 + 4 * kLanes];
        for (int p = 0; p < q.length; ++p) {
            initial_state(q.stream, uint32_t(p), s.d, s.state_scale, uint64_t(plan.call.seed),
                          drawn);
            read_rows(drawn, 1, s.d, s.dp, to + ptrdiff_t(p) * s.dp);
        }
        std::memset(to, 0, size_t(q.leading) * size_t(s.dp) * sizeof(float));
    }
}

// The state's share in an adapter that is a mean.
inline float state_share(const Shape& s, const Weights& w) {
    switch (s.adapter) {
        case LARES_ADAPTER_ADD:
            return 0.5f;
        case LARES_ADAPTER_GATE:
            return w.gate;
    }
    no_such_choice();
}

// x = LayerNorm_core(adapter(state, hidden)), (rows, dp). `sum` is scratch for the concat adapter.
inline void adapt(const Shape& s, const Weights& w, int rows, const float* state,
                  const float* hidden, float* x, float* sum, const OperandRoom& room,
                  NormTape tape) {
    const int dp = s.dp;
    const NormWeights norm{w[kCoreNormWeight], w[kCoreNormBias]};
    const auto at = [dp](int r, int c) { return ptrdiff_t(r) * dp + c; };
    if (s.adapter == LARES_ADAPTER_CONCAT) {
        product(rows, dp, s.d, left_rows(state, dp, rows, s.d, room.rows[0]),
                packed_panels(w.concat, 2 * s.d), StorePlus{sum, dp, w[kConcatBias], 0});
        product(rows, dp, s.d, left_rows(hidden, dp, rows, s.d, room.rows[0]),
                packed_panels(w.concat, 2 * s.d, s.d), add_to_rows(sum, dp));
        norm_rows(
            rows, s.d, dp, s.eps, norm,
            [&](int r, int c) LARES_INLINE_LAMBDA { return load(sum + at(r, c)); }, x, tape);
        return;
    }
    const float share = state_share(s, w);
    const Vec of_state = broadcast(share), of_hidden = broadcast(1.0f - share);
    norm_rows(
        rows, s.d, dp, s.eps, norm,
        [&](int r, int c) LARES_INLINE_LAMBDA {
            return load(state + at(r, c)) * of_state + load(hidden + at(r, c)) * of_hidden;
        },
        x, tape);
}

// Forward.

inline size_t forward_bytes(const Shape& s, const TileSizes& z) {
    return TileRows::bytes(z.rows) + z.room_bytes(s) + z.layer_bytes(s, false) +
           (6 * z.act + z.rows) * sizeof(float) + 16 * kAlignment;
}

// Row of the live ones that holds sequence i's newest token.
inline int newest_row(const TileRows& tile, const LiveRows& live, int going, int i) {
    return live.map && i >= going ? tile.first_row(going) + (i - going) : tile.newest_row(i);
}

inline void forward_tile(const CallPlan& plan, const Tile& place, Arena& arena) {
    const MatrixUnit unit;
    const Shape& s = plan.shape;
    const LaresCall& call = plan.call;
    const int d = s.d, dp = s.dp;
    const TileSizes z(s, plan.batch.longest_tile);
    arena.reserve(forward_bytes(s, z));
    TileRows tile(plan, place, arena);
    tile.set_row_of(arena.take<int32_t>(size_t(z.rows)));
    const OperandRoom room = take_room(s, z, arena);
    LayerSpace space = take_layer(s, z, room, false, arena);
    float* hidden = arena.take<float>(z.act);
    float* state = arena.take<float>(z.act);
    float* sum = arena.take<float>(z.act);
    float* normalised = arena.take<float>(z.act);
    float* rstd = arena.take<float>(size_t(z.rows));
    const Core core = plan.core();
    const bool keep = call.kept != nullptr && s.recurrent();
    const bool keep_normalised = keep && s.post;

    read_hidden(plan, tile, hidden);
    if (s.recurrent()) read_first_state(plan, tile, tile.total_rows(), state);
    for (int step = 1; step <= tile.depth(); ++step) {
        const int running = tile.running(step), going = tile.running(step + 1);
        const int count = tile.first_row(running);
        const Rows rows = tile.rows(count);
        const LiveRows all = tile.all(count);
        const LiveRows live =
            call.final_state || going == running ? all : tile.newest(going, running);
        const int whole = live.map ? going : running;  // sequences of which all rows are live
        const float* x = state;
        if (s.recurrent()) {
            adapt(s, plan.weights, count, state, hidden, state, sum, room, {});
            hide_padding(plan, tile, running, state);
        } else {
            x = hidden;
        }
        for (int l = 0; l < s.layers; ++l) {
            const bool last = l + 1 == s.layers;
            if (last && keep_normalised) space.ffn_norm = {normalised, rstd};
            any_layer_forward(core, l, plan.drawn_step(step), rows, last ? live : all, space, x,
                              state, true);
            hide_padding(plan, tile, last ? whole : running, state);
            space.ffn_norm = {};
            x = state;
        }

        for (int i = 0; i < running; ++i) {
            const Sequence& q = tile.sequence(i);
            const float* newest = state + ptrdiff_t(newest_row(tile, live, going, i)) * dp;
            float* to = call.trajectory + (q.index * call.max_steps + step - 1) * d;
            // Past its own depth a sequence's last row is repeated.
            const int64_t times = i >= going ? call.max_steps - step + 1 : 1;
            for (int64_t n = 0; n < times; ++n) write_rows(newest, 1, d, dp, to + n * d);
            const int first = tile.first_row(i);
            if (i >= going && call.final_state) {
                write_rows(state + ptrdiff_t(first) * dp, q.length, d, dp,
                           call.final_state + q.state_row * d);
                clear_padding(plan, q, q.state_row, call.final_state);
            }
            if (!keep) continue;
            const float* kept = s.post ? normalised : state;
            const int64_t row = (step - 1) * plan.batch.kept_rows + q.kept_row;
            if (live.map && i >= going) {
                const int at = newest_row(tile, live, going, i);
                write_rows(kept + ptrdiff_t(at) * dp, 1, d, dp, call.kept + (row + q.newest) * d);
                if (s.post) call.kept_rstd[row + q.newest] = rstd[at];
            } else {
                write_rows(kept + ptrdiff_t(first) * dp, q.length, d, dp, call.kept + row * d);
                if (s.post)
                    std::memcpy(call.kept_rstd + row, rstd + first,
                                size_t(q.length) * sizeof(float));
            }
        }
    }
}

// Backward.

inline size_t backward_bytes(const Shape& s, const TileSizes& z) {
    return TileRows::bytes(z.rows) + z.room_bytes(s) + size_t(s.layers) * z.layer_bytes(s, true) +
           (size_t(s.layers + 25) * z.act + 2 * z.lanes + z.rows * (kChunk + 8) +
            2 * size_t(s.window) * s.dp) *
               sizeof(float) +
           64 * kAlignment;
}

// s_{step-1} of the running rows, as forward computed it.
inline void read_state_before(const CallPlan& plan, const TileRows& tile, int running, int step,
                              float* state) {
    const Shape& s = plan.shape;
    if (step == 1) return read_first_state(plan, tile, tile.first_row(running), state);
    const LayerWeights& last = plan.weights.layers[size_t(s.layers) - 1];
    for (int i = 0; i < running; ++i) {
        const Sequence& q = tile.sequence(i);
        const int64_t row = (step - 2) * plan.batch.kept_rows + q.kept_row;
        float* to = state + ptrdiff_t(tile.first_row(i)) * s.dp;
        read_rows(plan.call.kept + row * s.d, q.length, s.d, s.dp, to);
        if (!s.post) continue;
        for (int r = 0; r < q.length; ++r, to += s.dp)
            for (int c = 0; c < s.dp; c += kLanes)
                store(to + c,
                      load(to + c) * load(last[kFfnNormWeight] + c) + load(last[kFfnNormBias] + c));
    }
}

// The last LayerNorm of a step as forward kept it, of the live rows.
inline void read_last_norm(const CallPlan& plan, const TileRows& tile, const LiveRows& live,
                           int running, int going, int step, NormTape tape) {
    const Shape& s = plan.shape;
    for (int i = 0; i < running; ++i) {
        const Sequence& q = tile.sequence(i);
        const int64_t row = (step - 1) * plan.batch.kept_rows + q.kept_row;
        const bool newest = live.map && i >= going;
        const int at = newest ? newest_row(tile, live, going, i) : tile.first_row(i);
        const int64_t from = newest ? row + q.newest : row;
        const int n = newest ? 1 : q.length;
        read_rows(plan.call.kept + from * s.d, n, s.d, s.dp,
                  tape.normalised + ptrdiff_t(at) * s.dp);
        std::memcpy(tape.rstd + at, plan.call.kept_rstd + from, size_t(n) * sizeof(float));
    }
}

// Adds the gradients that enter at `step` to g, whose rows of finishing sequences are set first.
inline void add_output_gradients(const CallPlan& plan, const TileRows& tile, int running, int going,
                                 int step, float* g) {
    const Shape& s = plan.shape;
    const LaresCall& call = plan.call;
    for (int i = 0; i < running; ++i) {
        const Sequence& q = tile.sequence(i);
        float* rows = g + ptrdiff_t(tile.first_row(i)) * s.dp;
        if (i >= going) {
            if (call.g_state)
                read_rows(call.g_state + q.state_row * s.d, q.length, s.d, s.dp, rows);
            else
                std::memset(rows, 0, size_t(q.length) * s.dp * sizeof(float));
        }
        if (!call.g_trajectory) continue;
        float* newest = rows + ptrdiff_t(q.newest) * s.dp;
        const int64_t end = i >= going ? call.max_steps : step;
        for (int64_t n = step; n <= end; ++n) {
            const float* from = call.g_trajectory + (q.index * call.max_steps + n - 1) * s.d;
            for (int c = 0; c < s.d; ++c) newest[c] += from[c];
        }
    }
}

// Gradients of the adapter's inputs: g_x in; g becomes the state's, g_hidden is added to.
inline void adapt_backward(const Shape& s, const Weights& w, int rows, const float* state,
                           const float* hidden, const float* g_x, float* g, float* g_hidden,
                           const OperandRoom& room, const GradientLayout& layout, float* grads) {
    const int dp = s.dp;
    const ptrdiff_t size = ptrdiff_t(rows) * dp;
    if (s.adapter == LARES_ADAPTER_CONCAT) {
        float* g_weight = layout.at(grads, kConcatWeight);
        float* g_bias = layout.at(grads, kConcatBias);
        for (int half = 0; half < 2; ++half)
            product<true>(
                s.d, dp, rows, left_columns(g_x, dp, rows, s.d, room.columns[0]),
                panels_of(right_columns(half ? hidden : state, dp, rows, dp, room.columns[1])),
                add_to_rows(g_weight + half * dp, 2 * dp));
        for (ptrdiff_t i = 0; i < size; i += kLanes) add_to(g_bias + i % dp, load(g_x + i));
        product(rows, 2 * dp, s.d, left_rows(g_x, dp, rows, s.d, room.rows[0]),
                packed_panels(w.concat_back, s.d), [&](int r, int c, Vec v) {
                    if (c < dp)
                        store(g + ptrdiff_t(r) * dp + c, v);
                    else
                        add_to(g_hidden + ptrdiff_t(r) * dp + c - dp, v);
                });
        return;
    }
    const float share = state_share(s, w);
    if (s.adapter == LARES_ADAPTER_GATE) {
        float* g_gate = layout.at(grads, kGate);
        Vec sum{};
        for (ptrdiff_t i = 0; i < size; i += kLanes)
            sum += load(g_x + i) * (load(state + i) - load(hidden + i));
        *g_gate += sum_lanes(sum) * w.gate * (1.0f - w.gate);
    }
    for (ptrdiff_t i = 0; i < size; i += kLanes) {
        const Vec v = load(g_x + i);
        store(g + i, v * broadcast(share));
        add_to(g_hidden + i, v * broadcast(1.0f - share));
    }
}

// `g_hidden_out` takes the tile's rows: like hidden for one rollout, else packed, every rollout
// apart.
inline void backward_tile(const CallPlan& plan, const Tile& place, const GradientLayout& layout,
                          float* grads, float* g_hidden_out, Arena& arena) {
    const MatrixUnit unit;
    const Shape& s = plan.shape;
    const LaresCall& call = plan.call;
    const int d = s.d, dp = s.dp;
    const TileSizes z(s, plan.batch.longest_tile);
    arena.reserve(backward_bytes(s, z));
    TileRows tile(plan, place, arena);
    tile.set_row_of(arena.take<int32_t>(size_t(z.rows)));
    const OperandRoom room = take_room(s, z, arena);
    Array<LayerSpace> spaces;
    Array<float*> inputs;  // of each layer
    for (int l = 0; l < s.layers; ++l) {
        spaces.push_back(take_layer(s, z, room, true, arena));
        inputs.push_back(arena.take<float>(z.act));
    }
    BackwardSpace b{};
    b.g_sum = arena.take<float>(z.act);
    b.g_branch = arena.take<float>(z.act);
    b.g_inner = arena.take<float>(size_t(z.rows) * kChunk);
    b.g_context = arena.take<float>(z.act);
    b.g_columns = arena.take<float>(z.lanes);
    b.g_q_columns = zeroed(arena, z.lanes);
    b.g_qkv = arena.take<float>(3 * z.act);
    b.g_in = arena.take<float>(z.act);
    if (s.banded()) b.g_bands = arena.take<float>(z.act);
    if (!s.attends()) b.window = arena.take<float>(2 * size_t(s.window) * s.dp);
    float* hidden = arena.take<float>(z.act);
    float* state = arena.take<float>(z.act);
    float* sum = arena.take<float>(z.act);
    float* unused = arena.take<float>(z.act);
    float* g = arena.take<float>(z.act);
    float* g_hidden = arena.take<float>(z.act);
    const NormTape core_norm{arena.take<float>(z.act), arena.take<float>(size_t(z.rows))};
    const Core core = plan.core();

    read_hidden(plan, tile, hidden);
    std::memset(g_hidden, 0, size_t(tile.total_rows()) * dp * sizeof(float));
    for (int step = tile.depth(); step >= 1; --step) {
        const int running = tile.running(step), going = tile.running(step + 1);
        const int count = tile.first_row(running);
        const Rows rows = tile.rows(count);
        const LiveRows all = tile.all(count);
        const LiveRows live = call.g_state || going == running ? all : tile.newest(going, running);
        add_output_gradients(plan, tile, running, going, step, g);
        hide_padding(plan, tile, running, g);

        // The step again, from its stored state.
        if (s.recurrent()) {
            read_state_before(plan, tile, running, step, state);
            adapt(s, plan.weights, count, state, hidden, inputs[0], sum, room, core_norm);
            hide_padding(plan, tile, running, inputs[0]);
        } else {
            std::memcpy(inputs[0], hidden, size_t(count) * dp * sizeof(float));
        }
        for (int l = 0; l < s.layers; ++l) {
            const bool last = l + 1 == s.layers;
            // Of the last layer's output backward needs the LayerNorm alone, which forward has
            // kept.
            const bool finish = !last || (s.post && !s.recurrent());
            any_layer_forward(core, l, plan.drawn_step(step), rows, last ? live : all,
                              spaces[size_t(l)], inputs[size_t(l)],
                              last ? unused : inputs[size_t(l) + 1], finish);
            if (!last) hide_padding(plan, tile, running, inputs[size_t(l) + 1]);
        }
        if (s.post && s.recurrent())
            read_last_norm(plan, tile, live, running, going, step,
                           spaces[size_t(s.layers) - 1].ffn_norm);

        if (live.map) gather_rows(g, live, dp, g);
        for (int l = s.layers - 1; l >= 0; --l) {
            any_layer_backward(core, l, rows, l + 1 == s.layers ? live : all, spaces[size_t(l)],
                               inputs[size_t(l)], g, b, layout.layer(grads, l));
            hide_padding(plan, tile, running, g);
        }
        if (!s.recurrent()) {
            std::memcpy(g_hidden, g, size_t(count) * dp * sizeof(float));
            break;
        }
        norm_rows_backward(count, d, dp, plan.weights[kCoreNormWeight], core_norm, g,
                           layout.at(grads, kCoreNormWeight), layout.at(grads, kCoreNormBias),
                           [&](int r, int c, Vec v)
                               LARES_INLINE_LAMBDA { store(b.g_in + ptrdiff_t(r) * dp + c, v); });
        adapt_backward(s, plan.weights, count, state, hidden, b.g_in, g, g_hidden, room, layout,
                       grads);
    }
    for (int i = 0; i < tile.sequences(); ++i) {
        const Sequence& q = tile.sequence(i);
        const ptrdiff_t first = ptrdiff_t(tile.first_row(i)) * dp;
        const bool alone = call.rollouts == 1;
        write_rows(g_hidden + first, q.length, d, dp,
                   g_hidden_out + (alone ? q.hidden_row : q.row) * d);
        if (alone) clear_padding(plan, q, q.hidden_row, g_hidden_out);
        if (call.g_first_state && s.recurrent()) {
            write_rows(g + first, q.length, d, dp, call.g_first_state + q.state_row * d);
            clear_padding(plan, q, q.state_row, call.g_first_state);
        }
    }
}

}  // namespace lares::LARES_ISA
