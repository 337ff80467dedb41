// The primitives of csrc/cuda/device/primitives.hpp on a CPU: 32 lanes in one vector, a thread for
// every warp. What each does is written down from NVIDIA's PTX manual, not from the other header.
#pragma once

#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#define LARES_DEVICE inline
#define LARES_UNROLL
#define LARES_ROLLED

namespace lares::cuda {

constexpr int kLanes = 32;
typedef float Float __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Word __attribute__((vector_size(4 * kLanes)));
typedef int32_t Int __attribute__((vector_size(4 * kLanes)));
using Mask = Int;  // 0 or -1

struct Bf16 {};
struct Fp16 {};

template <class V, class F>
V each(F f) {
    V v;
    for (int i = 0; i < kLanes; ++i) v[i] = f(i);
    return v;
}

// --- where we are ---

struct Barriers {
    std::barrier<> all;
    std::vector<std::unique_ptr<std::barrier<>>> units;
    Barriers(int warps, int unit_warps) : all(warps) {
        for (int i = 0; i < warps / unit_warps; ++i)
            units.push_back(std::make_unique<std::barrier<>>(unit_warps));
    }
};

struct Block {
    int index, count, warp, warps;
    Barriers* barriers;
    void barrier() const { barriers->all.arrive_and_wait(); }
    void unit_barrier(int unit, int) const { barriers->units.at(unit)->arrive_and_wait(); }
    void fence() const {}
};

inline Int lane_number() {
    return each<Int>([](int i) { return i; });
}

// --- lanes ---

template <class T>
T select(Mask mask, T yes, T no) {
    return mask ? yes : no;
}
inline Mask both(Mask a, Mask b) { return a & b; }
inline Float wide(float x) { return Float{} + x; }
inline Int wide(int x) { return Int{} + x; }
inline Word wide(uint32_t x) { return Word{} + x; }
inline Int as_int(Word x) { return (Int)x; }
inline Word as_word(Int x) { return (Word)x; }
inline Word as_word(Float x) { return (Word)x; }
inline Float as_float(Word x) { return (Float)x; }
inline Float to_float(Int x) { return __builtin_convertvector(x, Float); }
inline Float larger(Float a, Float b) { return a > b ? a : a != a ? a : b; }
inline Float smaller(Float a, Float b) { return a < b ? a : a != a ? a : b; }
inline Int larger(Int a, Int b) { return a > b ? a : b; }
inline Int smaller(Int a, Int b) { return a < b ? a : b; }
inline Float multiply_add(Float a, Float b, Float c) {
    return each<Float>([&](int i) { return std::fma(a[i], b[i], c[i]); });
}
inline Word multiply_high(Word a, uint32_t b) {
    return each<Word>([&](int i) { return uint32_t((uint64_t(a[i]) * b) >> 32); });
}
inline Word funnel_right(Word low, Word high, Int shift) {
    return each<Word>(
        [&](int i) { return uint32_t((uint64_t(high[i]) << 32 | low[i]) >> (shift[i] & 31)); });
}
inline Float exp2(Float x) {
    return each<Float>([&](int i) { return std::exp2(x[i]); });
}
inline Float inverse(Float x) { return 1.0f / x; }
inline Float inverse_root(Float x) {
    return each<Float>([&](int i) { return 1.0f / std::sqrt(x[i]); });
}
inline Float logarithm(Float x) {
    return each<Float>([&](int i) { return std::log(x[i]); });
}

// --- between lanes ---

template <class V>
V from_lane_xor(V x, int bit) {
    return each<V>([&](int i) { return x[i ^ bit]; });
}
inline Float quad_sum(Float x) {
    x += from_lane_xor(x, 1);
    return x + from_lane_xor(x, 2);
}
inline Float quad_max(Float x) {
    x = larger(x, from_lane_xor(x, 1));
    return larger(x, from_lane_xor(x, 2));
}
inline Float octet_sum(Float x) {
    x = quad_sum(x);
    return x + from_lane_xor(x, 4);
}
inline Float column_sum(Float x) {
    x += from_lane_xor(x, 4);
    x += from_lane_xor(x, 8);
    return x + from_lane_xor(x, 16);
}
inline Word quad_lane(Word x, int source) {
    return each<Word>([&](int i) { return x[(i & ~3) | source]; });
}
inline Word next_row(Word x) {
    return each<Word>([&](int i) { return x[i + 4 < kLanes ? i + 4 : i]; });
}
inline Word swap_neighbours(Word x) { return from_lane_xor(x, 1); }
inline bool any(Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) return true;
    return false;
}
inline int warp_max(Int x) {
    int most = x[0];
    for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
    return most;
}
inline int warp_sum(Int x) {
    int sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += x[i];
    return sum;
}
inline Int running_sum(Int x) {
    for (int i = 1; i < kLanes; ++i) x[i] += x[i - 1];
    return x;
}

// --- tensor cores ---

