// The low-latency forward kernels of one width and type, as forward.cu has the others.
#include "choose.hpp"
#include "launch.hpp"
#include "shapes.hpp"
#include "split.hpp"

namespace lares::cuda {

template <>
const char* split<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
    if (call.staged) return "weights of the low-latency plan are not staged";
    return choose_shape<4>(call, [&](auto head, auto resident) {
        using Kernel = Split<Shape<LARES_TYPE, LARES_WIDTH, decltype(head)::value,
                                   decltype(resident)::value, false>>;
        return launch<Kernel>(call, call.blocks, Kernel::kMaxWarps, call.shared_bytes);
    });
}

}  // namespace lares::cuda
