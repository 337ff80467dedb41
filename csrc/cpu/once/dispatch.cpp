// The C interface: checks a call, chooses the instruction set, turns exceptions into codes.

#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "batch.hpp"
#include "isa.hpp"
#include "processor.hpp"

namespace lares {

// LARES_SETS names what the library was built with, in order of preference within a precision:
// LARES_SET(avx2) LARES_SET(generic).
#define LARES_SET(name)              \
    namespace name {                 \
    extern const IsaKernels kernels; \
    }
LARES_SETS
#undef LARES_SET

namespace {

#define LARES_SET(name) &name::kernels,
const IsaKernels* const kBuilt[] = {LARES_SETS};
#undef LARES_SET

bool usable(const IsaKernels& kernels) {
    return (processor_features() & kernels.needs) == kernels.needs;
}

constexpr int kPrecisions = LARES_BF16 + 1;
std::atomic<const IsaKernels*> asked_for[kPrecisions];

const IsaKernels* first_usable(int precision) {
    for (const IsaKernels* kernels : kBuilt)
        if (kernels->precision == precision && usable(*kernels)) return kernels;
    return nullptr;
}

// Rounding to bfloat16 is to buy speed. On some processors its dot products run at twice the rate
// of float32's, on others at half of it; there float32 serves better. Measured once. The two are
// never near the bound, so that a busy machine cannot change the choice.
const IsaKernels& best_for_bf16() {
    static const IsaKernels& best = [&]() -> const IsaKernels& {
        constexpr double kWorthRounding = 1.4;
        const IsaKernels &single = *first_usable(LARES_FP32), *half = first_usable(LARES_BF16);
        return half && half->measure_peak() > kWorthRounding * single.measure_peak() ? *half
                                                                                     : single;
    }();
    return best;
}

const IsaKernels& chosen(int64_t precision) {
    for (int64_t p = precision; p >= LARES_FP32; --p)
        if (const auto* kernels = asked_for[p].load(std::memory_order_relaxed)) return *kernels;
    return precision == LARES_BF16 ? best_for_bf16() : *first_usable(LARES_FP32);
}

bool between(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

bool serves_mixer(const LaresCall& c) {
    if (c.mixer == LARES_MIXER_ATTENTION) return c.window == 0;
    return between(c.mixer, LARES_MIXER_FILTER, LARES_MIXER_BSAREC) &&
           between(c.window, 1, 1 << 20) && c.padded_length == c.window &&
           c.norm == LARES_NORM_POST && between(c.cutoff, 1, 1 << 20) && c.band_share >= 0 &&
           c.band_share <= 1;
}

bool serves(const LaresCall& c) {
    return c.abi == LARES_ABI && serves_mixer(c) && between(c.d_model, 1, 512) &&
           between(c.n_heads, 1, c.d_model) && c.d_model % c.n_heads == 0 &&
           between(c.d_ff, 1, 1 << 16) && between(c.n_layers, 1, 256) &&
           between(c.precision, LARES_FP32, LARES_BF16) && chosen(c.precision).has_choices(c) &&
           between(c.norm, LARES_NORM_POST, LARES_NORM_QUERY) &&
           between(c.padding, LARES_PADDING_RIGHT, LARES_PADDING_LEFT_ZEROS) &&
           between(c.dropout_level, 0, 255) && between(c.inner_dropout_level, 0, 255) &&
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
        run(chosen(call->precision));
        return LARES_OK;
    } catch (const CallError& error) {
        return error.code;
    } catch (const std::exception&) {
        return LARES_NO_MEMORY;
    }
}

bool serves(const LaresCatalogue& c) {
    constexpr int64_t kMaxItems = int64_t(1) << 30, kMaxQueries = int64_t(1) << 28;
    return c.abi == LARES_ABI && between(c.n_queries, 1, kMaxQueries) &&
           between(c.n_rows, 1, c.n_queries) && c.n_queries % c.n_rows == 0 &&
           between(c.n_items, 1, kMaxItems) && between(c.width, 1, 4096) &&
           between(c.scores, LARES_DOT, LARES_COSINE) &&
           between(c.precision, LARES_FP32, LARES_BF16) && c.n_excluded >= 0 && c.temperature > 0 &&
           std::isfinite(c.temperature) && c.queries && c.items &&
           (c.excluded || c.n_excluded == 0);
}

bool has_chosen(const LaresCatalogue& c) {
    for (int64_t r = 0; r < c.n_rows; ++r)
        if (!between(c.chosen[r], 0, c.n_items - 1)) return false;
    return true;
}

enum class Chosen { kNeeded, kNot };

int guarded(const LaresCatalogue* call, Chosen chosen_item,
            void (*CatalogueKernels::*run)(const LaresCatalogue&)) {
    if (!call || !serves(*call)) return LARES_BAD_ARGUMENT;
    if (chosen_item == Chosen::kNeeded) {
        if (!call->chosen) return LARES_BAD_ARGUMENT;
        if (!has_chosen(*call)) return LARES_BAD_ITEM;
    } else if (!between(call->k, 1, call->n_items)) {
        return LARES_BAD_ARGUMENT;
    }
    try {
        (chosen(call->precision).catalogue.*run)(*call);
        return LARES_OK;
    } catch (const std::exception&) {
        return LARES_NO_MEMORY;
    }
}

}  // namespace
}  // namespace lares

