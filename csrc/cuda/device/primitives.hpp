// Primitives of a warp: the only part of the kernels that knows the hardware.
//
// Kernels are written against this header. csrc/tests/emulator has another of the same name, where
// Float and its kin are 32 lanes wide, which runs the same kernels on a CPU. So kernels keep to
// these rules: what differs between lanes has type Float, Word, Int or Mask and no branch depends
// on it (`select` instead); what all lanes share is an int, a bool or a pointer.
#pragma once

#include <cstdint>

#define LARES_DEVICE __device__ __forceinline__
#define LARES_UNROLL _Pragma("unroll")
#define LARES_ROLLED _Pragma("unroll 1")

namespace lares::cuda {

using Float = float;
using Word = uint32_t;
using Int = int32_t;
using Mask = bool;

struct Bf16 {};
struct Fp16 {};

// --- where we are ---

// This warp's place. `index` of `count` blocks; `warp` of `warps` of the block.
struct Block {
    int index, count, warp, warps;

    // Every warp of the block waits for the others.
    LARES_DEVICE void barrier() const { __syncthreads(); }
    // The `size` warps of unit `unit` wait for each other.
    LARES_DEVICE void unit_barrier(int unit, int size) const {
        asm volatile("bar.sync %0, %1;" ::"r"(unit + 1), "r"(size * 32) : "memory");
    }
    // Writes to global memory are seen by the other warps of the block after the next barrier.
    LARES_DEVICE void fence() const { __threadfence_block(); }
};

// Ends the kernel with an error.
LARES_DEVICE void fault() { __trap(); }

LARES_DEVICE Int lane_number() { return int(threadIdx.x) & 31; }

// --- lanes ---

template <class T>
LARES_DEVICE T select(bool mask, T yes, T no) {
    return mask ? yes : no;
}
LARES_DEVICE Mask both(Mask a, Mask b) { return a && b; }
LARES_DEVICE Float wide(float x) { return x; }
LARES_DEVICE Int wide(int x) { return x; }
LARES_DEVICE Word wide(uint32_t x) { return x; }
LARES_DEVICE Int as_int(Word x) { return int32_t(x); }
LARES_DEVICE Word as_word(Int x) { return uint32_t(x); }
LARES_DEVICE Word as_word(Float x) { return __float_as_uint(x); }
LARES_DEVICE Float as_float(Word x) { return __uint_as_float(x); }
LARES_DEVICE Float to_float(Int x) { return float(x); }
// Maximum of numbers; NaN if one of them is.
LARES_DEVICE Float larger(Float a, Float b) {
    float x;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(a), "f"(b));
    return x;
}
LARES_DEVICE Float smaller(Float a, Float b) {
    float x;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(x) : "f"(a), "f"(b));
    return x;
}
LARES_DEVICE Int larger(Int a, Int b) { return max(a, b); }
LARES_DEVICE Int smaller(Int a, Int b) { return min(a, b); }
LARES_DEVICE Float multiply_add(Float a, Float b, Float c) { return fmaf(a, b, c); }
LARES_DEVICE Word multiply_high(Word a, uint32_t b) { return __umulhi(a, b); }
// Bits shift .. shift + 31 of the 64 bits (high, low), 0 <= shift < 32.
LARES_DEVICE Word funnel_right(Word low, Word high, Int shift) {
    return __funnelshift_r(low, high, uint32_t(shift));
}
// 2^x, relative error below 2^-22; 0 for -infinity.
LARES_DEVICE Float exp2(Float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1 / x for x in 2^-126 .. 2^126, relative error below 2^-22.
LARES_DEVICE Float inverse(Float x) { return __fdividef(1.0f, x); }
LARES_DEVICE Float inverse_root(Float x) { return rsqrtf(x); }
LARES_DEVICE Float logarithm(Float x) { return logf(x); }

// --- between lanes; a quad is four neighbouring lanes ---

LARES_DEVICE Float quad_sum(Float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
LARES_DEVICE Float quad_max(Float x) {
    x = larger(x, __shfl_xor_sync(~0u, x, 1));
    return larger(x, __shfl_xor_sync(~0u, x, 2));
}
// Sum over eight neighbouring lanes.
LARES_DEVICE Float octet_sum(Float x) {
    x = quad_sum(x);
    return x + __shfl_xor_sync(~0u, x, 4);
}
// Sum over the eight lanes that hold the same columns.
LARES_DEVICE Float column_sum(Float x) {
    x += __shfl_xor_sync(~0u, x, 4);
    x += __shfl_xor_sync(~0u, x, 8);
    return x + __shfl_xor_sync(~0u, x, 16);
}
// Lane `source` of the own quad.
LARES_DEVICE Word quad_lane(Word x, int source) { return __shfl_sync(~0u, x, source, 4); }
// The lane four on: that of the next row of a product's sums.
LARES_DEVICE Word next_row(Word x) { return __shfl_down_sync(~0u, x, 4); }
LARES_DEVICE Word swap_neighbours(Word x) { return __shfl_xor_sync(~0u, x, 1); }
LARES_DEVICE bool any(Mask mask) { return __any_sync(~0u, mask); }
LARES_DEVICE int warp_max(Int x) { return __reduce_max_sync(~0u, x); }
LARES_DEVICE int warp_sum(Int x) { return __reduce_add_sync(~0u, x); }
// Sum over this and the lanes before it.
LARES_DEVICE Int running_sum(Int x) {
    for (int step = 1; step < 32; step *= 2) {
        const int before = __shfl_up_sync(~0u, x, step);
        if (lane_number() >= step) x += before;
    }
    return x;
}

// --- tensor cores ---

// Two numbers in 16 bits each, `low` in the lower half, rounded to nearest even.
template <class T>
LARES_DEVICE Word pack(Float low, Float high);
template <>
LARES_DEVICE Word pack<Bf16>(Float low, Float high) {
    Word word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
template <>
LARES_DEVICE Word pack<Fp16>(Float low, Float high) {
    Word word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// x times zero, added to `sum`, of two numbers in 16 bits each: zero stays zero until one of an x
// is not finite, and is NaN from there on.
template <class T>
LARES_DEVICE Word add_trace(Word sum, Word x);
template <>
LARES_DEVICE Word add_trace<Bf16>(Word sum, Word x) {
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0u));
    return sum;
}
template <>
LARES_DEVICE Word add_trace<Fp16>(Word sum, Word x) {
    asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0u));
    return sum;
}

