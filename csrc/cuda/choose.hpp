// Choice among the kernels compiled for one width and type. forward.cu, backward.cu and
// split.cu have the same choice, each of its own kernels.
#pragma once

#include <type_traits>

#include "lares_cuda.h"

namespace lares::cuda {

// Variants that never fit, or that are never needed, are not compiled.
template <int MostResident, int Head, class Start>
static const char* choose_resident(const LaresCudaCall& call, Start start) {
    const std::integral_constant<int, Head> head;
    if constexpr (LARES_WIDTH <= 64 && Head <= MostResident)
        if (call.resident) return start(head, std::true_type());
    if constexpr (LARES_WIDTH >= 64)
        if (!call.resident) return start(head, std::false_type());
    return "weights of this width are not kept in shared memory, or always";
}

// Call `start` with the tiles of a head and whether weights are resident, both as types that have
// a `value`. Of wider heads than `MostResident` tiles weights are always read from memory. NULL, or
// what went wrong.
template <int MostResident, class Start>
static const char* choose_shape(const LaresCudaCall& call, Start start) {
    switch (call.head_tiles) {
#if LARES_WIDTH <= 64
        case 1:
            return choose_resident<MostResident, 1>(call, start);
#endif
        case 2:
            return choose_resident<MostResident, 2>(call, start);
#if LARES_WIDTH >= 64
        case 4:
            return choose_resident<MostResident, 4>(call, start);
#endif
    }
    return "heads of this width are not compiled";
}

}  // namespace lares::cuda
