// The low-latency forward kernels of one width and type, as forward.cu has the others.
#include "launch.hpp"
#include "shapes.hpp"
#include "split.hpp"

namespace lares::cuda {

template <int Head>
static const char* choose_resident(const LaresCudaCall& call) {
    const auto start = [&](auto shape) {
        using Kernel = Split<decltype(shape)>;
        return launch<Kernel>(call, call.blocks, Kernel::kMostWarps, call.shared_bytes);
    };
    if constexpr (LARES_WIDTH <= 64)
        if (call.resident) return start(Shape<LARES_TYPE, LARES_WIDTH, Head, true, false>());
    if constexpr (LARES_WIDTH >= 64)
        if (!call.resident) return start(Shape<LARES_TYPE, LARES_WIDTH, Head, false, false>());
    return "weights of this width are not kept in shared memory, or always";
}

template <>
const char* split<LARES_TYPE, LARES_WIDTH>(const LaresCudaCall& call) {
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
