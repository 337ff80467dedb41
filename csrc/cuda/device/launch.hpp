// Launching kernels on a card. csrc/tests/emulator has a header of the same name for the CPU.
#pragma once

#include <cuda_runtime.h>

#include "lares_cuda.h"
#include "primitives.hpp"

namespace lares::cuda {

constexpr const char* kDeviceType = "cuda";

template <class Kernel, class Call>
__global__ void __launch_bounds__(32 * Kernel::kMostWarps, 1)
    entry(const __grid_constant__ Call call) {
    extern __shared__ __align__(16) unsigned char shared[];
    // Through a shuffle, so that the compiler knows it to be the same for all lanes.
    const int warp = __shfl_sync(~0u, int(threadIdx.x) / 32, 0);
    const Block block = {int(blockIdx.x), int(gridDim.x), warp, int(blockDim.x) / 32};
    Kernel(call, block, shared).run();
}

inline const char* error_text(cudaError_t error) {
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Start `blocks` blocks of `warps` warps on the call's stream. NULL, or what went wrong.
template <class Kernel, class Call>
const char* launch(const Call& call, int blocks, int warps, int shared_bytes) {
    const cudaError_t error = cudaFuncSetAttribute(
        entry<Kernel, Call>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error_text(error);
    entry<Kernel, Call>
        <<<blocks, 32 * warps, shared_bytes, static_cast<cudaStream_t>(call.stream)>>>(call);
    return error_text(cudaGetLastError());
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
