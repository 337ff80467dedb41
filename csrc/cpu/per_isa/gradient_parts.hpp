// Gradients of a call: gathered by parts of the batch, and then added in a fixed order.
#pragma once

#include "tile_arrays.hpp"

namespace lares::LARES_ISA {

// Parts of a batch whose parameter gradients are gathered apart and then added in order. Their
// number depends on the batch alone, so that any number of threads gives the same bits.
constexpr int kParts = 16;

// Buffers in which parts of a batch sum gradients.
struct GradientParts {
    Arena arena;
    const GradientLayout layout;
    const int count;
    float* numbers;         // (count, layout.size) of the parameters
    float* rows = nullptr;  // (N, d) of H, where each rollout has its own

    explicit GradientParts(const CallPlan& plan)
        : layout(plan.shape), count(min(kParts, plan.batch.n_tiles)) {
        arena.carve([&] {
            numbers = arena.take<float>(size_t(count) * size_t(layout.size));
            if (plan.call.rollouts > 1)
                rows = arena.take<float>(size_t(plan.batch.rows) * size_t(plan.shape.d));
        });
    }
    float* of(int part) const { return numbers + part * layout.size; }
    // About equally many tiles each.
    Range tiles(int part, int64_t all) const {
        return {int(all * part / count), int(all * (part + 1) / count)};
    }
};

// Adds the other parts to the first, in order.
inline void add_parts(const GradientParts& parts, int threads) {
    constexpr ptrdiff_t kSlice = 4096;
    const ptrdiff_t size = parts.layout.size;
    run_pieces(int((size + kSlice - 1) / kSlice), threads, [&](int slice) {
        const ptrdiff_t end = min(size, (slice + 1) * kSlice);
        for (int part = 1; part < parts.count; ++part)
            for (ptrdiff_t i = slice * kSlice; i < end; i += kLanes)
                add_to(parts.numbers + i, load(parts.of(part) + i));
    });
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

}  // namespace lares::LARES_ISA
