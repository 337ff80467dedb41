// The forward kernels of one width and type: compiled once for each pair, given as LARES_TYPE (Bf16
// or Fp16) and LARES_WIDTH.
#include "choose.hpp"
#include "forward.hpp"
#include "launch.hpp"
#include "shapes.hpp"

namespace lares::cuda {

template <int Head, bool Resident, bool Drops, bool Staged>
static const char* launch_forward(const LaresCudaCall& call) {
    // Two whole heads of wide rows would not fit beside what warps have.
    constexpr int kHeadPieces = !Staged ? 0 : LARES_WIDTH > 64 ? 2 : 1;
    using S = Shape<LARES_TYPE, LARES_WIDTH, Head, Resident, Drops, kHeadPieces>;
    const int warps = call.units * call.unit_warps;
    if (warps > S::kMaxWarps) return "more warps to a block than the kernel is compiled for";
    return launch<Forward<S>>(call, call.blocks, warps, call.shared_bytes);
}

template <int Head, bool Resident, bool Staged>
static const char* choose_drops(const LaresCudaCall& call) {
    if (call.residual.planes > 0 || call.attention.planes > 0)
        return launch_forward<Head, Resident, true, Staged>(call);
    return launch_forward<Head, Resident, false, Staged>(call);
}

template <int Head, bool Resident>
static const char* choose_staged(const LaresCudaCall& call) {
    if constexpr (!Resident)
        if (call.staged) return choose_drops<Head, false, true>(call);
    if (call.staged) return "weights that are resident are not staged";
    return choose_drops<Head, Resident, false>(call);
}

template <>
const char* forward<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
    return choose_shape<4>(call, [&](auto head, auto resident) {
        return choose_staged<decltype(head)::value, decltype(resident)::value>(call);
    });
}

}  // namespace lares::cuda
