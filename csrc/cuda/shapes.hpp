// Compiled instances: forward.cu has one of these for each width and type.
#pragma once

#include "lares_cuda.h"
#include "primitives.hpp"

namespace lares::cuda {

template <class T, int D>
const char* forward(const LaresCudaCall& call);
template <class T, int D>
const char* split(const LaresCudaCall& call);
template <class T, int D>
const char* backward(const LaresCudaCall& call);

// As in csrc/build_cuda.py, which says so itself where fewer are compiled: for programs that
// sanitizers slow down, and for tests.
#ifndef LARES_EACH_SHAPE
#define LARES_EACH_SHAPE(APPLY) \
    APPLY(Bf16, 32)             \
    APPLY(Bf16, 64) APPLY(Bf16, 128) APPLY(Fp16, 32) APPLY(Fp16, 64) APPLY(Fp16, 128)
#endif

#define LARES_DECLARE(TYPE, WIDTH)                               \
    template <>                                                  \
    const char* forward<TYPE, WIDTH>(const LaresCudaCall& call); \
    template <>                                                  \
    const char* split<TYPE, WIDTH>(const LaresCudaCall& call);   \
    template <>                                                  \
    const char* backward<TYPE, WIDTH>(const LaresCudaCall& call);
LARES_EACH_SHAPE(LARES_DECLARE)
#undef LARES_DECLARE

}  // namespace lares::cuda