extern "C" {

int lares_refine_forward(const LaresCall* call) {
    return lares::guarded(call, [&](const lares::IsaKernels& isa) { isa.forward(*call); });
}

int lares_refine_backward(const LaresCall* call) {
    return lares::guarded(call, [&](const lares::IsaKernels& isa) { isa.backward(*call); });
}

int lares_catalogue_log_probability(const LaresCatalogue* call) {
    return lares::guarded(call, lares::Chosen::kNeeded, &lares::CatalogueKernels::log_probability);
}

int lares_catalogue_gradients(const LaresCatalogue* call) {
    return lares::guarded(call, lares::Chosen::kNeeded, &lares::CatalogueKernels::gradients);
}

int lares_catalogue_top_k(const LaresCatalogue* call) {
    return lares::guarded(call, lares::Chosen::kNot, &lares::CatalogueKernels::top_k);
}

int lares_catalogue_ranks(const LaresCatalogue* call) {
    return lares::guarded(call, lares::Chosen::kNeeded, &lares::CatalogueKernels::ranks);
}

const char* lares_isas(int precision) {
    const auto list = [](int of) {
        const lares::IsaKernels* best =
            of == LARES_BF16 ? &lares::best_for_bf16() : lares::first_usable(of);
        std::string found = best->name;
        for (const lares::IsaKernels* kernels : lares::kBuilt)
            if (kernels != best && kernels->precision <= of && lares::usable(*kernels))
                found += " " + std::string(kernels->name);
        return found;
    };
    if (precision == LARES_BF16) {
        static const std::string names = list(LARES_BF16);
        return names.c_str();
    }
    static const std::string names = list(LARES_FP32);
    return names.c_str();
}

int lares_use_isa(const char* name) {
    if (!*name) {
        for (auto& asked : lares::asked_for) asked = nullptr;
        return 0;
    }
    for (const lares::IsaKernels* kernels : lares::kBuilt) {
        if (std::strcmp(kernels->name, name) == 0 && lares::usable(*kernels)) {
            if (kernels->precision == LARES_FP32) lares::asked_for[LARES_BF16] = nullptr;
            lares::asked_for[kernels->precision] = kernels;
            return 0;
        }
    }
    return -1;
}

const char* lares_asked_isa(int precision) {
    if (!lares::between(precision, LARES_FP32, LARES_BF16)) return "";
    const lares::IsaKernels* asked = lares::asked_for[precision];
    return asked ? asked->name : "";
}

void lares_sizes(int64_t* sizes) {
    sizes[0] = sizeof(LaresCall);
    sizes[1] = sizeof(LaresCatalogue);
}

double lares_measure_peak(int precision) {
    if (!lares::between(precision, LARES_FP32, LARES_BF16)) return 0.0;
    return lares::chosen(precision).measure_peak();
}

int lares_evaluate(int function, int64_t count, const float* x, float* y) {
    return lares::chosen(LARES_FP32).evaluate(function, count, x, y) ? 0 : -1;
}
}
