// Entry points of each instruction set's build of the kernels.
#pragma once

#include <cstdint>

#include "../../lares_kernels.h"

namespace lares {

// All throw CallError or std::bad_alloc.
struct CatalogueKernels {
    void (*log_probability)(const LaresCatalogue& call);
    void (*gradients)(const LaresCatalogue& call);
    void (*top_k)(const LaresCatalogue& call);
    void (*ranks)(const LaresCatalogue& call);
};

struct IsaKernels {
    const char* name;
    int precision;   // of the products: LARES_FP32 or LARES_BF16
    uint32_t needs;  // of the processor: a Feature or none
    // True if there is code for a core's adapter and activation.
    bool (*has_choices)(const LaresCall& call);
    // Both throw CallError or std::bad_alloc.
    void (*forward)(const LaresCall& call);
    void (*backward)(const LaresCall& call);
    CatalogueKernels catalogue;
    double (*measure_peak)();
    bool (*evaluate)(int function, int64_t count, const float* x, float* y);
};

}  // namespace lares
