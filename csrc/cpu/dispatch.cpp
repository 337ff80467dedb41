// The C interface: checks a call, chooses the instruction set, turns exceptions into codes.

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "arena.hpp"
#include "batch.hpp"
#include "isa.hpp"

namespace lares {

#define LARES_DECLARE(name)          \
    namespace name {                 \
    extern const IsaKernels kernels; \
    }
#if defined(LARES_WITH_X86)
LARES_DECLARE(avx512)
LARES_DECLARE(avx2)
#endif
LARES_DECLARE(generic)

namespace {

const IsaKernels* const kBuilt[] = {
#if defined(LARES_WITH_X86)
    &avx512::kernels,
    &avx2::kernels,
#endif
    &generic::kernels,
};

std::atomic<const IsaKernels*> asked_for{nullptr};

const IsaKernels& chosen() {
    if (const IsaKernels* kernels = asked_for.load(std::memory_order_relaxed)) return *kernels;
    for (const IsaKernels* kernels : kBuilt)
        if (kernels->usable()) return *kernels;
    return generic::kernels;
}

bool between(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

bool serves(const LaresCall& c) {
    return c.abi == LARES_ABI && between(c.d_model, 1, 512) && between(c.n_heads, 1, c.d_model) &&
           c.d_model % c.n_heads == 0 && between(c.d_ff, 1, 1 << 16) &&
           between(c.n_layers, 1, 256) &&
           between(c.adapter, LARES_ADAPTER_ADD, LARES_ADAPTER_NONE) &&
           between(c.activation, LARES_GELU, LARES_SILU) &&
           between(c.norm, LARES_NORM_POST, LARES_NORM_PRE) && between(c.dropout_level, 0, 255) &&
           between(c.attn_dropout_level, 0, 255) && c.eps > 0 && std::isfinite(c.eps) &&
           std::isfinite(c.state_scale) &&
           between(c.state_mode, LARES_STATE_GIVEN, LARES_STATE_ZERO) && c.lengths && c.hidden &&
           c.trajectory != c.hidden &&
           (c.state || c.state_mode != LARES_STATE_GIVEN || c.adapter == LARES_ADAPTER_NONE);
}

template <class Run>
int guarded(const LaresCall* call, const Run& run) {
    if (!call || !serves(*call)) return LARES_BAD_ARGUMENT;
    try {
        run(chosen());
        return LARES_OK;
    } catch (const CallError& error) {
        return error.code;
    } catch (const std::exception&) {
        return LARES_NO_MEMORY;
    }
}

// A lock held by another thread at the moment of a fork would stay locked in the child for ever.
struct ForkGuard {
    ForkGuard() {
        ArenaPool::instance();
        pthread_atfork([] { ArenaPool::instance().mutex().lock(); },
                       [] { ArenaPool::instance().mutex().unlock(); },
                       [] { ArenaPool::instance().mutex().unlock(); });
    }
} fork_guard;

}  // namespace
}  // namespace lares

extern "C" {

int lares_refine_forward(const LaresCall* call) {
    return lares::guarded(call, [&](const lares::IsaKernels& isa) { isa.forward(*call); });
}

int lares_refine_backward(const LaresCall* call) {
    return lares::guarded(call, [&](const lares::IsaKernels& isa) { isa.backward(*call); });
}

const char* lares_isas(void) {
    static const std::string names = [] {
        std::string found;
        for (const lares::IsaKernels* kernels : lares::kBuilt)
            if (kernels->usable()) found += (found.empty() ? "" : " ") + std::string(kernels->name);
        return found;
    }();
    return names.c_str();
}

int lares_use_isa(const char* name) {
    if (!*name) {
        lares::asked_for = nullptr;
        return 0;
    }
    for (const lares::IsaKernels* kernels : lares::kBuilt) {
        if (std::strcmp(kernels->name, name) == 0 && kernels->usable()) {
            lares::asked_for = kernels;
            return 0;
        }
    }
    return -1;
}

double lares_measure_peak(void) { return lares::chosen().measure_peak(); }

int lares_evaluate(int function, int64_t count, const float* x, float* y) {
    return lares::chosen().evaluate(function, count, x, y) ? 0 : -1;
}
}
