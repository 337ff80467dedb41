// Launching kernels on the emulator: a thread for every warp, one block after the other.
#pragma once

#include <thread>

#include "lares_cuda.h"
#include "primitives.hpp"

// Kernels that were launched; tests read it.
extern "C" __attribute__((visibility("default"), weak)) int lares_emulated_launches = 0;

namespace lares::cuda {

constexpr const char* kDeviceType = "cpu";

template <class Kernel, class Call>
const char* launch(const Call& call, int blocks, int warps, int shared_bytes) {
    ++lares_emulated_launches;
    for (int index = 0; index < blocks; ++index) {
        // Unwritten memory reads as NaN.
        std::vector<unsigned char> shared(shared_bytes, 0xff);
        Barriers barriers(warps, warps % call.unit_warps == 0 ? call.unit_warps : warps);
        std::vector<std::thread> threads;
        for (int warp = 0; warp < warps; ++warp) {
            threads.emplace_back([&, warp] {
                const Block block = {index, blocks, warp, warps, &barriers};
                Kernel(call, block, shared.data()).run();
            });
        }
        for (auto& thread : threads) thread.join();
    }
    return nullptr;
}

// A card with few multiprocessors, so that small tests give each block several tiles.
inline const char* describe(int, LaresCudaCard& card) {
    card = {2, 232448, 9, 0};
    return nullptr;
}

struct DeviceGuard {
    explicit DeviceGuard(int) {}
    const char* error = nullptr;
};

}  // namespace lares::cuda
