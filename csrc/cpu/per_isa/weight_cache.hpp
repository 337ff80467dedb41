// Packed weights of earlier calls, found again by what the parameters hold.
//
// In a short call packing is a good part of the work. Parameters may change in place at any time
// without notice, so nothing but their content is trusted: every call reads them once for their
// fingerprint.
#pragma once

#include "../once/packed_cache.hpp"
#include "weights.hpp"

namespace lares::LARES_ISA {

constexpr int kPrintSums = 8;  // as many as hide the latency of a multiplication

struct Fingerprint {
    uint64_t words[kPrintSums * kLanes / 2];
};

// How many numbers each parameter has, 0 for those that a core does not have.
inline void parameter_sizes(const Shape& s, int64_t (&sizes)[LARES_PARAMETERS]) {
    fill(sizes, sizes + LARES_PARAMETERS, int64_t(0));
    for_parameters(s, [&](const ParameterShape& p) {
        sizes[p.parameter] = p.layers * p.rows.real() * p.columns.real();
    });
}

// Every step is a bijection of the lane's sum, and of the number that enters: one changed number
// always shows, several cancel with the probability of a random 32-bit coincidence in each lane
// they touch.
inline Fingerprint fingerprint(const Shape& s, const float* const* parameters) {
    constexpr int kSums = kPrintSums;
    UVec sums[kSums];
    for (int i = 0; i < kSums; ++i) sums[i] = lane_bits() * (2u * uint32_t(i) + 0x9E3779B9u);
    const auto mix = [](UVec sum, UVec x) LARES_INLINE_LAMBDA {
        sum = (sum ^ x) * 0x85EBCA6Bu;
        return (sum << 13) | (sum >> 19);
    };
    int64_t sizes[LARES_PARAMETERS];
    parameter_sizes(s, sizes);
    for (int p = 0; p < LARES_PARAMETERS; ++p) {
        const auto* words = reinterpret_cast<const uint32_t*>(parameters[p]);
        int64_t i = 0;
        for (; i + kSums * kLanes <= sizes[p]; i += kSums * kLanes)
            for (int k = 0; k < kSums; ++k) sums[k] = mix(sums[k], load(words + i + k * kLanes));
        for (; i < sizes[p]; i += kLanes) {
            uint32_t rest[kLanes] = {};
            const int64_t count = sizes[p] - i < kLanes ? sizes[p] - i : kLanes;
            std::memcpy(rest, words + i, size_t(count) * sizeof(uint32_t));
            sums[0] = mix(sums[0], load(rest));
        }
    }
    Fingerprint print;
    static_assert(sizeof sums == sizeof print, "all sums are compared");
    std::memcpy(&print, sums, sizeof print);
    return print;
}

// Everything that packed weights depend on, as bytes without gaps.
struct PackedKey {
    const char* instructions;  // other sets pack in other panels
    int64_t d, f, layers, adapter, mixer, window, kept, query;
    Fingerprint print;

    PackedKey(const Shape& s, const float* const* parameters)
        : instructions(kIsaName),
          d(s.d),
          f(s.f),
          layers(s.layers),
          adapter(s.adapter),
          mixer(s.mixer),
          window(s.window),
          kept(s.kept),
          query(s.query),
          print(fingerprint(s, parameters)) {}
};

// The packed weights of a call, for as long as this lives.
class CachedWeights {
  public:
    CachedWeights(const Shape& s, const float* const* parameters) {
        const PackedKey key(s, parameters);
        static_assert(sizeof key == sizeof key.instructions + 8 * sizeof key.d + sizeof key.print,
                      "no gaps");
        packed_ = find_packed(&key, sizeof key);
        if (!packed_)
            packed_ = keep_packed(&key, sizeof key, new Weights(s, parameters, false), destroy);
    }
    ~CachedWeights() { give_back_packed(packed_); }
    CachedWeights(const CachedWeights&) = delete;
    CachedWeights& operator=(const CachedWeights&) = delete;

    const Weights& operator*() const { return *static_cast<Weights*>(item_of(packed_)); }

  private:
    static void destroy(void* item) noexcept { delete static_cast<Weights*>(item); }

    Packed* packed_;
};

}  // namespace lares::LARES_ISA
