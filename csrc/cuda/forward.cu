// The forward kernels of one width and type: compiled once for each pair, given as LARES_TYPE (Bf16
// or Fp16) and LARES_WIDTH.
#include "choose.hpp"
#include "forward.hpp"
#include "launch.hpp"
#include "shapes.hpp"

namespace lares::cuda {

template <int Head, bool Resident, bool Drops>
static const char* launch_forward(const LaresCudaCall& call) {
    using S = Shape<LARES_TYPE, LARES_WIDTH, Head, Resident, Drops>;
    const int warps = call.units * call.unit_warps;
    if (warps > S::kMaxWarps) return "more warps to a block than the kernel is compiled for";
    return launch<Forward<S>>(call, call.blocks, warps, call.shared_bytes);
}

template <int Head, bool Resident>
static const char* choose_drops(const LaresCudaCall& call) {
    if (call.residual.planes > 0 || call.attention.planes > 0)
        return launch_forward<Head, Resident, true>(call);
    return launch_forward<Head, Resident, false>(call);
}

template <>
const char* forward<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
    return choose_shape<4>(call, [&](auto head, auto resident) {
        return choose_drops<decltype(head)::value, decltype(resident)::value>(call);
    });
}

}  // namespace lares::cuda
