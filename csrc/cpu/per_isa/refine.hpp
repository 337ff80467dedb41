// A whole call: tiles over threads, gradients added in a fixed order.
#pragma once

#include "gradient_parts.hpp"
#include "tile.hpp"
#include "weight_cache.hpp"

namespace lares::LARES_ISA {

// Rows of a tile: enough for the products, few enough that a tile and the weights share the L2
// cache.
constexpr int kTileRows = 96;

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
    const Weights weights(shape, call.parameters, false);
    forward_tiles({call, batch, shape, weights}, operations);
}

inline void backward_tiles(const CallPlan& plan, const GradientParts& parts, int threads) {
    float* g_hidden = parts.rows ? parts.rows : plan.call.g_hidden;
    run_pieces(parts.count, threads, [&](int part) {
        float* own = parts.of(part);
        std::memset(own, 0, size_t(parts.layout.size) * sizeof(float));
        Arena arena;
        const auto [first, end] = parts.tiles(part, plan.batch.n_tiles);
        for (int tile = first; tile < end; ++tile)
            backward_tile(plan, plan.batch.tiles[tile], parts.layout, own, g_hidden, arena);
    });
}

inline void backward(const LaresCall& call) {
    const Shape shape(call);
    const Batch batch(call, tile_rows(call));
    const Weights weights(shape, call.parameters, true);
    const CallPlan plan{call, batch, shape, weights};
    const GradientParts parts(plan);
    const int threads =
        threads_for(call.threads, 4 * layer_operations(shape, batch, call.max_steps));
    backward_tiles(plan, parts, threads);
    add_parts(parts, threads);
    write_parameter_gradients(call, shape, parts.layout, parts.numbers);
    if (parts.rows) add_rollouts(plan, parts.rows);
}

}  // namespace lares::LARES_ISA
