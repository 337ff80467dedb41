// Launching kernels on a card. csrc/tests/emulator has a header of the same name for the CPU.
#pragma once

#include <cuda_runtime.h>

#include <atomic>

#include "lares_cuda.h"
#include "primitives.hpp"

namespace lares::cuda {

constexpr const char* kDeviceType = "cuda";

template <class Kernel, class Call>
__global__ void __launch_bounds__(32 * Kernel::kMaxWarps, 1)
    entry(const __grid_constant__ Call call) {
    extern __shared__ __align__(16) unsigned char shared[];
    // Through a shuffle, so that the compiler knows it to be the same for all lanes.
    const int warp = __shfl_sync(~0u, int(threadIdx.x) / 32, 0);
    const Block block = {int(blockIdx.x), int(gridDim.x), warp, int(blockDim.x) / 32};
    Kernel(call, block, shared).run();
}

// NULL, or what went wrong. The runtime keeps the last error until it is asked for: left there, it
// would be reported for the next launch, which may succeed.
inline const char* error_text(cudaError_t error) {
    if (error == cudaSuccess) return nullptr;
    cudaGetLastError();
    return cudaGetErrorString(error);
}

// Lets a kernel have all the shared memory that the current card gives a block. Once for each of
// both: launches from several threads need different amounts of it, and one that set its own
// would lower the other's.
template <class Kernel, class Call>
cudaError_t allow_shared_memory() {
    static std::atomic<uint64_t> allowed{0};  // a bit a card
    int card = 0, most = 0;
    cudaError_t error = cudaGetDevice(&card);
    if (error != cudaSuccess) return error;
    const uint64_t bit = card < 64 ? uint64_t(1) << card : 0;
    if (allowed & bit) return cudaSuccess;
    error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, card);
    if (error != cudaSuccess) return error;
    error = cudaFuncSetAttribute(entry<Kernel, Call>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 most);
    if (error == cudaSuccess) allowed |= bit;
    return error;
}

// Hundredths of a multiprocessor's memory that a call wants to be shared memory, or 0.
inline int carveout_of(const LaresCudaCall& call) { return call.carveout; }
template <class Call>
int carveout_of(const Call&) {
    return 0;
}

// Start `blocks` blocks of `warps` warps on the call's stream. NULL, or what went wrong.
template <class Kernel, class Call>
const char* launch(const Call& call, int blocks, int warps, int shared_bytes) {
    cudaError_t error = allow_shared_memory<Kernel, Call>();
    if (error != cudaSuccess) return error_text(error);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(32 * warps);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(call.stream);
#if CUDART_VERSION >= 12060
    cudaLaunchAttribute carveout = {};
    carveout.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    carveout.val.sharedMemCarveout = carveout_of(call);
    config.attrs = &carveout;
    config.numAttrs = carveout_of(call) > 0;
#else
    if (carveout_of(call) > 0)
        return "setting largest_cache needs a library compiled by CUDA 12.6 or later";
#endif
    // Its own result, not the last error, which may be of another call's kernel.
    error = cudaLaunchKernelEx(&config, entry<Kernel, Call>, call);
    return error_text(error);
}

inline const char* describe(int device, LaresCudaCard& card) {
    const struct {
        cudaDeviceAttr attribute;
        int32_t* value;
    } wanted[] = {
        {cudaDevAttrMultiProcessorCount, &card.multiprocessors},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, &card.shared_limit},
        {cudaDevAttrComputeCapabilityMajor, &card.major},
        {cudaDevAttrComputeCapabilityMinor, &card.minor},
    };
    for (const auto& one : wanted) {
        const cudaError_t error = cudaDeviceGetAttribute(one.value, one.attribute, device);
        if (error != cudaSuccess) return error_text(error);
    }
    return nullptr;
}

// Makes a card the current one for as long as it lives.
class DeviceGuard {
  public:
    explicit DeviceGuard(int device) {
        error = error_text(cudaGetDevice(&before_));
        if (error == nullptr && before_ != device) error = error_text(cudaSetDevice(device));
        changed_ = before_ != device;
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);
    }
    const char* error;

  private:
    int before_ = 0;
    bool changed_ = false;
};

}  // namespace lares::cuda
