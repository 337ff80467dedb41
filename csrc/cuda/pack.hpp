// Parameters in the order in which the kernels read them (core.hpp): a gather, whose addresses
// lares_kernels/cuda/packing.py finds once for each shape.
#pragma once

#include "core.hpp"
#include "tile_plan.hpp"

namespace lares::cuda {

template <class T>
struct Pack {
    static constexpr int kMaxWarps = 8;
    static constexpr int kNumbers = 2;  // of a lane

    static constexpr int of_block(int warps) { return 32 * warps * kNumbers; }

    const LaresCudaPack& call;
    const Block& block;

    LARES_DEVICE Pack(const LaresCudaPack& call, const Block& block, unsigned char*)
        : call(call), block(block) {}

    // Two neighbouring numbers a lane: first those of all matrices, then of all vectors.
    LARES_DEVICE void run() const {
        const Int pair = (block.index * block.warps + block.warp) * 32 + lane_number();
        const Int at = kNumbers * pair;
        const Mask matrix = at < call.matrix_numbers;
        const Mask inside = at < call.matrix_numbers + call.vector_numbers;
        Float x[kNumbers];
        LARES_UNROLL
        for (int i = 0; i < kNumbers; ++i) x[i] = number(load(call.places, at + i, inside, 0));
        store(static_cast<int32_t*>(call.matrices), pair, as_int(pack<T>(x[0], x[1])), matrix);
        store_pair(call.vectors, at - call.matrix_numbers, x[0], x[1], both(inside, !matrix));
    }

    // Number `place` of all parameters, counted from 1; 0 is a zero.
    LARES_DEVICE Float number(Int place) const {
        Float x{};
        int before = 0;
        LARES_ROLLED
        for (int i = 0; i < LARES_CUDA_PARAMETERS; ++i) {
            const int size = call.sizes[i];
            const Mask here = both(place > before, place <= before + size);
            x += load(call.parameters[i], place - (before + 1), here, 0.0f);
            before += size;
        }
        return x;
    }
};

// The same in the launch that cuts the batch into tiles: blocks of one warp, behind those that cut.
struct PrepareCall {
    LaresCudaCall call;
    LaresCudaPack pack;
    void* stream;
    int32_t unit_warps;
};

template <class T>
struct Prepare {
    static constexpr int kMaxWarps = 1;

    const PrepareCall& call;
    const Block& block;
    unsigned char* shared;

    LARES_DEVICE Prepare(const PrepareCall& call, const Block& block, unsigned char* shared)
        : call(call), block(block), shared(shared) {}

    LARES_DEVICE void run() const {
        const int cutting = call.call.programs;
        if (block.index < cutting) {
            TilePlan(call.call, block, shared).run();
        } else {
            Block packing = block;
            packing.index -= cutting;
            Pack<T>(call.pack, packing, shared).run();
        }
    }
};

}  // namespace lares::cuda
