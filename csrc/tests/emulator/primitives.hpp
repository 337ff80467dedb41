// The primitives of csrc/cuda/device/primitives.hpp on a CPU: an array of 32 lanes, a thread for
// every warp. What each does is written down from NVIDIA's PTX manual, not from the other header.
//
// Operations are functions of their own, and optimised whatever the kernels round them are:
// inlined, 32 lanes made a kernel's compilation more than twice as long.
#pragma once

#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#define LARES_DEVICE inline
#define LARES_UNROLL
#define LARES_ROLLED
#define LARES_APART [[gnu::noinline]]

#ifndef __clang__  // which has no such thing
#pragma GCC push_options
#pragma GCC optimize("O2")
#endif

namespace lares::cuda {

constexpr int kLanes = 32;
// A number of each lane.
template <class E>
struct Lanes {
    E lane[kLanes];
    E& operator[](int i) { return lane[i]; }
    const E& operator[](int i) const { return lane[i]; }
};
using Float = Lanes<float>;
using Word = Lanes<uint32_t>;
using Int = Lanes<int32_t>;
using Mask = Int;  // 0 or -1

struct Bf16 {};
struct Fp16 {};

template <class V, class F>
[[gnu::always_inline]] inline V each(F f) {
    V v;
    for (int i = 0; i < kLanes; ++i) v[i] = f(i);
    return v;
}

// --- operators, of lanes and of lanes and one number ---

#define LARES_OPERATOR(OP, RESULT, SIGN)                                           \
    template <class E>                                                             \
    LARES_APART RESULT operator OP(const Lanes<E>& a, const Lanes<E>& b) {         \
        return each<RESULT>([&](int i) { return SIGN(a[i] OP b[i]); });            \
    }                                                                              \
    template <class E>                                                             \
    LARES_APART RESULT operator OP(const Lanes<E>& a, std::type_identity_t<E> b) { \
        return each<RESULT>([&](int i) { return SIGN(a[i] OP b); });               \
    }                                                                              \
    template <class E>                                                             \
    LARES_APART RESULT operator OP(std::type_identity_t<E> a, const Lanes<E>& b) { \
        return each<RESULT>([&](int i) { return SIGN(a OP b[i]); });               \
    }
#define LARES_ARITHMETIC(OP)                                   \
    LARES_OPERATOR(OP, Lanes<E>, +)                            \
    template <class E, class Other>                            \
    Lanes<E>& operator OP## = (Lanes<E> & a, const Other& b) { \
        return a = a OP b;                                     \
    }
LARES_ARITHMETIC(+)
LARES_ARITHMETIC(-)
LARES_ARITHMETIC(*)
LARES_ARITHMETIC(/)
LARES_ARITHMETIC(%)
LARES_ARITHMETIC(&)
LARES_ARITHMETIC(|)
LARES_ARITHMETIC(^)
LARES_ARITHMETIC(<<)
LARES_ARITHMETIC(>>)
LARES_OPERATOR(<, Mask, -)
LARES_OPERATOR(<=, Mask, -)
LARES_OPERATOR(>, Mask, -)
LARES_OPERATOR(>=, Mask, -)
LARES_OPERATOR(==, Mask, -)
LARES_OPERATOR(!=, Mask, -)
#undef LARES_ARITHMETIC
#undef LARES_OPERATOR

