// Gradients of parameters: parts of sums are added up, and gathered by the addresses that packing
// has, read the other way (lares_kernels/cuda/packing.py).
#pragma once

#include "core.hpp"

namespace lares::cuda {

// A block takes 32 numbers a lane's four; its warps share the parts, whose sums they leave in
// shared memory, so that the order of additions is fixed.
struct Unpack {
    static constexpr int kMaxWarps = 8;
    static constexpr int kEach = 4;
    static constexpr int kNumbers = 32 * kEach;  // of a block
    static constexpr int kSharedBytes = kMaxWarps * kNumbers * sizeof(float);

    const LaresCudaUnpack& call;
    const Block& block;
    float* shared;

    LARES_DEVICE Unpack(const LaresCudaUnpack& call, const Block& block, unsigned char* shared)
        : call(call), block(block), shared(reinterpret_cast<float*>(shared)) {}

    LARES_DEVICE void run() const {
        LARES_UNROLL
        for (int i = 0; i < kEach; ++i) {
            const Int at = block.index * kNumbers + 32 * i + lane_number();
            const Int place = load(call.places, at, at < call.count, -1);
            const Mask matrix = both(place >= 0, place < call.matrix_numbers);
            const Mask vector = place >= call.matrix_numbers;
            Float sum{};
            if (any(matrix))
                add(sum, call.g_matrices, place, matrix, call.splits, call.matrix_numbers);
            if (any(vector)) {
                const Int there = place - call.matrix_numbers;
                add(sum, call.g_vectors, there, vector, call.splits, call.vector_numbers);
                add(sum, call.gradients, there, vector, call.warps, call.vector_numbers);
            }
            store_numbers(32 * i, sum);
        }
        block.barrier();
        if (block.warp != 0) return;
        LARES_UNROLL
        for (int i = 0; i < kEach; ++i) {
            const Int at = block.index * kNumbers + 32 * i + lane_number();
            Float sum{};
            LARES_ROLLED
            for (int warp = 0; warp < block.warps; ++warp)
                sum += load(shared + warp * kNumbers, 32 * i + lane_number());
            store_one(call.out, at, sum, at < call.count);
        }
    }

  private:
    // This warp's share of `count` parts of `stride` numbers.
    LARES_DEVICE void add(Float& sum, const float* parts, Int at, Mask mask, int count,
                          int stride) const {
        for (int part = block.warp; part < count; part += block.warps)
            sum += load(parts + int64_t(part) * stride, at, mask, 0.0f);
    }
    LARES_DEVICE void store_numbers(int from, Float x) const {
        store_one(shared + block.warp * kNumbers, from + lane_number(), x, lane_number() >= 0);
    }
    LARES_DEVICE static void store_one(float* to, Int at, Float x, Mask mask) {
        store(reinterpret_cast<int32_t*>(to), at, as_int(as_word(x)), mask);
    }
};

}  // namespace lares::cuda
