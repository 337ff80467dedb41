// The forward kernels of one width and type: compiled once for each pair, given as LARES_TYPE (Bf16
// or Fp16) and LARES_WIDTH.
#include "forward.hpp"
#include "launch.hpp"
#include "shapes.hpp"

namespace lares::cuda {

template <int Head, bool Resident, bool Drops>
static const char* launch_forward(const LaresCudaCall& call) {
    using S = Shape<LARES_TYPE, LARES_WIDTH, Head, Resident, Drops>;
    const int warps = call.units * call.unit_warps;
    if (warps > S::kMostWarps) return "more warps to a block than the kernel is compiled for";
    return launch<Forward<S>>(call, call.blocks, warps, call.shared_bytes);
}

template <int Head, bool Resident>
static const char* choose_drops(const LaresCudaCall& call) {
    if (call.residual.planes > 0 || call.attention.planes > 0)
        return launch_forward<Head, Resident, true>(call);
    return launch_forward<Head, Resident, false>(call);
}

template <int Head>
static const char* choose_resident(const LaresCudaCall& call) {
    // What never fits and what always does is not compiled.
    if constexpr (LARES_WIDTH <= 64)
        if (call.resident) return choose_drops<Head, true>(call);
    if constexpr (LARES_WIDTH >= 64)
        if (!call.resident) return choose_drops<Head, false>(call);
    return "weights of this width are not kept in shared memory, or always";
}

template <>
const char* forward<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
    switch (call.head_tiles) {
#if LARES_WIDTH <= 64
        case 1:
            return choose_resident<1>(call);
#endif
        case 2:
            return choose_resident<2>(call);
#if LARES_WIDTH >= 64
        case 4:
            return choose_resident<4>(call);
#endif
    }
    return "heads of this width are not compiled";
}

}  // namespace lares::cuda
