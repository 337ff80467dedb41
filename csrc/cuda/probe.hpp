// Every primitive once, on inputs from memory: lares_kernels/cuda/probe.py holds what comes out to
// what NVIDIA's manual says, on a card and on the emulator.
#pragma once

#include <cmath>

#include "draws.hpp"

namespace lares::cuda {

// Four warps, two units of two. A line of output is a word from each lane; lines come in order.
struct Probe {
    static constexpr int kMaxWarps = 4;
    static constexpr int kSharedBytes = 4 * kFragment + 16 * 32 * 2;

    const LaresCudaProbe& call;
    const Block& block;
    unsigned char* shared;

    LARES_DEVICE Probe(const LaresCudaProbe& call, const Block& block, unsigned char* shared)
        : call(call), block(block), shared(shared) {}

    LARES_DEVICE Word input(int line) const {
        return as_word(load(call.input, 32 * line + lane_number()));
    }
    // Inputs 0 .. 3 are numbers, of which those from 2 on are positive; 4 .. are any bits.
    LARES_DEVICE Float number(int line) const { return as_float(input(line)); }

    LARES_DEVICE void put(int& line, Word x) const {
        store(call.output, 32 * line++ + lane_number(), as_int(x), lane_number() >= 0);
    }
    LARES_DEVICE void put(int& line, Float x) const { put(line, as_word(x)); }
    LARES_DEVICE void put(int& line, Int x) const { put(line, as_word(x)); }
    LARES_DEVICE void put(int& line, const Word (&x)[4]) const {
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) put(line, x[i]);
    }

    LARES_DEVICE void run() const {
        int line = 0;
        if (block.warp == 0) {
            lanes(line);
            between_lanes(line);
            tensor_cores<Bf16>(line);
            tensor_cores<Fp16>(line);
            memory(line);
        }
        exchange();
    }

    LARES_DEVICE void lanes(int& line) const {
        const Float a = number(0), b = number(1), p = number(2);
        const Word x = input(4), y = input(5);
        const Int i = as_int(x), j = as_int(y);
        put(line, lane_number());
        put(line, select(both(a < b, lane_number() >= 3), a, b));
        put(line, larger(a, b));
        put(line, smaller(a, b));
        const Float none = a + wide(NAN);
        put(line, select(both(larger(none, b) != b, larger(b, none) != b), wide(1), wide(0)) +
                      select(both(smaller(none, b) != b, smaller(b, none) != b), wide(2), wide(0)));
        put(line, larger(i, j));
        put(line, smaller(i, j));
        put(line, to_float(i >> 8));
        put(line, multiply_add(a, b, p));
        put(line, multiply_high(x, 0xD2511F53u));
        put(line, funnel_right(x, y, j & 31));
        put(line, exp2(a));
        put(line, exp2(wide(-INFINITY)));
        put(line, inverse(p));
        put(line, inverse_root(p));
        put(line, logarithm(p));
        Word c[4] = {x, y, input(6), input(7)};
        philox(c, {17u, 0x80000001u});
        put(line, c);
    }

    LARES_DEVICE void between_lanes(int& line) const {
        const Float a = number(0);
        const Int small = as_int(input(4)) & 0xffff;
        put(line, quad_sum(a));
        put(line, quad_max(a));
        put(line, octet_sum(a));
        put(line, column_sum(a));
        put(line, quad_lane(input(4), 2));
        put(line, next_row(input(4)));
        put(line, swap_neighbours(input(4)));
        put(line, wide(int(any(lane_number() == 31)) + 2 * int(any(lane_number() > 31))));
        put(line, wide(warp_max(small)));
        put(line, wide(warp_sum(small)));
        put(line, running_sum(small));
    }

    template <class T>
    LARES_DEVICE void tensor_cores(int& line) const {
        Word a[4], b[2];
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) a[i] = pack<T>(number(i), number(i) - number(0) * 0.5f);
        b[0] = pack<T>(number(1), number(0));
        b[1] = pack<T>(number(3), number(2) * -0.25f);
        put(line, a);
        put(line, b[0]);
        put(line, b[1]);
        Float c[4] = {number(0), number(1), number(2), number(3)};
        mma<T>(c, a[0], a[1], a[2], a[3], b[0], b[1]);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) put(line, c[i]);
        put(line, transpose(a[1]));
        // Any bits, and some whose lower number is not finite.
        const Word x = input(4), low = select(lane_number() < 9, wide(0x7fffu), wide(0u));
        put(line, select(add_trace<T>(wide(0u), x) != 0u, wide(1), wide(0)));
        put(line, select(add_trace<T>(wide(0u), x | low) != 0u, wide(1), wide(0)));
    }

    LARES_DEVICE void memory(int& line) const {
        const auto* from = reinterpret_cast<const unsigned char*>(call.input);
        const auto* numbers = reinterpret_cast<const float*>(call.input);
        const Int lane = lane_number();
        Word words[4];
        load_fragment(words, from);
        put(line, words);
        auto* written = reinterpret_cast<unsigned char*>(call.scratch);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) words[i] = words[i] ^ 0x55u;
        store_fragment(written, words);
        load_written(words, written);
        put(line, words);
        // Pieces of 16 bytes to shared memory, of which odd lanes leave theirs out.
        unsigned char* there = shared + 4 * kFragment;
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) words[i] = wide(0u);
        store_shared(there, words);
        copy16(there, from, lane, (lane & 1) == 0);
        copies_done();
        load_shared(words, there);
        put(line, words);
        store_word(there, 31 - lane, input(4));
        warp_barrier();  // each lane reads what another wrote
        auto* floats = reinterpret_cast<float*>(there);
        store_pair(floats, 32 + 2 * lane, number(0), number(1));
        Float c, d;
        load_pair(c, d, numbers, 2 * lane, lane > 4);
        put(line, c);
        put(line, d);
        auto* output = reinterpret_cast<float*>(call.scratch);
        store_pair(output, 2 * lane, c, d, lane >= 0);
        store_pair(output, 2 * lane, number(0), number(1), lane < 9);
        warp_barrier();
        put(line, load(output, lane));
        put(line, load(output, lane + 32));
        put(line, load(call.input, lane, lane < 7, -5));
        put(line, load(numbers, lane, lane >= 30, -1.5f));
        put(line, load(call.wide, lane, lane < 20, -5));
        put(line, Word(as_word(load(reinterpret_cast<const int32_t*>(there), lane))));
        load_pair(c, d, floats, 32 + 2 * lane);
        put(line, c);
        put(line, d);
    }

    // Shared memory that a warp wrote, read by its unit's other warp and, after a second barrier,
    // by the block's next one.
    LARES_DEVICE void exchange() const {
        const int warp = block.warp, partner = warp ^ 1, next = (warp + 1) & 3;
        int line = LARES_CUDA_PROBE_LINES - 8 * 4 + 8 * warp;
        Word words[4];
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) words[i] = input(4 + i) + uint32_t(warp);
        store_shared(shared + warp * kFragment, words);
        block.unit_barrier(warp / 2, 2);
        load_shared(words, shared + partner * kFragment);
        put(line, words);
        block.unit_barrier(warp / 2, 2);
        LARES_UNROLL
        for (int i = 0; i < 4; ++i) words[i] = input(4 + i) ^ uint32_t(warp << 8);
        store_shared(shared + warp * kFragment, words);
        block.barrier();
        load_shared(words, shared + next * kFragment);
        put(line, words);
    }
};

}  // namespace lares::cuda
