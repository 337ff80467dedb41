// Rows between the arrays of a call, packed and of d columns, and those of a tile, of dp columns.
#pragma once

#include "tile_rows.hpp"

namespace lares::LARES_ISA {

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

// s_0 of a sequence's rows, as random numbers.
inline void draw_rows(const CallPlan& plan, const Sequence& q, float* state) {
    const Shape& s = plan.shape;
    const uint64_t seed = uint64_t(plan.call.seed);
    float drawn[512 + 4 * kLanes];
    for (int p = 0; p < q.length; ++p, state += s.dp) {
        initial_state(q.stream, uint32_t(p), s.d, s.state_scale, seed, drawn);
        read_rows(drawn, 1, s.d, s.dp, state);
    }
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
        if (plan.call.state_mode == LARES_STATE_GIVEN)
            read_rows(plan.call.state + q.state_row * s.d, q.length, s.d, s.dp, to);
        else if (plan.call.state_mode == LARES_STATE_DRAWN)
            draw_rows(plan, q, to);
        else
            no_such_choice();
        std::memset(to, 0, size_t(q.leading) * size_t(s.dp) * sizeof(float));
    }
}

// s_{step-1} of the running rows, as forward computed it.
inline void read_state_before(const CallPlan& plan, const TileRows& tile, const Step& step,
                              float* state) {
    const Shape& s = plan.shape;
    if (step.number == 1) return read_first_state(plan, tile, step.rows.count, state);
    const LayerWeights& last = plan.weights.layers[size_t(s.layers) - 1];
    for (int i = 0; i < step.running; ++i) {
        const Sequence& q = tile.sequence(i);
        float* to = state + ptrdiff_t(tile.first_row(i)) * s.dp;
        read_rows(plan.call.kept + plan.kept_row(q, step.number - 1) * s.d, q.length, s.d, s.dp,
                  to);
        if (!s.post) continue;
        for (int r = 0; r < q.length; ++r, to += s.dp)
            for (int c = 0; c < s.dp; c += kLanes)
                store(to + c,
                      load(to + c) * load(last[kFfnNormWeight] + c) + load(last[kFfnNormBias] + c));
    }
}

// The last LayerNorm of a step as forward kept it, of the live rows.
inline void read_last_norm(const CallPlan& plan, const TileRows& tile, const Step& step,
                           NormTape tape) {
    const Shape& s = plan.shape;
    for (int i = 0; i < step.running; ++i) {
        const LiveSequence to = tile.live_rows(step, i);
        const int64_t from = plan.kept_row(tile.sequence(i), step.number) + to.from;
        read_rows(plan.call.kept + from * s.d, to.count, s.d, s.dp,
                  tape.normalised + ptrdiff_t(to.first) * s.dp);
        std::memcpy(tape.rstd + to.first, plan.call.kept_rstd + from,
                    size_t(to.count) * sizeof(float));
    }
}

// Adds the gradients that enter at `step` to g, whose rows of finishing sequences are set first.
inline void add_output_gradients(const CallPlan& plan, const TileRows& tile, const Step& step,
                                 float* g) {
    const Shape& s = plan.shape;
    const LaresCall& call = plan.call;
    for (int i = 0; i < step.running; ++i) {
        const Sequence& q = tile.sequence(i);
        float* rows = g + ptrdiff_t(tile.first_row(i)) * s.dp;
        if (i >= step.continuing) {
            if (call.g_state)
                read_rows(call.g_state + q.state_row * s.d, q.length, s.d, s.dp, rows);
            else
                std::memset(rows, 0, size_t(q.length) * s.dp * sizeof(float));
        }
        if (!call.g_trajectory) continue;
        float* newest = rows + ptrdiff_t(q.newest) * s.dp;
        const int64_t end = i >= step.continuing ? call.max_steps : step.number;
        for (int64_t n = step.number; n <= end; ++n) {
            const float* from = call.g_trajectory + (q.index * call.max_steps + n - 1) * s.d;
            for (int c = 0; c < s.d; ++c) newest[c] += from[c];
        }
    }
}

}  // namespace lares::LARES_ISA