template <class T>
uint16_t round16(float x);
template <>
inline uint16_t round16<Bf16>(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    if (x != x) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
template <>
inline uint16_t round16<Fp16>(float x) {
    return std::bit_cast<uint16_t>(_Float16(x));
}
template <class T>
float widen(uint32_t half);
template <>
inline float widen<Bf16>(uint32_t half) {
    return std::bit_cast<float>(half << 16);
}
template <>
inline float widen<Fp16>(uint32_t half) {
    return float(std::bit_cast<_Float16>(uint16_t(half)));
}

template <class T>
Word pack(Float low, Float high) {
    return each<Word>(
        [&](int i) { return uint32_t(round16<T>(low[i])) | uint32_t(round16<T>(high[i])) << 16; });
}

template <class T>
Word add_trace(Word sum, Word x) {
    return each<Word>([&](int i) {
        const auto half = [&](int e) {
            const float added = widen<T>(x[i] >> 16 * e & 0xffff) * 0.0f;
            return uint32_t(round16<T>(widen<T>(sum[i] >> 16 * e & 0xffff) + added)) << 16 * e;
        };
        return half(0) | half(1);
    });
}

template <class T>
void mma(Float (&c)[4], Word a0, Word a1, Word a2, Word a3, Word b0, Word b1) {
    float a[16][16], b[8][16];  // b by columns
    for (int lane = 0; lane < kLanes; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int e = 0; e < 2; ++e) {
            a[g][2 * t + e] = widen<T>(a0[lane] >> 16 * e & 0xffff);
            a[g + 8][2 * t + e] = widen<T>(a1[lane] >> 16 * e & 0xffff);
            a[g][2 * t + 8 + e] = widen<T>(a2[lane] >> 16 * e & 0xffff);
            a[g + 8][2 * t + 8 + e] = widen<T>(a3[lane] >> 16 * e & 0xffff);
            b[g][2 * t + e] = widen<T>(b0[lane] >> 16 * e & 0xffff);
            b[g][2 * t + 8 + e] = widen<T>(b1[lane] >> 16 * e & 0xffff);
        }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
            float sum = 0.0f;
            for (int k = 0; k < 16; ++k) sum += a[row][k] * b[column][k];
            c[i][lane] += sum;
        }
    }
}

inline Word transpose(Word x) {
    return each<Word>([&](int i) {
        const int g = i / 4, t = i % 4;
        const auto at = [&](int row, int column) {
            return x[4 * row + column / 2] >> 16 * (column % 2) & 0xffff;
        };
        return at(2 * t, g) | at(2 * t + 1, g) << 16;
    });
}

// --- memory ---

inline void load_shared(Word (&to)[4], const unsigned char* from) {
    for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t words[4];
        std::memcpy(words, from + 16 * lane, 16);
        for (int i = 0; i < 4; ++i) to[i][lane] = words[i];
    }
}
inline void load_fragment(Word (&to)[4], const unsigned char* from) { load_shared(to, from); }
inline void store_shared(unsigned char* to, const Word (&from)[4]) {
    for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t words[4] = {from[0][lane], from[1][lane], from[2][lane], from[3][lane]};
        std::memcpy(to + 16 * lane, words, 16);
    }
}
inline void load_written(Word (&to)[4], const unsigned char* from) { load_shared(to, from); }
inline void store_fragment(unsigned char* to, const Word (&from)[4]) { store_shared(to, from); }
inline void forget_written() {}
inline void copy16(unsigned char* to, const unsigned char* from, Int index, Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) std::memcpy(to + 16 * index[i], from + int64_t(16) * index[i], 16);
}
inline void copies_done() {}

inline void load_pair(Float& a, Float& b, const float* from, Int index, Mask mask) {
    for (int i = 0; i < kLanes; ++i) {
        a[i] = mask[i] ? from[index[i]] : 0.0f;
        b[i] = mask[i] ? from[index[i] + 1] : 0.0f;
    }
}
inline void load_pair(Float& a, Float& b, const float* from, Int index) {
    load_pair(a, b, from, index, ~Mask{});
}
inline void store_pair(float* to, Int index, Float a, Float b, Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) to[index[i]] = a[i], to[index[i] + 1] = b[i];
}
inline void store_pair(float* to, Int index, Float a, Float b) {
    store_pair(to, index, a, b, ~Mask{});
}
inline void store_word(unsigned char* to, Int index, Word x) {
    for (int i = 0; i < kLanes; ++i) {
        const uint32_t word = x[i];
        std::memcpy(to + 4 * index[i], &word, 4);
    }
}
inline Float load(const float* from, Int index) {
    return each<Float>([&](int i) { return from[index[i]]; });
}
inline Float load(const float* from, Int index, Mask mask, float other) {
    return each<Float>([&](int i) { return mask[i] ? from[index[i]] : other; });
}
inline Int load(const int32_t* from, Int index) {
    return each<Int>([&](int i) { return from[index[i]]; });
}
inline Int load(const int32_t* from, Int index, Mask mask, int other) {
    return each<Int>([&](int i) { return mask[i] ? from[index[i]] : other; });
}
inline Int load(const int64_t* from, Int index, Mask mask, int other) {
    return each<Int>([&](int i) {
        if (!mask[i]) return other;
        const int64_t value = from[index[i]];
        return int(value < 0 ? 0 : value > 0x7fffffff ? 0x7fffffff : value);
    });
}
inline void store(int32_t* to, Int index, Int value, Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) to[index[i]] = value[i];
}

}  // namespace lares::cuda
