// All kernels of one instruction set. Compiled once for each, with LARES_ISA naming it.
//
// One source, so that a set is one object: what is inline stands in it alone.

#include "../once/isa.hpp"
#include "../once/processor.hpp"
#include "catalogue.hpp"
#include "refine.hpp"

namespace lares::LARES_ISA {
namespace {

#if defined(__AMX_BF16__)

// Products of registers of the matrix unit.
double measure_peak() {
    constexpr int kRounds = 2000, kOperations = 2 * kUnitRows * kLanes * 2 * kUnitPairs;
    const MatrixUnit unit;
    double best = 0.0;
    for (int trial = 0; trial < 50; ++trial) {
        const double start = seconds_now();
        for (int round = 0; round < kRounds; ++round) {
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 4, 5);
        }
        const double took = seconds_now() - start;
        best = max(best, 4.0 * kOperations * kRounds / took);
    }
    return best * 1e-9;
}

#else

// Multiply-adds on as many independent sums as hide their latency, from registers alone.
double measure_peak() {
    constexpr int kSums = 2 * kBlockRows * kPanelVectors > 24 ? 24 : 12, kRounds = 2000;
    double best = 0.0;
    Vec sums[kSums];
    for (auto& v : sums) v = broadcast(1.0f);
    for (int trial = 0; trial < 200; ++trial) {
        const Vec a = broadcast(1.0f + 1e-7f * float(trial)), c = broadcast(1e-7f);
        const auto step = [&](Vec sum) LARES_INLINE_LAMBDA {
            return kBf16 ? multiply_add(bits_as<OperandVec>(a), bits_as<OperandVec>(c), sum)
                         : sum * a + c;
        };
        const double start = seconds_now();
        for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 24
            for (int i = 0; i < kSums; ++i) sums[i] = step(sums[i]);
        }
        const double took = seconds_now() - start;
        best = max(best, 2.0 * kFold * kLanes * kSums * kRounds / took);
    }
    volatile float sink = 0.0f;
    for (const auto& v : sums) sink = sink + v[0];
    return best * 1e-9;
}

#endif

bool has_choices(const LaresCall& call) {
    return has_adapter(call.adapter) && has_activation(call.activation);
}

Vec evaluate(int function, Vec x) {
    switch (function) {
        case LARES_EXP:
            return exp(x);
        case LARES_LOG:
            return log(x);
        case LARES_ERF_SCALED:
            return erf_scaled(x);
        case LARES_GELU_SLOPE:
            return Gelu::both(x).slope;
        case LARES_SIGMOID:
            return sigmoid(x);
    }
    no_such_choice();
}

bool evaluate(int function, int64_t count, const float* x, float* y) {
    if (function < LARES_EXP || function > LARES_SIGMOID) return false;
    for (int64_t i = 0; i < count; i += kLanes) {
        float in[kLanes] = {}, out[kLanes];
        const size_t size = size_t(min<int64_t>(kLanes, count - i)) * sizeof(float);
        for (auto& value : in) value = 1.0f;
        std::memcpy(in, x + i, size);
        store(out, evaluate(function, load(in)));
        std::memcpy(y + i, out, size);
    }
    return true;
}

constexpr uint32_t kNeeds =
#if defined(__AMX_BF16__)
    kHasAmxBf16;
#elif defined(__AVX512BF16__)
    kHasAvx512Bf16;
#elif defined(__AVX512F__)
    kHasAvx512;
#elif defined(__AVX2__)
    kHasAvx2;
#elif defined(LARES_NEON_BF16)
    kHasNeonBf16;
#else
    0;
#endif

}  // namespace

extern const IsaKernels kernels;
const IsaKernels kernels{kIsaName,     kBf16 ? LARES_BF16 : LARES_FP32,
                         kNeeds,       has_choices,
                         forward,      backward,
                         {log_probability, gradients, top_k, ranks},
                         measure_peak, evaluate};

}  // namespace lares::LARES_ISA
