// A whole call: tiles over threads, gradients added in a fixed order.
#pragma once

#include "tile.hpp"
#include "weight_cache.hpp"

namespace lares::LARES_ISA {

// Rows of a tile: enough for the products, few enough that a tile and the weights share the L2
// cache.
constexpr int kTileRows = 96;

// Parts of a batch whose parameter gradients are gathered apart and then added in order. Their
// number depends on the batch alone, so that any number of threads gives the same bits.
constexpr int kParts = 16;
// Work beside which packing the weights is nothing.
constexpr double kWorthPacking = 5e8;

inline double layer_operations(const Shape& s, const Batch& batch, int64_t steps) {
    const double row = 2.0 * (4.0 * s.d * s.d + 2.0 * s.d * s.f) * s.layers;
    return row * double(batch.rows) * double(steps);
}

// Whole windows where these are what is computed.
inline int tile_rows(const LaresCall& call) {
    if (call.mixer == LARES_MIXER_ATTENTION) return kTileRows;
    const int64_t windows = (kTileRows + call.window / 2) / call.window;
    return int(max<int64_t>(windows, 1) * call.window);
}

inline void forward_tiles(const CallPlan& plan, double operations) {
    run_pieces(plan.batch.n_tiles, threads_for(plan.call.threads, operations), [&](int tile) {
        Arena arena;
        forward_tile(plan, plan.batch.tiles[tile], arena);
    });
}

inline void forward(const LaresCall& call) {
    const Shape shape(call);
    const Batch batch(call, tile_rows(call));
    const double operations = layer_operations(shape, batch, call.max_steps);
    if (operations < kWorthPacking) {
        const CachedWeights weights(shape, call.parameters);
        return forward_tiles({call, batch, shape, *weights}, operations);
    }
    Arena weight_arena;
    weight_arena.reserve(Weights::bytes(shape, false));
    const Weights weights(shape, call.parameters, false, weight_arena);
    forward_tiles({call, batch, shape, weights}, operations);
}

// The tiles of part `part` of `parts`: about equally many rows each.
inline Range tiles_of_part(const Batch& batch, int part, int parts) {
    const int64_t tiles = batch.n_tiles;
    return {int(tiles * part / parts), int(tiles * (part + 1) / parts)};
}

inline void write_parameter_gradients(const LaresCall& call, const Shape& s,
                                      const GradientLayout& layout, float* grads) {
    const ptrdiff_t spectrum = ptrdiff_t(frequencies(max(s.window, 1))) * s.d * 2;
    for (int l = 0; l < s.layers && !s.attends(); ++l)
        filter_kernel_backward(layout.at(grads, kFilterWeight, l), s.window, s.d, s.dp,
                               call.g_parameters[kFilterWeight] + l * spectrum);
    for (const GradientPlace& p : layout.places)
        for (int g = 0; g < p.groups; ++g)
            for (int r = 0; r < p.rows; ++r)
                std::memcpy(call.g_parameters[p.parameter] + p.to + g * p.to_group_stride +
                                r * p.to_row_stride,
                            grads + p.from + g * p.group_stride + r * p.row_stride,
                            size_t(p.columns) * sizeof(float));
}

// H's gradient of a sequence is the sum over its rollouts, in order.
inline void add_rollouts(const CallPlan& plan, const float* rows) {
    const int64_t d = plan.shape.d, rollouts = plan.call.rollouts;
    for (int i = 0; i < plan.batch.n_sequences; ++i) {
        const Sequence& q = plan.batch.sequences[i];
        if (q.index % rollouts) continue;
        float* to = plan.call.g_hidden + q.hidden_row * d;
        const float* from = rows + q.row * d;
        const int64_t size = q.length * d;
        std::memcpy(to, from, size_t(size) * sizeof(float));
        for (int64_t g = 1; g < rollouts; ++g)
            for (int64_t n = 0; n < size; ++n) to[n] += from[g * size + n];
        clear_padding(plan, q, q.hidden_row, plan.call.g_hidden);
    }
}

inline void backward(const LaresCall& call) {
    const Shape shape(call);
    const Batch batch(call, tile_rows(call));
    Arena weight_arena, grad_arena;
    weight_arena.reserve(Weights::bytes(shape, true));
    const Weights weights(shape, call.parameters, true, weight_arena);
    const CallPlan plan{call, batch, shape, weights};
    const GradientLayout layout(shape);

    const int parts = min(kParts, batch.n_tiles);
    const size_t rollout_rows = call.rollouts > 1 ? size_t(batch.rows) * shape.d : 0;
    grad_arena.reserve((size_t(parts) * layout.size + rollout_rows) * sizeof(float) +
                       2 * kAlignment);
    float* grads = grad_arena.take<float>(size_t(parts) * layout.size);
    float* g_hidden = rollout_rows ? grad_arena.take<float>(rollout_rows) : call.g_hidden;

    const int threads =
        threads_for(call.threads, 4 * layer_operations(shape, batch, call.max_steps));
    run_pieces(parts, threads, [&](int part) {
        float* own = grads + part * layout.size;
        std::memset(own, 0, size_t(layout.size) * sizeof(float));
        Arena arena;
        const auto [first, end] = tiles_of_part(batch, part, parts);
        for (int tile = first; tile < end; ++tile)
            backward_tile(plan, batch.tiles[tile], layout, own, g_hidden, arena);
    });

    constexpr ptrdiff_t kSlice = 4096;
    const int slices = int((layout.size + kSlice - 1) / kSlice);
    run_pieces(slices, threads, [&](int slice) {
        const ptrdiff_t end = min(layout.size, (slice + 1) * kSlice);
        for (int part = 1; part < parts; ++part)
            for (ptrdiff_t i = slice * kSlice; i < end; i += kLanes)
                add_to(grads + i, load(grads + part * layout.size + i));
    });
    write_parameter_gradients(call, shape, layout, grads);
    if (rollout_rows) add_rollouts(plan, g_hidden);
}

}  // namespace lares::LARES_ISA
