// The C interface: a call is three launches, of which the first two cut the batch into tiles; or
// one where a block takes a sequence.
#include "activations.hpp"
#include "launch.hpp"
#include "pack.hpp"
#include "probe.hpp"
#include "shapes.hpp"
#include "tile_plan.hpp"
#include "unpack.hpp"

using namespace lares::cuda;

namespace {

const char kNoPrecision[] = "no kernel packs parameters in this precision";

// Name a choice that no kernel has code for, or return NULL; kernels do not check choices.
const char* refused(const LaresCudaCall& call) {
    if (!has_adapter(call.adapter)) return "no kernel has this adapter";
    if (!has_activation(call.activation)) return "no kernel has this activation";
    if (call.state_mode < LARES_STATE_GIVEN || call.state_mode > LARES_STATE_ZERO)
        return "no kernel has this state mode";
    return nullptr;
}

// Blocks of `warps` warps that pack all parameters.
int packing_blocks(const LaresCudaPack& pack, int warps) {
    const int of_block = Pack<Bf16>::of_block(warps);
    return (pack.matrix_numbers + pack.vector_numbers + of_block - 1) / of_block;
}

const char* cut_and_pack(const LaresCudaCall& call, const LaresCudaPack& pack) {
    const PrepareCall both = {call, pack, call.stream, 1};
    const int blocks = call.programs + packing_blocks(pack, 1);
    if (pack.precision == LARES_BF16) return launch<Prepare<Bf16>>(both, blocks, 1, 0);
    if (pack.precision == LARES_FP16) return launch<Prepare<Fp16>>(both, blocks, 1, 0);
    return kNoPrecision;
}

const char* cut_into_tiles(const LaresCudaCall& call) {
    const char* error = call.pack == nullptr ? launch<TilePlan>(call, call.programs, 1, 0)
                                             : cut_and_pack(call, *call.pack);
    if (error != nullptr) return error;
    const int sequences = call.n_groups * call.rollouts, warps = TileRows::kMaxWarps;
    return launch<TileRows>(call, (sequences + warps - 1) / warps, warps, 0);
}

#define LARES_PRECISION_Bf16 LARES_BF16
#define LARES_PRECISION_Fp16 LARES_FP16
#define LARES_CHOOSE(TYPE, WIDTH, PASS)                                         \
    if (call.d_model == WIDTH && call.precision == int(LARES_PRECISION_##TYPE)) \
        return PASS<TYPE, WIDTH>(call);
#define LARES_CHOOSE_FORWARD(TYPE, WIDTH) LARES_CHOOSE(TYPE, WIDTH, forward)
#define LARES_CHOOSE_SPLIT(TYPE, WIDTH) LARES_CHOOSE(TYPE, WIDTH, split)
#define LARES_CHOOSE_BACKWARD(TYPE, WIDTH) LARES_CHOOSE(TYPE, WIDTH, backward)

const char* run_forward(const LaresCudaCall& call) {
    if (call.split_parts > 0) {
        LARES_EACH_SHAPE(LARES_CHOOSE_SPLIT)
    } else {
        LARES_EACH_SHAPE(LARES_CHOOSE_FORWARD)
    }
    return "no kernel is compiled for this width";
}

const char* run_backward(const LaresCudaCall& call) {
    LARES_EACH_SHAPE(LARES_CHOOSE_BACKWARD)
    return "no backward kernel is compiled for this width";
}

const char* run(const LaresCudaCall& call, bool cuts, const char* (*pass)(const LaresCudaCall&)) {
    if (call.abi != LARES_CUDA_ABI) return "the library is not of the same version as its caller";
    if (const char* error = refused(call)) return error;
    const DeviceGuard guard(call.device);
    if (guard.error != nullptr) return guard.error;
    if (cuts) {
        const char* error = cut_into_tiles(call);
        if (error != nullptr) return error;
    }
    return pass(call);
}

}  // namespace

const char* lares_cuda_forward(const LaresCudaCall* call) {
    return run(*call, call->split_parts == 0 && !call->planned, run_forward);
}

const char* lares_cuda_backward(const LaresCudaCall* call) {
    return run(*call, call->last_step == call->max_steps && !call->planned, run_backward);
}

const char* lares_cuda_pack(const LaresCudaPack* call) {
    const DeviceGuard guard(call->device);
    if (guard.error != nullptr) return guard.error;
    const int warps = Pack<Bf16>::kMaxWarps, blocks = packing_blocks(*call, warps);
    if (call->precision == LARES_BF16) return launch<Pack<Bf16>>(*call, blocks, warps, 0);
    if (call->precision == LARES_FP16) return launch<Pack<Fp16>>(*call, blocks, warps, 0);
    return kNoPrecision;
}

const char* lares_cuda_unpack(const LaresCudaUnpack* call) {
    const DeviceGuard guard(call->device);
    if (guard.error != nullptr) return guard.error;
    const int blocks = (call->count + Unpack::kNumbers - 1) / Unpack::kNumbers;
    return launch<Unpack>(*call, blocks, Unpack::kMaxWarps, Unpack::kSharedBytes);
}

const char* lares_cuda_probe(const LaresCudaProbe* call) {
    const DeviceGuard guard(call->device);
    if (guard.error != nullptr) return guard.error;
    return launch<Probe>(*call, 1, Probe::kMaxWarps, Probe::kSharedBytes);
}

const char* lares_cuda_card(int32_t device, LaresCudaCard* card) { return describe(device, *card); }

const char* lares_cuda_device_type(void) { return kDeviceType; }

void lares_cuda_sizes(int64_t* sizes) {
    const size_t all[] = {sizeof(LaresCudaCall), sizeof(LaresCudaCard), sizeof(LaresCudaPack),
                          sizeof(LaresCudaUnpack), sizeof(LaresCudaProbe)};
    for (const size_t size : all) *sizes++ = int64_t(size);
}

#ifndef LARES_ARCHITECTURES
#define LARES_ARCHITECTURES ""
#endif

const char* lares_cuda_architectures(void) { return LARES_ARCHITECTURES; }