template <class E>
Lanes<E> operator-(const Lanes<E>& a) {
    return a * E(-1);
}
template <class E>
Lanes<E> operator~(const Lanes<E>& a) {
    return a ^ E(-1);
}
template <class E>
Mask operator!(const Lanes<E>& a) {
    return a == E(0);
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

[[noreturn]] inline void fault() { std::abort(); }

LARES_APART inline Int lane_number() {
    return each<Int>([](int i) { return i; });
}

// --- lanes ---

template <class T>
LARES_APART T select(Mask mask, T yes, T no) {
    return each<T>([&](int i) { return mask[i] ? yes[i] : no[i]; });
}
LARES_APART inline Mask both(Mask a, Mask b) { return a & b; }
LARES_APART inline Float wide(float x) { return Float{} + x; }
LARES_APART inline Int wide(int x) { return Int{} + x; }
LARES_APART inline Word wide(uint32_t x) { return Word{} + x; }
LARES_APART inline Int as_int(Word x) { return std::bit_cast<Int>(x); }
LARES_APART inline Word as_word(Int x) { return std::bit_cast<Word>(x); }
LARES_APART inline Word as_word(Float x) { return std::bit_cast<Word>(x); }
LARES_APART inline Float as_float(Word x) { return std::bit_cast<Float>(x); }
LARES_APART inline Float to_float(Int x) {
    return each<Float>([&](int i) { return float(x[i]); });
}
LARES_APART inline Float larger(Float a, Float b) { return select(a > b, a, select(a != a, a, b)); }
LARES_APART inline Float smaller(Float a, Float b) {
    return select(a < b, a, select(a != a, a, b));
}
LARES_APART inline Int larger(Int a, Int b) { return select(a > b, a, b); }
LARES_APART inline Int smaller(Int a, Int b) { return select(a < b, a, b); }
LARES_APART inline Float multiply_add(Float a, Float b, Float c) {
    return each<Float>([&](int i) { return std::fma(a[i], b[i], c[i]); });
}
LARES_APART inline Word multiply_high(Word a, uint32_t b) {
    return each<Word>([&](int i) { return uint32_t((uint64_t(a[i]) * b) >> 32); });
}
LARES_APART inline Word funnel_right(Word low, Word high, Int shift) {
    return each<Word>(
        [&](int i) { return uint32_t((uint64_t(high[i]) << 32 | low[i]) >> (shift[i] & 31)); });
}
LARES_APART inline Float exp2(Float x) {
    return each<Float>([&](int i) { return std::exp2(x[i]); });
}
LARES_APART inline Float inverse(Float x) { return 1.0f / x; }
LARES_APART inline Float inverse_root(Float x) {
    return each<Float>([&](int i) { return 1.0f / std::sqrt(x[i]); });
}
LARES_APART inline Float logarithm(Float x) {
    return each<Float>([&](int i) { return std::log(x[i]); });
}

// --- between lanes ---

template <class V>
LARES_APART V from_lane_xor(V x, int bit) {
    return each<V>([&](int i) { return x[i ^ bit]; });
}
LARES_APART inline Float quad_sum(Float x) {
    x += from_lane_xor(x, 1);
    return x + from_lane_xor(x, 2);
}
LARES_APART inline Float quad_max(Float x) {
    x = larger(x, from_lane_xor(x, 1));
    return larger(x, from_lane_xor(x, 2));
}
LARES_APART inline Float octet_sum(Float x) {
    x = quad_sum(x);
    return x + from_lane_xor(x, 4);
}
LARES_APART inline Float column_sum(Float x) {
    x += from_lane_xor(x, 4);
    x += from_lane_xor(x, 8);
    return x + from_lane_xor(x, 16);
}
LARES_APART inline Word quad_lane(Word x, int source) {
    return each<Word>([&](int i) { return x[(i & ~3) | source]; });
}
LARES_APART inline Word next_row(Word x) {
    return each<Word>([&](int i) { return x[i + 4 < kLanes ? i + 4 : i]; });
}
LARES_APART inline Word swap_neighbours(Word x) { return from_lane_xor(x, 1); }
LARES_APART inline bool any(Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) return true;
    return false;
}
LARES_APART inline int warp_max(Int x) {
    int most = x[0];
    for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
    return most;
}
LARES_APART inline int warp_sum(Int x) {
    int sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += x[i];
    return sum;
}
LARES_APART inline Int running_sum(Int x) {
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
LARES_APART Word pack(Float low, Float high) {
    return each<Word>(
        [&](int i) { return uint32_t(round16<T>(low[i])) | uint32_t(round16<T>(high[i])) << 16; });
}

template <class T>
LARES_APART Word add_trace(Word sum, Word x) {
    return each<Word>([&](int i) {
        const auto half = [&](int e) {
            const float added = widen<T>(x[i] >> 16 * e & 0xffff) * 0.0f;
            return uint32_t(round16<T>(widen<T>(sum[i] >> 16 * e & 0xffff) + added)) << 16 * e;
        };
        return half(0) | half(1);
    });
}

template <class T>
LARES_APART void mma(Float (&c)[4], Word a0, Word a1, Word a2, Word a3, Word b0, Word b1) {
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

LARES_APART inline Word transpose(Word x) {
    return each<Word>([&](int i) {
        const int g = i / 4, t = i % 4;
        const auto at = [&](int row, int column) {
            return x[4 * row + column / 2] >> 16 * (column % 2) & 0xffff;
        };
        return at(2 * t, g) | at(2 * t + 1, g) << 16;
    });
}

// --- memory ---

inline void warp_barrier() {}

LARES_APART inline void load_shared(Word (&to)[4], const unsigned char* from) {
    for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t words[4];
        std::memcpy(words, from + 16 * lane, 16);
        for (int i = 0; i < 4; ++i) to[i][lane] = words[i];
    }
}
LARES_APART inline void load_fragment(Word (&to)[4], const unsigned char* from) {
    load_shared(to, from);
}
LARES_APART inline void store_shared(unsigned char* to, const Word (&from)[4]) {
    for (int lane = 0; lane < kLanes; ++lane) {
        const uint32_t words[4] = {from[0][lane], from[1][lane], from[2][lane], from[3][lane]};
        std::memcpy(to + 16 * lane, words, 16);
    }
}
LARES_APART inline void load_written(Word (&to)[4], const unsigned char* from) {
    load_shared(to, from);
}
LARES_APART inline void store_fragment(unsigned char* to, const Word (&from)[4]) {
    store_shared(to, from);
}
LARES_APART inline void forget_written() {}
// What a warp's copies write is there after copies_done(), not before; until then it reads as NaN.
struct Copy {
    unsigned char* to;
    const unsigned char* from;
};
inline thread_local std::vector<Copy> copies_on_their_way;
LARES_APART inline void copy16(unsigned char* to, const unsigned char* from, Int index, Mask mask) {
    for (int i = 0; i < kLanes; ++i) {
        if (!mask[i]) continue;
        const Copy copy = {to + 16 * index[i], from + int64_t(16) * index[i]};
        std::memset(copy.to, 0xff, 16);
        copies_on_their_way.push_back(copy);
    }
}
LARES_APART inline void copies_done() {
    for (const Copy& copy : copies_on_their_way) std::memcpy(copy.to, copy.from, 16);
    copies_on_their_way.clear();
}

LARES_APART inline void load_pair(Float& a, Float& b, const float* from, Int index, Mask mask) {
    for (int i = 0; i < kLanes; ++i) {
        a[i] = mask[i] ? from[index[i]] : 0.0f;
        b[i] = mask[i] ? from[index[i] + 1] : 0.0f;
    }
}
LARES_APART inline void load_pair(Float& a, Float& b, const float* from, Int index) {
    load_pair(a, b, from, index, ~Mask{});
}
LARES_APART inline void store_pair(float* to, Int index, Float a, Float b, Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) to[index[i]] = a[i], to[index[i] + 1] = b[i];
}
LARES_APART inline void store_pair(float* to, Int index, Float a, Float b) {
    store_pair(to, index, a, b, ~Mask{});
}
LARES_APART inline void store_word(unsigned char* to, Int index, Word x) {
    for (int i = 0; i < kLanes; ++i) {
        const uint32_t word = x[i];
        std::memcpy(to + 4 * index[i], &word, 4);
    }
}
LARES_APART inline Float load(const float* from, Int index) {
    return each<Float>([&](int i) { return from[index[i]]; });
}
LARES_APART inline Float load(const float* from, Int index, Mask mask, float other) {
    return each<Float>([&](int i) { return mask[i] ? from[index[i]] : other; });
}
LARES_APART inline Int load(const int32_t* from, Int index) {
    return each<Int>([&](int i) { return from[index[i]]; });
}
LARES_APART inline Int load(const int32_t* from, Int index, Mask mask, int other) {
    return each<Int>([&](int i) { return mask[i] ? from[index[i]] : other; });
}
LARES_APART inline Int load(const int64_t* from, Int index, Mask mask, int other) {
    return each<Int>([&](int i) {
        if (!mask[i]) return other;
        const int64_t value = from[index[i]];
        return int(value < 0 ? 0 : value > 0x7fffffff ? 0x7fffffff : value);
    });
}
LARES_APART inline void store(int32_t* to, Int index, Int value, Mask mask) {
    for (int i = 0; i < kLanes; ++i)
        if (mask[i]) to[index[i]] = value[i];
}

}  // namespace lares::cuda

#ifndef __clang__
#pragma GCC pop_options
#endif
