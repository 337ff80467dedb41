// As much of CUDA's runtime as launch.hpp needs, without a card: cards that a test lays out, and a
// record of what was asked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__
#define __align__(n) __attribute__((aligned(n)))

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorLaunchFailure };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
using cudaStream_t = void*;

struct dim3 {
    unsigned x;
    dim3(unsigned x = 1) : x(x) {}
};
#ifndef CUDART_VERSION
#define CUDART_VERSION 13000
#endif
#if CUDART_VERSION >= 12060
enum cudaLaunchAttributeID { cudaLaunchAttributePreferredSharedMemoryCarveout = 14 };
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    struct {
        unsigned sharedMemCarveout;
    } val;
};
#else
struct cudaLaunchAttribute;
#endif
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

namespace stand_in {
inline int card = 0;
inline int most_shared = 232448;
inline cudaError_t last = cudaSuccess;
inline std::map<const void*, std::map<int, int>> allowed;  // bytes, by kernel and card
inline int times_set = 0;
inline std::vector<cudaLaunchConfig_t> launched;
inline std::vector<unsigned> carveouts;  // 0 where none was asked for
inline cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) last = error;
    return error;
}
}  // namespace stand_in

inline cudaError_t cudaGetLastError() { return std::exchange(stand_in::last, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorInvalidValue ? "invalid value" : "launch failure";
}
inline cudaError_t cudaGetDevice(int* card) { return *card = stand_in::card, cudaSuccess; }
inline cudaError_t cudaSetDevice(int card) {
    if (card < 0) return stand_in::keep(cudaErrorInvalidValue);
    return stand_in::card = card, cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    return *value = stand_in::most_shared, cudaSuccess;
}
template <class Function>
cudaError_t cudaFuncSetAttribute(Function* kernel, cudaFuncAttribute, int bytes) {
    ++stand_in::times_set;
    if (bytes > 232448) return stand_in::keep(cudaErrorInvalidValue);
    stand_in::allowed[reinterpret_cast<const void*>(kernel)][stand_in::card] = bytes;
    return cudaSuccess;
}
template <class... Types, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Types...),
                               Given&&...) {
    const int most = stand_in::allowed[reinterpret_cast<const void*>(kernel)][stand_in::card];
    if (config->dynamicSmemBytes > size_t(most)) return stand_in::keep(cudaErrorInvalidValue);
    stand_in::launched.push_back(*config);
#if CUDART_VERSION >= 12060
    stand_in::carveouts.push_back(config->numAttrs > 0 ? config->attrs[0].val.sharedMemCarveout
                                                       : 0);
#endif
    return cudaSuccess;
}

// Indices that a kernel's entry reads.
struct Index {
    unsigned x = 0;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;
inline int __shfl_sync(unsigned, int value, int) { return value; }