// c (16 x 8) += a (16 x 16) b (16 x 8). With g = lane / 4 and t = lane % 4 a lane holds
//   c[0..1]: row g, columns 2t and 2t + 1; c[2..3]: row g + 8, the same columns;
//   a[0]: row g, columns 2t, 2t + 1; a[1]: row g + 8; a[2], a[3]: likewise columns 2t + 8, 2t + 9;
//   b0: rows 2t, 2t + 1 of column g; b1: rows 2t + 8, 2t + 9.
template <class T>
LARES_DEVICE void mma(Float (&c)[4], Word a0, Word a1, Word a2, Word a3, Word b0, Word b1);
#define LARES_MMA(TYPE, NAME)                                                              \
    template <>                                                                            \
    LARES_DEVICE void mma<TYPE>(Float(&c)[4], Word a0, Word a1, Word a2, Word a3, Word b0, \
                                Word b1) {                                                 \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME                \
                     ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"          \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                      \
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));              \
    }
LARES_MMA(Bf16, "bf16")
LARES_MMA(Fp16, "f16")
#undef LARES_MMA

// Rows and columns exchanged of 8 x 8 numbers of 16 bits, of which a lane holds columns 2t and 2t +
// 1 of row g.
LARES_DEVICE Word transpose(Word x) {
    Word y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

// --- memory ---

// Makes lanes' writes visible to the other lanes of the warp.
LARES_DEVICE void warp_barrier() { __syncwarp(); }

// A fragment is 512 bytes, of which lane i holds the i-th 16.
LARES_DEVICE void load_shared(Word (&to)[4], const unsigned char* from) {
    const uint4 v = reinterpret_cast<const uint4*>(from)[lane_number()];
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
LARES_DEVICE void store_shared(unsigned char* to, const Word (&from)[4]) {
    reinterpret_cast<uint4*>(to)[lane_number()] = make_uint4(from[0], from[1], from[2], from[3]);
}
LARES_DEVICE void load_fragment(Word (&to)[4], const unsigned char* from) {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(from) + lane_number());
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
// The same of memory that the kernel itself writes.
LARES_DEVICE void load_written(Word (&to)[4], const unsigned char* from) {
    const uint4 v = reinterpret_cast<const uint4*>(from)[lane_number()];
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
LARES_DEVICE void store_fragment(unsigned char* to, const Word (&from)[4]) {
    reinterpret_cast<uint4*>(to)[lane_number()] = make_uint4(from[0], from[1], from[2], from[3]);
}
// Forces earlier writes to be read back from memory instead of being held in registers.
LARES_DEVICE void forget_written() { asm volatile("" ::: "memory"); }
// Piece `index` of 16 bytes, for lanes where `mask` holds, from global to shared memory; there
// after copies_done().
LARES_DEVICE void copy16(unsigned char* to, const unsigned char* from, Int index, Mask mask) {
    if (mask) {
        const auto shared = uint32_t(__cvta_generic_to_shared(to + 16 * index));
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared),
                     "l"(from + int64_t(16) * index)
                     : "memory");
    }
}
LARES_DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Numbers `index` and `index + 1` of `from`, where `mask` holds, else 0; `index` is even.
LARES_DEVICE void load_pair(Float& a, Float& b, const float* from, Int index, Mask mask) {
    const float2 v = mask ? *reinterpret_cast<const float2*>(from + index) : make_float2(0.f, 0.f);
    a = v.x, b = v.y;
}
// The same of shared memory everywhere.
LARES_DEVICE void load_pair(Float& a, Float& b, const float* from, Int index) {
    const float2 v = *reinterpret_cast<const float2*>(from + index);
    a = v.x, b = v.y;
}
LARES_DEVICE void store_pair(float* to, Int index, Float a, Float b, Mask mask) {
    if (mask) *reinterpret_cast<float2*>(to + index) = make_float2(a, b);
}
LARES_DEVICE void store_pair(float* to, Int index, Float a, Float b) {
    *reinterpret_cast<float2*>(to + index) = make_float2(a, b);
}
// Word `index` of shared memory.
LARES_DEVICE void store_word(unsigned char* to, Int index, Word x) {
    reinterpret_cast<uint32_t*>(to)[index] = x;
}
LARES_DEVICE Float load(const float* from, Int index) { return from[index]; }
LARES_DEVICE Float load(const float* from, Int index, Mask mask, float other) {
    return mask ? from[index] : other;
}
LARES_DEVICE Int load(const int32_t* from, Int index) { return from[index]; }
LARES_DEVICE Int load(const int32_t* from, Int index, Mask mask, int other) {
    return mask ? from[index] : other;
}
// The lower half of 64-bit numbers, held between 0 and 2^31 - 1.
LARES_DEVICE Int load(const int64_t* from, Int index, Mask mask, int other) {
    if (!mask) return other;
    const int64_t value = from[index];
    return int(value < 0 ? 0 : value > 0x7fffffff ? 0x7fffffff : value);
}
LARES_DEVICE void store(int32_t* to, Int index, Int value, Mask mask) {
    if (mask) to[index] = value;
}

}  // namespace lares::cuda
