// The backward kernels of one width and type, as forward.cu has the forward ones.
#include "backward.hpp"
#include "choose.hpp"
#include "launch.hpp"
#include "shapes.hpp"
#include "weight_gradients.hpp"

namespace lares::cuda {

template <bool Ahead, bool Transposed>
static const char* launch_products(const LaresCudaCall& call, int units) {
    using Products = WeightGradients<LARES_TYPE, LARES_WIDTH, Ahead, Transposed>;
    const int groups = (units + Products::kMaxWarps - 1) / Products::kMaxWarps;
    return launch<Products>(call, groups * call.splits, Products::kMaxWarps, 0);
}

template <int Head, bool Resident, bool Staged>
static const char* launch_backward(const LaresCudaCall& call) {
    // Whole heads, whose weights are all read before and after attention.
    using S = Shape<LARES_TYPE, LARES_WIDTH, Head, Resident, true, Staged ? 1 : 0>;
    const int warps = call.units * call.unit_warps;
    if (warps > S::kMaxWarps) return "more warps to a block than the kernel is compiled for";
    if (call.transposed && !Resident) return "sides are transposed with resident weights alone";
    const char* error = launch<Backward<S>>(call, call.blocks, warps, call.shared_bytes);
    if (error != nullptr) return error;

    const int units = call.n_layers * (4 * Head * call.n_heads + call.d_ff / 8) +
                      (call.concat_spill == nullptr ? 0 : LARES_WIDTH / 8);
    if constexpr (Resident) {
        if (call.transposed)
            return call.products_ahead ? launch_products<true, true>(call, units)
                                       : launch_products<false, true>(call, units);
    }
    return call.products_ahead ? launch_products<true, false>(call, units)
                               : launch_products<false, false>(call, units);
}

template <>
const char* backward<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
    // With heads of four tiles weights are always read from memory: one kernel less to compile.
    return choose_shape<2>(call, [&](auto head, auto resident) {
        constexpr bool kResident = decltype(resident)::value;
        if (!call.staged) return launch_backward<decltype(head)::value, kResident, false>(call);
        if constexpr (kResident)
            return "weights that are resident are not staged";
        else
            return launch_backward<decltype(head)::value, false, true>(call);
    });
}

}  // namespace lares::cuda
